import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from click.testing import CliRunner, Result
from support.tiny_study import Stop, tiny_experiment

from metasynth import __version__
from metasynth.cli.main import main
from metasynth.errors import DataError
from metasynth.running import study

LACKING, MORE = "out of memory:", " more were asked for"
TRIED = f"you tried to allocate {2**41} bytes. Error code 12 (Cannot allocate memory)"


class Point:
    value = "support.tiny_study:EXPERIMENT"

    def __init__(self, experiment):
        self.experiment = experiment

    def load(self):
        if self.experiment is None:
            raise ImportError("no module named x")
        return self.experiment


@pytest.fixture
def stop():
    return Stop()


@pytest.fixture
def cli(monkeypatch, tmp_path, stop) -> Callable[..., Result]:
    """The command line in an empty folder, with one experiment that works and one that cannot be imported."""
    points = {"broken": Point(None), "tiny": Point(tiny_experiment(stop))}
    monkeypatch.setattr(study, "discover_experiments", lambda: points)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, arguments)


def failed(result, code, message):
    assert result.exit_code == code, result.output
    assert result.stderr.splitlines()[-1] == message
    assert "Traceback" not in result.output


def test_version_and_help(cli):
    assert cli("--version").stdout == f"metasynth, version {__version__}\n"
    assert "run " in cli("--help").stdout
    assert cli("run", "-h").exit_code == 0
    nothing = cli()
    assert nothing.exit_code == 2
    assert "Commands:" in nothing.stderr


def test_list_shows_what_can_be_run_and_what_is_broken(cli):
    result = cli("list")
    assert result.exit_code == 0
    assert "tiny: Does it add up? (presets: quick, standard)" in result.stdout
    assert "cannot be loaded: ImportError: no module named x" in result.stdout


def test_run_prints_the_table_and_where_the_page_is(cli, tmp_path):
    result = cli("run", "tiny", "--out", "a", "--seed", "2", "--set", "steps=3", "--device", "cpu", "--threads", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("One row.\n\n|  Total |\n")
    assert result.stdout.endswith("Report: a/report.html\n")
    assert "tiny: 3/3" in result.stderr
    assert (tmp_path / "a" / "report.html").is_file()


def test_run_names_its_folder(cli, tmp_path):
    result = cli("run", "tiny", "--preset", "standard", "--seed", "4", "--device", "cpu")
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("tiny-standard-seed4-")
    assert f"Run folder: runs/{folder.name}" in result.stderr


def test_an_interrupted_run_says_how_to_go_on(cli, stop):
    cli("run", "tiny", "--out", "whole", "--set", "steps=5", "--device", "cpu")
    stop.at = 3
    again = "metasynth run tiny --resume --out 'my run'"
    failed(
        cli("run", "tiny", "--out", "my run", "--set", "steps=5", "--device", "cpu"),
        130,
        f"Interrupted. Continue with: {again}",
    )
    resumed = cli("run", "tiny", "--resume", "--out", "my run")
    assert resumed.exit_code == 0, resumed.output
    whole, mine = (cli("report", name).stdout.splitlines()[:-1] for name in ("whole", "my run"))
    assert whole == mine


def test_report_takes_several_runs(cli):
    for name in "ab":
        cli("run", "tiny", "--out", name, "--device", "cpu")
    result = cli("report", "a", "b")
    assert result.exit_code == 0
    assert result.stdout.count("One row.") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--out", "a"),
            "Error: metasynth run: 'tiny' is a study for a single process; start it without torchrun",
        ),
        ((), "Error: --out: give the folder of the run that 2 processes are to carry out"),
        (
            ("--out", "a", "--seeds", "2"),
            "Error: metasynth run: many runs are not for the 2 processes that torchrun started; leave --seeds, --vary "
            "and --launcher out, or start it by itself",
        ),
    ],
)
def test_what_is_not_for_several_processes_is_refused(cli, tmp_path, monkeypatch, arguments, message):
    """As torchrun starts them; the first of them speaks."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    failed(cli("run", "tiny", *arguments), 2, message)
    assert not any(tmp_path.iterdir())
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert cli("run", "tiny", "--out", "a", "--device", "cpu").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rum"], "Error: no command 'rum': did you mean 'run'?"),
        (["prep", "templat"], "Error: no command 'templat': did you mean 'template'?"),
        (["run"], "Error: Missing argument 'EXPERIMENT'."),
        (
            ["run", "tiney"],
            "Error: unknown experiment 'tiney': did you mean 'tiny'? (experiments: broken, tiny)",
        ),
        (["run", "tiny", "--preset", "qick"], "did you mean 'quick'? (presets: quick, standard)"),
        (["run", "tiny", "--set", "stesp=3"], "Error: unknown setting 'stesp': did you mean 'steps'?"),
        (
            ["run", "tiny", "--set", "steps"],
            "Error: --set steps: expected KEY=VALUE, for example --set steps=...",
        ),
        (["run", "tiny", "--set", "steps=x"], "Error: steps: expected a whole number, got 'x'"),
        (["run", "tiny", "--set", "kind=x"], "Error: kind: expected one of normal, uniform, got 'x'"),
        (["run", "tiny", "--resume"], "Error: --resume: needs --out DIR, the folder of the run to continue"),
        (["run", "tiny", "--resume", "--out", "no"], "Error: no: holds no run (config.json is missing)"),
        (["run", "tiny", "--device", "tpu"], "Error: Invalid value for '--device': 'tpu' is not one of"),
        (["run", "tiny", "--threads", "0"], "Error: Invalid value for '--threads'"),
        (["report"], "Error: Missing argument 'RUN...'"),
        (["report", "no"], "Error: no: holds no run (config.json is missing)"),
        (
            ["prep", "template", "--cohort", "tmplate-64"],
            "there is no such cohort: did you mean 'template-64'?",
        ),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(cli, tmp_path, arguments, message):
    result = cli(*arguments)
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert message in last
    assert not any(tmp_path.iterdir())


def test_a_folder_with_another_run_is_left_alone(cli):
    cli("run", "tiny", "--out", "a", "--device", "cpu")
    failed(
        cli("run", "tiny", "--out", "a"),
        2,
        "Error: a: holds another run; continue it with --resume or give another --out",
    )
    failed(
        cli("run", "tiny", "--out", "a", "--resume", "--seed", "9"),
        2,
        "Error: a: cannot resume with other settings: seed: 0 -> 9",
    )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError("a.h5: holds\n  no labels"), "Error: a.h5: holds no labels"),
        (PermissionError(13, "Permission denied", "a.h5"), "Error: a.h5: Permission denied"),
        (OSError("odd"), "Error: odd"),
    ],
)
def test_failures_are_one_line_and_exit_code_1(cli, stop, error, message):
    stop.at, stop.error = 1, error
    failed(cli("run", "tiny", "--out", "a", "--device", "cpu"), 1, message)


def test_a_broken_experiment_is_exit_code_1(cli):
    broken = "experiment 'broken' (support.tiny_study:EXPERIMENT)"
    message = f"Error: {broken} cannot be loaded: ImportError: no module named x"
    failed(cli("run", "broken"), 1, message)


def test_debugging_shows_the_traceback(cli, stop, monkeypatch):
    monkeypatch.setenv("METASYNTH_DEBUG", "1")
    stop.at, stop.error = 1, DataError("a.h5: holds no labels")
    result = cli("run", "tiny", "--out", "a", "--device", "cpu")
    assert isinstance(result.exception, DataError)


WORKER = """Caught TypeError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "x.py", line 1, in f
TypeError: not a tensor
"""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ZeroDivisionError("x"), "internal error: ZeroDivisionError: x (METASYNTH_DEBUG=1 shows where)"),
        (RecursionError("too\n deep"), "internal error: RecursionError: too deep (METASYNTH_DEBUG=1 shows where)"),
        (TypeError(WORKER), "internal error: TypeError: not a tensor (METASYNTH_DEBUG=1 shows where)"),
        (MemoryError(), "out of memory"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 TiB. GPU 0 has"),
            f"{LACKING} 2.50 TiB{MORE}",
        ),
        (
            RuntimeError(f"[enforce fail] DefaultCPUAllocator: can't allocate memory: {TRIED}"),
            f"{LACKING} 2.0 TiB{MORE}",
        ),
        (MemoryError("Unable to allocate 2.00 TiB for an array with shape (2, 3)"), f"{LACKING} 2.00 TiB{MORE}"),
    ],
)
def test_no_traceback_reaches_a_user(cli, stop, error, message, monkeypatch):
    stop.at, stop.error = 1, error
    failed(cli("run", "tiny", "--out", "a", "--device", "cpu"), 1, f"Error: {message}")
    monkeypatch.setenv("METASYNTH_DEBUG", "1")
    stop.at = 1
    assert cli("run", "tiny", "--out", "b", "--device", "cpu").exception is error


def test_the_command_line_answers_without_loading_torch():
    code = (
        "import sys, metasynth.cli.main, metasynth.__main__\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'h5py', 'scipy', 'rich', 'jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_python_dash_m():
    done = subprocess.run([sys.executable, "-m", "metasynth", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"metasynth, version {__version__}\n"
