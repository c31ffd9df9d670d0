"""``metasynth run --seeds``, with runs in processes of their own."""

import csv
import json
import os
import re
import shlex
import signal
import threading

import pytest
import torch
from click.testing import CliRunner
from support import grid_study
from support.processes import alive, wait_for
from support.tiny_noise import arguments, make_cache, start

from metasynth.cli.main import main
from metasynth.errors import RunError
from metasynth.run import execute
from metasynth.running import study
from metasynth.running.lock import claim


def call(*words):
    return CliRunner().invoke(main, list(map(str, words)))


def rows(out):
    """The rows of a grid without their timings."""
    found = json.loads((out / "results.json").read_text())["rows"]
    return [{key: value for key, value in row.items() if key != "wall_s"} for row in found]


def lines(run):
    metrics = run / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache") / "c.h5")


@pytest.fixture(scope="module")
def noise(cache, tmp_path_factory):
    """A grid of the noise study, and what it said."""
    out = tmp_path_factory.mktemp("noise") / "grid"
    done = call(*arguments(out, cache, baselines="false"), "--seeds", 2, "--vary", "start=0.3", "--jobs", 2)
    assert done.exit_code == 0, done.output
    return out, done


def test_a_grid_reports_on_all_of_its_runs(noise):
    out, done = noise
    runs = {"seed=0,start=0.3", "seed=1,start=0.3"}
    files = {"grid.json", "results.json", "table.csv", "table.md", "report.html", "figures", ".lock"}
    assert {path.name for path in out.iterdir()} == runs | {f"{run}.log" for run in runs} | files
    assert len(re.findall(r"^seed=.,start=0\.3: finished in \d+ s$", done.stderr, re.MULTILINE)) == 2
    assert done.stderr.splitlines()[-1].startswith("grid of noise: 2/2, ")
    assert done.stdout.startswith("Preset and learned σ over runs.")
    assert done.stdout.endswith(f"Report: {out / 'report.html'}\n")
    assert [(row["seed"], row["start"], row["sigma_true"]) for row in rows(out)] == [(0, 0.3, 0.1), (1, 0.3, 0.1)]
    with (out / "table.csv").open(newline="") as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["0", "1"]
    assert {path.name for path in (out / "figures").iterdir()} == {"recovered-sigma.png", "courses-sigma.png"}
    page = (out / "report.html").read_text()
    for shown in ("seeds 0, 1", "vary.start", "2 runs, over seeds 0, 1; start 0.3."):
        assert shown in page


def test_a_run_of_a_grid_is_a_run(noise, cache, tmp_path):
    alone = call(*arguments(tmp_path / "one", cache, seed=1, baselines="false", start="0.3"))
    assert alone.exit_code == 0, alone.output
    mine, its = (path / "metrics.jsonl" for path in (tmp_path / "one", noise[0] / "seed=1,start=0.3"))
    assert mine.read_bytes() == its.read_bytes()


def test_a_finished_grid_is_reported_again(noise):
    out, done = noise
    before = (out / "report.html").read_bytes(), (out / "results.json").read_bytes()
    again = call("run", "noise", "--resume", "--out", out)
    assert again.exit_code == 0, again.output
    assert again.stdout == done.stdout == call("report", out).stdout
    assert ((out / "report.html").read_bytes(), (out / "results.json").read_bytes()) == before


@pytest.mark.parametrize(
    ("more", "difference"),
    [
        (["--seeds", "3"], "seeds: [0, 1] -> [0, 1, 2]"),
        (["--seed", "5"], "seeds: [0, 1] -> [5, 6]"),
        (["--vary", "start=0.3,0.4"], "vary.start: ['0.3'] -> ['0.3', '0.4']"),
        (["--preset", "standard"], "preset: 'quick' -> 'standard'"),
        (["--threads", "2"], "threads: 1 -> 2"),
    ],
)
def test_a_grid_is_not_resumed_as_another(noise, more, difference):
    out, _ = noise
    refused = call("run", "noise", "--resume", "--out", out, *more)
    assert refused.exit_code == 2
    assert refused.stderr.splitlines()[-1] == f"Error: {out}: cannot resume with other settings: {difference}"


def test_a_grid_is_not_resumed_with_other_data(noise, tmp_path):
    out, _ = noise
    other = make_cache(tmp_path / "other.h5", subjects=6)
    refused = call("run", "noise", "--resume", "--out", out, "--data", other)
    assert refused.exit_code == 2
    assert "cannot resume with other settings: data.digest: " in refused.stderr.splitlines()[-1]


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """An empty folder in which the tiny study is known to all processes; the file that holds it up."""
    folder = grid_study.install(tmp_path / "installed")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{grid_study.TESTS}")
    monkeypatch.setenv(grid_study.HOLD, str(tmp_path / "hold"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "hold"


GRID = ["--seeds", "2", "--vary", "steps=6", "--device", "cpu"]


def undisturbed(folder):
    """The rows that `GRID` has."""
    runs = [execute(study.load_experiment("tiny"), folder / str(n), seed=n, overrides=["steps=6"]) for n in range(2)]
    return [{"seed": n, "steps": 6, **row} for n, run in enumerate(runs) for row in run.results["rows"]]


def test_an_interrupted_grid_goes_on_to_the_same_rows(tiny, tmp_path):
    tiny.touch()
    out = tmp_path / "my grid"
    runs = [out / f"seed={seed},steps=6" for seed in range(2)]

    def interrupt():
        wait_for(lambda: all(lines(run) == 3 for run in runs))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    stopped = call("run", "tiny", "--out", out, *GRID, "--jobs", 2)
    thread.join()
    assert stopped.exit_code == 130, stopped.output
    assert stopped.stdout == ""
    last = stopped.stderr.splitlines()[-1]
    assert last == f"Interrupted. Continue with: metasynth run tiny --resume --out '{out}'"
    for run in runs:
        assert "Interrupted. Continue with: " in run.with_name(f"{run.name}.log").read_text()
        claim(run).release()  # no process holds it
    tiny.unlink()
    resumed = call(*shlex.split(last.partition("metasynth ")[2]), "--jobs", 2)
    assert resumed.exit_code == 0, resumed.output
    assert rows(out) == undisturbed(tmp_path / "undisturbed")


def claimed(run):
    """The lock of a run, once the last thread of a killed process has let go of it; None before."""
    try:
        return claim(run)
    except RunError:
        return None


def test_a_killed_grid_goes_on_to_the_same_rows(tiny, tmp_path):
    """The run ends with it; first one is written by somebody else, then it is free."""
    tiny.touch()
    out = tmp_path / "grid"
    run = out / "seed=0,steps=6"
    process = start(["run", "tiny", "--out", str(out), *GRID, "--jobs", "1"])
    wait_for(lambda: lines(run) == 3)
    process.kill()
    process.communicate()
    orphan = int((run / ".lock").read_text())
    wait_for(lambda: not alive(orphan))
    holder = wait_for(lambda: claimed(run))
    os.environ[grid_study.HOLD] += " is of earlier runs only"
    resumed = call("run", "tiny", "--resume", "--out", out)
    assert resumed.exit_code == 1
    busy = f"{run}: process {os.getpid()} is writing this run (it holds {run / '.lock'})"
    assert f"seed=0,steps=6: failed: {busy}" in resumed.stderr.splitlines()
    again = f"metasynth run tiny --resume --out {out}"
    failure = f"Error: {out}: 1 of 2 runs failed: seed=0,steps=6; to try them again: {again}"
    assert resumed.stderr.splitlines()[-1] == failure
    assert [row["seed"] for row in rows(out)] == [1]  # what finished is reported on
    assert "Runs without results: seed=0,steps=6." in (out / "report.html").read_text()
    holder.release()
    resumed = call("run", "tiny", "--resume", "--out", out)
    assert resumed.exit_code == 0, resumed.output
    assert rows(out) == undisturbed(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "2", "--vary", "stesp=1"], "Error: unknown setting 'stesp': did you mean 'steps'?"),
        (["--vary", "steps=1,x"], "Error: steps: expected a whole number, got 'x'"),
        (["--vary", "steps=1,2", "--set", "kind=x"], "Error: kind: expected one of normal, uniform, got 'x'"),
        (["--vary", "steps"], "Error: --vary steps: expected KEY=V1,V2,..., for example --vary start=0.02,0.4"),
        (["--seeds", "2", "--preset", "qick"], "Error: experiment 'tiny' has no preset 'qick': did you mean 'quick'?"),
        (["--seeds", "0"], "Error: Invalid value for '--seeds': 0 is not in the range x>=1."),
        (["--jobs", "2"], "Error: --jobs: is for several runs; give --seeds N or --vary KEY=V1,V2,... too"),
        (["--seeds", "2", "--resume"], "Error: g: holds no grid (grid.json is missing)"),
    ],
)
def test_wrong_usage_is_told_before_anything_starts(tiny, tmp_path, words, message):
    refused = call("run", "tiny", "--out", "g", *words)
    assert refused.exit_code == 2
    assert refused.stderr.splitlines()[-1].startswith(message)
    assert not any((tmp_path / "work").iterdir())


@pytest.fixture
def two_gpus(monkeypatch):
    """Those of a machine, as this process sees them."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,6")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for setting in ("benchmark", "deterministic"):
        monkeypatch.setattr(torch.backends.cudnn, setting, getattr(torch.backends.cudnn, setting))


@pytest.mark.usefixtures("two_gpus")
def test_each_run_has_a_gpu_of_its_own(tiny, tmp_path):
    """By what they are given; they find none themselves."""
    out = tmp_path / "grid"
    done = call("run", "tiny", "--out", out, "--seeds", 2)
    assert done.exit_code == 0, done.output
    begun = [(out / f"seed={seed}.log").read_text().partition("-m metasynth")[0] for seed in range(2)]
    assert begun == ["$ CUDA_VISIBLE_DEVICES=3 ", "$ CUDA_VISIBLE_DEVICES=6 "]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("more", "jobs", "gpus"),
    [([], 2, ("3", "6")), (["--jobs", 1], 1, ("3", "6")), (["--device", "cpu"], 5, ())],
)
def test_places_and_gpus_are_those_of_the_machine(tiny, monkeypatch, tmp_path, more, jobs, gpus):
    """tests/running/test_grid_run.py has which run is given which of them."""
    asked = []

    def carry_out(folder, jobs, progress, gpus):
        asked.append((jobs, gpus))
        return {run.name: "failed: stop" for run in folder.grid.runs}

    monkeypatch.setattr("metasynth.running.grid_run.carry_out", carry_out)
    monkeypatch.setattr("metasynth.cli.grid.cores", lambda: 10)
    done = call("run", "tiny", "--out", tmp_path / "grid", "--seeds", 2, *more)
    assert done.exit_code == 1
    assert asked == [(jobs, gpus)]


def test_a_folder_with_a_run_is_left_alone(tiny):
    assert call("run", "tiny", "--out", "a", "--device", "cpu").exit_code == 0
    refused = call("run", "tiny", "--out", "a", "--seeds", "2")
    assert refused.exit_code == 2
    assert "holds another run" in refused.stderr.splitlines()[-1]


def test_a_grid_without_a_finished_run_has_no_report(tiny, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")  # the processes do not know the study
    failed = call("run", "tiny", "--out", "g", "--seeds", "1", "--device", "cpu")
    assert failed.exit_code == 1
    assert "seed=0: failed: unknown experiment 'tiny'" in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("Error: g: 1 of 1 runs failed: seed=0; to try them again: ")
    refused = call("report", "g")
    assert refused.exit_code == 2
    assert refused.stderr.splitlines()[0] == "g: 0 of 1 runs have finished, 0 were begun, 1 was not"
    assert refused.stderr.splitlines()[-1] == "Error: g: no run of the grid has finished; continue it with --resume"
