"""`metasynth settings` prints every setting of every experiment, each with a line from where it is declared."""

import json
from itertools import chain

import pytest
from click.testing import CliRunner, Result

from metasynth.cli.main import main
from metasynth.running.settings.config import apply_overrides, to_dict
from metasynth.running.settings.described import list_settings
from metasynth.running.study import discover_experiments, load_experiment

EXPERIMENTS = list(discover_experiments())


def settings(*words: str) -> Result:
    return CliRunner().invoke(main, ["settings", *words])


def keys(values: dict, prefix: str = "") -> list[str]:
    """The dotted keys of a run's config; an empty object is a setting's value and no group."""
    leaves = (
        [f"{prefix}{k}"] if not v or not isinstance(v, dict) else keys(v, f"{prefix}{k}.") for k, v in values.items()
    )
    return list(chain(*leaves))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_setting_of_every_preset_is_listed_and_can_be_set(name):
    presets = load_experiment(name).presets
    for preset, config in presets.items():
        found = list(list_settings(config))
        assert [setting.key for setting in found] == keys(to_dict(config))
        overrides = [f"{setting.key}={setting.text}" for setting in found]
        for other in presets.values():
            assert apply_overrides(other, overrides) == config, preset


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_setting_has_a_line_of_its_own(name):
    lines: dict[tuple[str, str], str] = {}
    for setting in list_settings(load_experiment(name).presets["quick"]):
        assert setting.line, setting.key
        assert setting.line.endswith("."), setting.key
        assert not setting.line.startswith(("See ", "Likewise", "The same")), setting.key
        same = lines.setdefault((setting.key.rpartition(".")[0], setting.line), setting.key)
        assert same == setting.key


def test_settings_are_printed_as_they_are_set():
    result = settings("noise", "--preset", "paper")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    for key, line in (
        (
            "sigma=0.0,0.05,0.1,0.15,0.025:0.2  (a comma-separated list, each a number or LOW:HIGH)",
            "Preset levels of the ",
        ),
        (
            "augmenter=fixed  (one of fixed, random_amplitude, range)",
            "The noise that is learned: of one sigma (Eq. 8), ",
        ),
        ("baselines=true  (true or false)", "Train N and O too; without them a run only recovers."),
        ("segmenter.lr=0.001  (a finite number)", "Learning rate of Adam."),
        ("segmenter.network=unet  (one of unet, nnunet, nnunet_residual, monai)", "Which network: the paper's U-Net, "),
        ("segmenter.network_arguments={}  (a JSON object)", "What only that network has, a JSON object: "),
        ("outer.betas=0.9,0.95  (2 comma-separated values (a finite number, a finite number))", "Decay of Adam's "),
        (
            "synthesis.bias=false  (a whole number or true or false)",
            "Largest number of control points of a bias field ",
        ),
        ("pace.workers=8  (a whole number)", "Processes that make the data; 0: the process that trains."),
    ):
        assert lines[lines.index(key) + 1].startswith(f"    {line}")


def test_json_has_values_kinds_and_choices():
    found = json.loads(settings("real_world", "--json").stdout)
    assert (found["experiment"], found["preset"]) == ("real_world", "quick")
    by_key = {setting["key"]: setting for setting in found["settings"]}
    assert by_key["segmenter.norm"] == {
        "key": "segmenter.norm",
        "default": "instance",
        "type": "one of none, batch, instance",
        "choices": ["none", "batch", "instance"],
        "line": "Normalisation after each convolution; none in the paper, but a network with one learns several times "
        "faster (docs/measurements/recovery.md).",
    }
    assert by_key["subjects.train"]["default"] == [5]
    assert by_key["methods"]["choices"][:3] == ["supervised_all", "supervised", "naive"]
    assert by_key["methods"]["type"].startswith("a comma-separated list, each one of supervised_all, ")
    assert by_key["fit_labels"]["default"] is False


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["noize"], "Error: unknown experiment 'noize': did you mean 'noise'? (experiments: "),
        (
            ["noise", "--preset", "qick"],
            "Error: experiment 'noise' has no preset 'qick': did you mean 'quick'? (presets: ",
        ),
    ],
)
def test_what_there_is_not_is_one_line(words, line):
    result = settings(*words)
    assert result.exit_code == 2
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1
