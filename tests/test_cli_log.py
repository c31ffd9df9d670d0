"""``metasynth run --log``: one run and grids, with a sink that another package declares."""

import json
import os

import pytest
from click.testing import CliRunner
from support import grid_study
from support.noting_sink import FAILING, noted, notes
from support.tiny_study import Stop, tiny_experiment

from metasynth.cli.main import main
from metasynth.run import execute
from metasynth.running import study
from metasynth.running.integrity.json_files import with_digest, without_digest
from metasynth.running.jsonlines import encode
from metasynth.sinks import sink, table

OTHERS = "none or one of tensorboard, mlflow, wandb, noting, refusing"


@pytest.fixture(autouse=True)
def known(monkeypatch, tmp_path):
    """The study 'tiny' and the sinks 'noting' and 'refusing' are installed; the working folder is empty."""
    folder = grid_study.install(tmp_path / "installed")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{grid_study.TESTS}")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def call(*words):
    return CliRunner().invoke(main, ["run", "tiny", "--device", "cpu", "--quiet", *map(str, words)])


def totals(run):
    return [json.loads(line)["total"] for line in (run / "metrics.jsonl").read_bytes().splitlines()]


def given(run):
    """The totals that the sink was handed, with the numbers of their records."""
    return [(number, values["total"]) for number, _, _, values in noted(run)]


def logged(run):
    return json.loads((run / "environment.json").read_text()).get("log")


def test_a_run_hands_on_its_records_and_pictures(known):
    done = call("--out", "a", "--log", "noting")
    assert done.exit_code == 0, done.output
    run = known / "a"
    assert given(run) == list(enumerate(totals(run), start=1))
    assert [notes(run)[0], *notes(run)[-2:]] == [["open", "a", "tiny"], ["show", "total", True], ["close", True]]
    assert logged(run) == "noting"
    plain = call("--out", "b")
    assert plain.exit_code == 0
    assert not (known / "b" / "logs").exists()
    assert logged(known / "b") is None
    assert (run / "metrics.jsonl").read_bytes() == (known / "b" / "metrics.jsonl").read_bytes()


def stopped_at(step, out, **options):
    """A run that ends before a step."""
    with pytest.raises(KeyboardInterrupt):
        execute(tiny_experiment(Stop(at=step)), out, device="cpu", quiet=True, **options)


@pytest.mark.parametrize(("more", "last"), [([], 4), (["--log", "noting"], 4), (["--log", "none"], 3)])
def test_a_resumed_run_goes_on_with_its_sinks(known, more, last):
    run = known / "a"
    stopped_at(3, run, log="noting")  # after three records, of which the checkpoint knows two
    assert [number for number, _ in given(run)] == [1, 2, 3]
    done = call("--out", "a", "--resume", *more)
    assert done.exit_code == 0, done.output
    assert given(run) == list(enumerate(totals(run), start=1))[:last]


def test_a_run_without_sinks_hands_all_on_later(known):
    assert call("--out", "a").exit_code == 0
    done = call("--out", "a", "--resume", "--log", "noting")
    assert done.exit_code == 0, done.output
    assert given(known / "a") == list(enumerate(totals(known / "a"), start=1))


def test_the_sinks_of_the_last_session_are_kept(known):
    run = known / "a"
    stopped_at(1, run)
    stopped_at(3, run, resume=True, log="noting")
    assert call("--out", "a", "--resume").exit_code == 0
    assert len(given(run)) == 4


def test_every_run_of_a_grid_hands_on_its_own(known):
    done = call("--out", "g", "--seeds", 2, "--log", "noting")
    assert done.exit_code == 0, done.output
    for run in (known / "g" / f"seed={seed}" for seed in range(2)):
        assert given(run) == list(enumerate(totals(run), start=1))
    assert json.loads((known / "g" / "grid.json").read_text())["log"] == "noting"
    for name in ("results.json", "report.html"):
        (known / "g" / "seed=1" / name).unlink()
    (known / "g" / "seed=1" / "logs" / "noting" / "notes").unlink()
    for more in ([], ["--log", "none"]):  # other sinks are no other grid
        again = call("--out", "g", "--resume", *more)
        assert again.exit_code == 0, again.output
    assert json.loads((known / "g" / "grid.json").read_text())["log"] == "none"
    assert len(given(known / "g" / "seed=1")) == 4


@pytest.mark.parametrize("grid", [[], ["--seeds", "2"]])
@pytest.mark.parametrize(
    ("log", "status", "line"),
    [
        ("notin", 2, f"--log notin: unknown sink 'notin': expected {OTHERS}"),
        ("noting,noting", 2, "--log noting,noting: noting is given twice"),
        ("", 2, "--log '': expected names such as tensorboard,mlflow, or none"),
        ("mlflow", 2, "--log mlflow: needs the package mlflow: pip install 'metasynth-toolkit[mlflow]'"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_made(known, monkeypatch, grid, log, status, line):
    monkeypatch.setattr(sink, "find_spec", lambda name: None)
    refused = call("--out", "a", *grid, "--log", log)
    assert (refused.exit_code, refused.stderr.splitlines()[-1]) == (status, f"Error: {line}")
    assert not any(known.iterdir())


def test_a_sink_that_cannot_be_opened_ends_the_run_before_its_first_step(known):
    refused = call("--out", "a", "--log", "refusing")
    why = "ValueError: MYLOG_URI: expected an address, got ''"
    line = f"Error: a/logs/refusing: the sink 'refusing' cannot be opened: {why}; --log none runs without"
    assert (refused.exit_code, refused.stderr.splitlines()[-1]) == (1, line)
    assert not (known / "a" / "metrics.jsonl").read_bytes()
    assert call("--out", "a", "--resume", "--log", "none").exit_code == 0


def test_a_folder_of_logs_that_cannot_be_written(known):
    stopped_at(1, known / "a")
    (known / "a" / "logs").touch()
    refused = call("--out", "a", "--resume", "--log", "noting")
    line = "Error: a/logs/noting: cannot be written: Not a directory"
    assert (refused.exit_code, refused.stderr.splitlines()[-1]) == (1, line)


def test_a_sink_that_fails_does_not_end_a_run(known, monkeypatch):
    monkeypatch.setattr(table.TABLE, "_registered", {})
    table.register(FAILING)
    done = call("--out", "a", "--log", "noting,failing")
    assert done.exit_code == 0, done.output
    why = "OSError: [Errno 28] No space left on device: '/store'"
    told = f"sink 'failing' failed: {why}; the run goes on, and --resume hands on the records that it has not"
    assert told in done.stderr.splitlines()
    assert len(given(known / "a")) == 4


def test_an_environment_with_another_kind_of_sinks(known):
    run = known / "a"
    stopped_at(1, run)
    path = run / "environment.json"
    value = json.loads(path.read_text()) | {"log": 3}
    path.write_bytes(encode(with_digest(without_digest(value)), indent=2))
    refused = call("--out", "a", "--resume")
    assert (refused.exit_code, refused.stderr.splitlines()[-1]) == (
        1,
        "Error: a/environment.json: log: expected a str, got 3",
    )


def test_the_study_is_the_installed_one():
    assert study.load_experiment("tiny").name == "tiny"
