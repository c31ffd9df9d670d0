"""What a shell completes, asked as click's scripts ask it."""

import os
import subprocess
import sys

import pytest
from click.shell_completion import CompletionItem, ShellComplete
from metasynth.data_prep.cohorts.cohort import COHORTS
from metasynth.data_prep.mapping_names import IDS
from metasynth.experiments.comparison.methods import METHODS

from metasynth.cli import completion
from metasynth.cli.main import main
from metasynth.running import study

EXPERIMENTS = [
    "cross_contrast",
    "hyper_cleaning",
    "inu",
    "label_maps",
    "noise",
    "real_world",
    "ridge",
    "sinusoid",
    "unpaired",
]


def items(words: str) -> list[CompletionItem]:
    """What there is for the last word, which may be empty."""
    *args, incomplete = words.split(" ")
    return ShellComplete(main, {}, "metasynth", "_METASYNTH_COMPLETE").get_completions(args, incomplete)


def completions(words: str) -> list[str]:
    return [item.value for item in items(words)]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("ru", ["run"]),
        ("prep fr", ["freesurfer"]),
        ("run ", EXPERIMENTS),
        ("settings r", ["real_world", "ridge"]),
        ("run noise --log t", ["tensorboard"]),
        ("run noise --log tensorboard,", ["tensorboard,mlflow", "tensorboard,wandb"]),
        ("run noise --preset ", ["quick", "standard", "paper", "quick-3d"]),
        ("run inu --preset n", ["nonparametric"]),
        ("settings real_world --preset p", ["paper"]),
        ("run noise --set augm", ["augmenter=fixed"]),
        ("run noise --set augmenter=", ["augmenter=fixed", "augmenter=random_amplitude", "augmenter=range"]),
        ("run noise --set segmenter.lr", ["segmenter.lr=0.005"]),
        ("run noise --preset paper --set segmenter.lr", ["segmenter.lr=0.001"]),
        ("run noise --set segmenter.lr=", ["segmenter.lr=0.005"]),
        ("run noise --set baselines=f", ["baselines=false"]),
        ("run noise --set steps=1 --set outer.be", ["outer.betas=0.9,0.95"]),
        ("run real_world --set methods=sup", ["methods=supervised_all", "methods=supervised"]),
        ("run real_world --set methods=naive,mix", ["methods=naive,mixed"]),
        ("run unpaired --set methods=naive,n", ["methods=naive,nonparametric"]),
        ("run noise --vary segmenter.norm=none,b", ["segmenter.norm=none,batch"]),
        ("run noise --set nothing=", []),
        ("run nosie --preset ", []),
        ("run nosie --set s", []),
        ("run noise --preset qick --set s", []),
        ("rum noise", []),
        ("evaluate a b --mapping muse", ["muse-4", "muse-5", "muse"]),
        ("prep template --cohort flash-3-", ["flash-3-64", "flash-3-96", "flash-3-192"]),
        ("prep remap a.h5 --curve ", ["inverted", "bent"]),
        ("run noise --device c", ["cpu", "cuda"]),
        ("prep labels --vol", []),
        ("predict run scans --mask", ["--masks"]),
    ],
)
def test_completions(words, found, capsys):
    assert completions(words) == found
    assert capsys.readouterr().err == ""


def test_lists_are_completed_whole(capsys):
    keys = [item.partition("=")[0] for item in completions("run noise --set ")]
    assert keys[:3] == ["sigma", "start", "test"]
    assert {"segmenter.network", "outer.lr", "synthesis.gamma", "pace.workers"} <= set(keys)
    assert completions("run real_world --set methods=") == [f"methods={name}" for name in METHODS]
    assert completions("prep labels x --mapping ") == [*IDS, ""]
    assert set(completions("prep template --cohort ")) == set(COHORTS)


@pytest.mark.parametrize(
    "words",
    [
        *(
            "predict run ",
            "predict run a --masks ",
            "evaluate ",
            "evaluate a ",
            "inspect ",
            "report ",
            "run noise --data ",
        ),
        *("run noise --config ", "prep labels ", "prep nifti --images ", "prep nifti --labels ", "prep nifti --masks "),
        *("prep labels a --transforms ", "prep freesurfer ", "prep bids --derivatives ", "prep labels a --out "),
    ],
)
def test_files_are_left_to_the_shell(words):
    assert [item.type for item in items(words)] == ["file"]


def test_settings_come_with_their_line():
    (item,) = items("run noise --set segmenter.steps")
    assert (item.value, item.help) == ("segmenter.steps=1500", "Inner steps.")


def test_the_group_is_that_of_the_experiments():
    assert completion.GROUP == study.GROUP


def asked(shell: str, words: str) -> "subprocess.CompletedProcess[str]":
    """The program as a shell's script calls it, reporting what it imported."""
    code = (
        "import sys\nfrom metasynth.cli.main import main\n"
        "try:\n    main(prog_name='metasynth')\nfinally:\n"
        "    print({'torch', 'numpy', 'h5py', 'scipy', 'rich', 'matplotlib'} & set(sys.modules), file=sys.stderr)"
    )
    asking = {"_METASYNTH_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    environment = {**os.environ, **asking}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [("metasynth prep nif", "plain,nifti\n"), ("metasynth run no", "plain,noise\n"), ("metasynth rum no", "\n")],
)
def test_what_needs_no_experiment_imports_nothing_heavy(words, said):
    done = asked("bash", words)
    assert (done.stdout, done.stderr) == (said, "set()\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_lines_of_the_docs_print_a_script(shell):
    environment = {**os.environ, "_METASYNTH_COMPLETE": f"{shell}_source"}
    done = subprocess.run(
        [sys.executable, "-m", "metasynth"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "_METASYNTH_COMPLETE=" in done.stdout
