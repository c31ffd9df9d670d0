import json

import pytest
import torch
from click.testing import CliRunner
from support.tiny_study import Stop, Tiny, tiny_experiment

from metasynth.cli.main import main
from metasynth.errors import RunError, UsageError
from metasynth.run import execute, write_run_report
from metasynth.running import study
from metasynth.running.device import configure_torch
from metasynth.running.records import RunFolder
from metasynth.running.study import load_experiment


class Point:
    """An entry point that gives, or fails with, ``target``."""

    value = "package.module:EXPERIMENT"

    def __init__(self, target):
        self.target = target

    def load(self):
        if isinstance(self.target, BaseException):
            raise self.target
        return self.target


@pytest.fixture
def registered(monkeypatch):
    points = {
        "tiny": Point(tiny_experiment()),
        "noise": Point(ImportError("no module x")),
        "odd": Point(3),
        "alias": Point(tiny_experiment()),
    }
    monkeypatch.setattr(study, "discover_experiments", lambda: points)


def results(path):
    found = json.loads((path / "results.json").read_text())
    assert found.pop("wall_s") >= 0
    return found


def test_a_run_writes_everything(tmp_path):
    folder = execute(tiny_experiment(), tmp_path / "a", seed=3, overrides=["steps=5"], device="cpu", threads=1)
    assert folder.manifest["config"] == {"steps": 5, "kind": "normal", "outer": {"lr": 0.1}}
    assert folder.manifest["seed"] == 3
    assert folder.environment["threads"] == 1
    assert len(folder.read_metrics()) == 5
    found = results(folder.path)
    assert (found["experiment"], found["preset"], found["seed"], found["device"]) == (
        "tiny",
        "quick",
        3,
        "cpu",
    )
    assert found["rows"][0]["total"] == folder.read_metrics()[-1]["total"]
    names = {str(p.relative_to(folder.path)) for p in folder.path.rglob("*") if p.is_file()}
    assert {"table.csv", "table.md", "report.html", "figures/total.png", "config.json"} <= names


def test_the_same_seed_gives_the_same_numbers(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        execute(tiny_experiment(), tmp_path / name, seed=seed, device="cpu")
    a, b, c = (results(tmp_path / name) for name in "abc")
    assert a == b
    assert a["rows"] != c["rows"]


@pytest.mark.parametrize("step", range(6))
def test_a_stopped_run_resumes_to_the_same_files(tmp_path, step):
    settings = {"preset": "standard", "overrides": ["steps=6", "outer.lr=.3"], "seed": 5, "device": "cpu"}
    execute(tiny_experiment(), tmp_path / "whole", **settings)
    stopped = tiny_experiment(Stop(at=step))
    with pytest.raises(KeyboardInterrupt):
        execute(stopped, tmp_path / "stopped", **settings)
    execute(stopped, tmp_path / "stopped", resume=True)  # what it was started with is taken from the folder
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "stopped")]
    assert metrics[0] == metrics[1]
    assert results(tmp_path / "whole") == results(tmp_path / "stopped")


def test_resume_accepts_the_same_settings_and_refuses_others(tmp_path):
    stopped = tiny_experiment(Stop(at=2))
    with pytest.raises(KeyboardInterrupt):
        execute(stopped, tmp_path / "a", overrides=["steps=6"], data=tmp_path / "mine.h5", device="cpu")
    with pytest.raises(UsageError, match=r"seed: 0 -> 1$"):
        execute(stopped, tmp_path / "a", resume=True, seed=1)
    with pytest.raises(UsageError, match=r"config.steps: 6 -> 7$"):
        execute(stopped, tmp_path / "a", resume=True, overrides=["steps=7"])
    with pytest.raises(UsageError, match=r"data.digest: 'digest of mine.h5' -> 'digest of other.h5'$"):
        execute(stopped, tmp_path / "a", resume=True, data=tmp_path / "other.h5")
    folder = execute(stopped, tmp_path / "a", resume=True, overrides=["steps=6"], seed=0)
    assert folder.manifest["data"]["path"] == str(tmp_path / "mine.h5")


def test_a_finished_run_is_reported_again_and_not_run(tmp_path, caplog):
    execute(tiny_experiment(), tmp_path / "a", device="cpu")
    before = (tmp_path / "a" / "results.json").read_bytes()
    (tmp_path / "a" / "report.html").unlink()
    caplog.set_level("INFO", "metasynth.progress")
    execute(tiny_experiment(Stop(at=0, error=AssertionError("it ran"))), tmp_path / "a", resume=True)
    assert (tmp_path / "a" / "report.html").is_file()
    assert (tmp_path / "a" / "results.json").read_bytes() == before
    assert caplog.messages == [f"{tmp_path / 'a'}: the run has finished; its report is written again"]


def test_a_taken_folder_is_refused_before_the_data_are_prepared(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(UsageError, match="is not empty"):
        execute(study.Experiment("e", "?", {"quick": Tiny()}, None, None, None), tmp_path)


def test_a_run_of_another_experiment(tmp_path):
    execute(tiny_experiment(), tmp_path / "a", device="cpu")
    other = study.Experiment("other", "?", {"quick": Tiny()}, None, None, None)
    with pytest.raises(UsageError, match="holds a run of 'tiny', not of 'other'"):
        execute(other, tmp_path / "a", resume=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"preset": "quik"},
            r"experiment 'tiny' has no preset 'quik': did you mean 'quick'\? \(presets: quick, standard",
        ),
        ({"preset": "x"}, "has no preset 'x': choose from quick, standard"),
        ({"overrides": ["stesp=1"]}, r"unknown setting 'stesp': did you mean 'steps'\?"),
        ({"overrides": ["outer.lr=0"]}, "--set outer.lr: lr must be positive"),
        ({"threads": 0}, "--threads: expected at least 1, got 0"),
        ({"resume": True}, "holds no run"),
    ],
)
def test_bad_requests_leave_no_folder(tmp_path, settings, message):
    with pytest.raises(UsageError, match=message):
        execute(tiny_experiment(), tmp_path / "a", **{"device": "cpu", **settings})
    assert not (tmp_path / "a").exists()


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="--device cuda: torch sees no CUDA device here"):
        configure_torch("cuda", None)
    assert configure_torch("auto", 2) == ("cpu", 2)


@pytest.mark.usefixtures("registered")
def test_experiments_are_loaded_by_name():
    assert load_experiment("tiny").name == "tiny"
    with pytest.raises(UsageError, match=r"unknown experiment 'tiney': did you mean 'tiny'\? \(experiments: tiny"):
        load_experiment("tiney")
    with pytest.raises(UsageError, match="unknown experiment 'xyz': choose from alias, noise, odd, tiny"):
        load_experiment("xyz")
    with pytest.raises(
        RunError, match=r"'noise' \(package.module:EXPERIMENT\) cannot be loaded: ImportError: no module x"
    ):
        load_experiment("noise")
    with pytest.raises(RunError, match="is a int, no Experiment"):
        load_experiment("odd")
    with pytest.raises(RunError) as refused:
        load_experiment("alias")  # the runs' reports would not find it by the name that is in their folders
    line = "experiment 'alias' (package.module:EXPERIMENT) has the name 'tiny'; its entry point must have it too"
    assert str(refused.value) == line


def test_noise_is_registered():
    assert "noise" in study.discover_experiments()


def test_an_unfinished_run_has_no_report(tmp_path):
    experiment = tiny_experiment(Stop(at=1))
    with pytest.raises(KeyboardInterrupt):
        execute(experiment, tmp_path / "a", device="cpu")
    with pytest.raises(UsageError, match="the run has no results yet; continue it with --resume"):
        write_run_report(experiment, RunFolder.open(tmp_path / "a"))


def test_resuming_what_was_not_begun_needs_to_be_told_what_to_begin(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".lock").touch()
    with pytest.raises(UsageError) as caught:
        execute(tiny_experiment(), tmp_path / "a", resume=True)
    assert str(caught.value) == (
        f"{tmp_path / 'a'}: holds no run (config.json is missing); leave --resume out to begin one"
    )
    assert [path.name for path in (tmp_path / "a").iterdir()] == [".lock"]
    folder = execute(tiny_experiment(), tmp_path / "a", resume=True, overrides=["steps=5"], device="cpu")
    assert folder.manifest["config"]["steps"] == 5


def test_a_module_that_ends_its_process_ends_no_other(monkeypatch):
    points = {"tiny": Point(tiny_experiment()), "leaves": Point(SystemExit(3))}
    monkeypatch.setattr(study, "discover_experiments", lambda: points)
    line = "experiment 'leaves' (package.module:EXPERIMENT) cannot be loaded: SystemExit: 3"
    with pytest.raises(RunError) as caught:
        load_experiment("leaves")
    assert str(caught.value) == line
    result = CliRunner().invoke(main, ["list"])
    assert result.exit_code == 0
    assert result.stdout == f"tiny: Does it add up? (presets: quick, standard)\nleaves: {line}\n"


@pytest.mark.parametrize("made", [False, True])
def test_a_resumed_run_that_is_told_what_it_is_begins_where_nothing_is(tmp_path, made):
    """So that one command can be repeated until it has finished."""
    if made:
        (tmp_path / "a").mkdir()  # as schedulers make the folder of what a command is to write
    for _ in range(2):
        folder = execute(tiny_experiment(), tmp_path / "a", resume=True, seed=0, device="cpu")
    assert folder.finished
    records = (tmp_path / "a" / "metrics.jsonl").read_bytes()
    assert records == (execute(tiny_experiment(), tmp_path / "b", device="cpu").path / "metrics.jsonl").read_bytes()
