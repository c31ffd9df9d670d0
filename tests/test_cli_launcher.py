"""``metasynth run --launcher local`` and ``--print-commands``, with runs in jobs and processes of their own."""

import json
import os
import shlex
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner
from support import tiny_grid
from support.processes import alive, descendants, wait_for
from support.tiny_grid import GRID, RUNS, found, lines
from support.tiny_noise import arguments, make_cache, start

from metasynth.cli.main import main
from metasynth.errors import UsageError
from metasynth.running.jobs.record import JobRecord

pytest.importorskip("submitit")
LOCAL = ["--launcher", "local", "--jobs", "2"]


def call(*words):
    return CliRunner().invoke(main, list(map(str, words)))


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """An empty folder in which the tiny study is known to all processes; the file that holds it up."""
    return tiny_grid.install(monkeypatch, tmp_path)


@pytest.fixture
def undisturbed(tmp_path):
    """The records and rows that the runs of `GRID` have."""
    return tiny_grid.undisturbed(tmp_path / "undisturbed")


@pytest.mark.parametrize(("device", "gpus"), [("cuda", ("1", "3")), ("cpu", ())])
def test_jobs_of_this_machine_share_out_its_gpus(tiny, monkeypatch, device, gpus):
    """As many run at a time as there are GPUs."""
    asked = []

    def make_launcher(*arguments):
        asked.append(arguments)
        raise UsageError("stop")

    monkeypatch.setattr("metasynth.running.device.configure_torch", lambda *_: (device, 1))
    monkeypatch.setattr("metasynth.running.device.visible_gpus", lambda: ("1", "3"))
    monkeypatch.setattr("metasynth.running.jobs.launchers.make_launcher", make_launcher)
    monkeypatch.setattr("metasynth.cli.grid.cores", lambda: 10)
    assert call("run", "tiny", "--out", "g", "--seeds", 2, "--launcher", "local").exit_code == 2
    assert asked == [("local", (), None, len(gpus) or 5, gpus)]


@pytest.mark.slow
def test_a_launched_grid_is_the_grid_of_processes_bit_by_bit(tmp_path):
    cache = make_cache(tmp_path / "c.h5")
    words = ["--seeds", 2, "--vary", "start=0.3", "--jobs", 2]
    grids = []
    for name, more in (("processes", []), ("jobs", ["--launcher", "local"])):
        done = call(*arguments(tmp_path / name, cache, baselines="false"), *words, *more)
        assert done.exit_code == 0, done.output
        runs = [tmp_path / name / f"seed={seed},start=0.3" for seed in range(2)]
        rows = json.loads((tmp_path / name / "results.json").read_text())["rows"]
        assert all(row.pop("wall_s") for row in rows)
        grids.append(([(run / "metrics.jsonl").read_bytes() for run in runs], rows))
    assert grids[0] == grids[1]


@pytest.mark.slow
def test_jobs_that_are_killed_or_preempted_go_on_to_the_same_records(tiny, tmp_path, undisturbed):
    """The first by SIGTERM, then by the word that its time is up, then not at all; the second by SIGKILL."""
    tiny.touch()
    out = tmp_path / "grid"
    launched = start(["run", "tiny", "--out", str(out), *GRID, *LOCAL])
    wait_for(lambda: all(lines(out / run) == 3 for run in RUNS), 300)
    first, second = (int(JobRecord.read(out).jobs[run]) for run in RUNS)
    children = descendants(second)
    os.kill(first, signal.SIGTERM)
    os.kill(second, signal.SIGKILL)
    wait_for(lambda: not any(map(alive, [first, *children])), 300)  # a run ends with its job
    again = wait_for(lambda: (job := int(JobRecord.read(out).jobs[RUNS[0]])) != first and job, 300)
    log = out / f"{RUNS[0]}.log"
    wait_for(lambda: log.read_text().count("$ metasynth") == 2 and lines(out / RUNS[0]) == 3, 300)
    (task, *_) = descendants(again)
    os.kill(task, signal.SIGUSR2)
    wait_for(lambda: log.read_text().count("$ metasynth") == 3, 300)
    tiny.unlink()
    said = launched.communicate()[1]
    assert launched.returncode == 0, said
    assert int(JobRecord.read(out).jobs[RUNS[0]]) == again  # it requeued itself
    for run, job in ((RUNS[0], first), (RUNS[1], second)):
        assert f"{run}: its job {job} was ended; it goes on in another" in said
    assert found(out) == undisturbed


@pytest.mark.slow
def test_an_interrupt_leaves_the_jobs_and_says_how_to_come_back(tiny, tmp_path, undisturbed):
    """By the keyboard, whose interrupt reaches every process of the terminal."""
    tiny.touch()
    out = tmp_path / "my grid"
    launched = start(["run", "tiny", "--out", str(out), *GRID, *LOCAL, "--launcher-set", "timeout_min=60"])
    wait_for(lambda: all(lines(out / run) == 3 for run in RUNS), 300)
    os.killpg(launched.pid, signal.SIGINT)
    said = launched.communicate()[1].splitlines()
    assert launched.returncode == 130
    again = "metasynth run tiny --resume --launcher local --jobs 2 --launcher-set timeout_min=60 --out"
    told = f"Come back with: {again} '{out}'; to see how far they are: metasynth report '{out}'"
    assert said[-1] == f"Interrupted. The jobs go on. {told}"
    record = JobRecord.read(out)
    assert all(alive(int(job)) for job in record.jobs.values())
    refused = call("run", "tiny", "--resume", "--out", out)
    there = "2 of its runs are jobs of local"
    assert refused.stderr.splitlines()[-1].startswith(f"Error: {out}: {there}")
    tiny.unlink()
    resumed = call(*shlex.split(again)[1:], out)
    assert resumed.exit_code == 0, resumed.output
    assert "local: 2 jobs of an earlier launch go on" in resumed.stderr
    assert JobRecord.read(out) == record
    assert found(out) == undisturbed


@pytest.mark.slow
def test_a_run_that_fails_is_named_with_its_last_error(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")  # the jobs do not know the study
    failed = call("run", "tiny", "--out", "g", "--seeds", "1", "--device", "cpu", "--launcher", "local")
    assert failed.exit_code == 1
    (told,) = (line for line in failed.stderr.splitlines() if line.startswith("seed=0: "))
    assert told.startswith("seed=0: failed: unknown experiment 'tiny'")
    again = "metasynth run tiny --resume --launcher local --out g"
    assert failed.stderr.splitlines()[-1] == f"Error: g: 1 of 1 runs failed: seed=0; to try them again: {again}"


def test_printed_commands_begin_a_run_and_go_on_with_it(tiny, undisturbed):
    printed = call("run", "tiny", "--out", "g", *GRID, "--print-commands")
    assert printed.exit_code == 0, printed.output
    commands = printed.stdout.splitlines()
    start = "metasynth run tiny --out g/seed={},steps=6 --preset quick --seed {}"
    rest = "--device cpu --threads 1 --quiet --resume --set steps=6"
    assert commands == [f"{start.format(seed, seed)} {rest}" for seed in range(2)]
    assert printed.stderr.splitlines()[-1] == "The report on those that have finished: metasynth report g"
    begin, other = (shlex.split(command)[1:] for command in commands)
    for _ in range(2):
        assert call(*begin).exit_code == 0
    Path("g", RUNS[1]).mkdir()
    Path("g", RUNS[1], ".lock").touch()
    half = call("report", "g")
    assert half.stderr.splitlines()[0] == "g: 1 of 2 runs have finished, 0 were begun, 1 was not"
    missing = "1 of 2 runs have finished, 0 were begun, 1 was not. Runs without results: seed=1,steps=6."
    assert missing in Path("g", "report.html").read_text()
    assert call("run", "tiny", "--resume", "--out", "g", "--print-commands").stdout.splitlines() == commands[1:]
    assert call(*other).exit_code == 0
    assert call("report", "g").exit_code == 0
    assert found(Path("g")) == undisturbed
    assert call("run", "tiny", "--resume", "--out", "g", "--print-commands").stdout == ""  # all are done


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--launcher", "local"], "--launcher: is for several runs; give --seeds N or --vary KEY=V1,V2,... too"),
        (["--print-commands"], "--print-commands: is for several runs; give --seeds N or --vary KEY=V1,V2,... too"),
        (
            ["--seeds", "2", "--launcher-set", "timeout_min=3"],
            "--launcher-set timeout_min=3: needs --launcher slurm or --launcher local",
        ),
        (
            ["--seeds", "2", "--print-commands", "--jobs", "2"],
            "--print-commands: carries nothing out; leave --jobs out",
        ),
        (
            ["--seeds", "2", "--launcher", "local", "--launcher-set", "timeout=3"],
            "--launcher-set timeout: there is no such setting: did you mean 'timeout_min'?",
        ),
        (
            ["--seeds", "2", "--launcher", "pbs"],
            "Invalid value for '--launcher': 'pbs' is not one of 'slurm', 'local'.",
        ),
    ],
)
def test_wrong_usage_is_told_before_anything_starts(tiny, words, told):
    refused = call("run", "tiny", "--out", "g", *words)
    assert refused.exit_code == 2
    assert refused.stderr.splitlines()[-1] == f"Error: {told}"
    assert not os.path.exists("g")


def test_what_other_machines_have_is_not_asked_here(tiny):
    """Neither a GPU nor memory: each run asks that of the machine it is on."""
    printed = call("run", "tiny", "--out", "g", "--seeds", "1", "--device", "cuda", "--print-commands")
    assert printed.exit_code == 0, printed.output
    assert "--device cuda" in printed.stdout
