"""Looking after jobs, with a launcher whose jobs do what a test says; tests/test_cli_launcher.py has real ones."""

import io
import json
import os
import pickle
import signal

import pytest

from metasynth.errors import DataError, UsageError
from metasynth.interrupts import Interrupted
from metasynth.running.grid import Grid
from metasynth.running.grid_folder import GridFolder
from metasynth.running.jobs import launch
from metasynth.running.jobs.launch import MOST_SUBMISSIONS, carry_out, refuse_jobs_of_others
from metasynth.running.jobs.launcher import Launcher, State
from metasynth.running.jobs.record import JobRecord
from metasynth.running.progress import Progress

pytest.importorskip("submitit")


def finish(folder, name):
    (folder / name).mkdir(exist_ok=True)
    for file in ("config.json", "results.json", "report.html"):
        (folder / name / file).touch()


class Told(Launcher):
    """A job is over at the first look; how it went is said by its run's name, else it finishes the run."""

    name, elsewhere, environment, seconds_between_looks = "told", True, {"A": None}, 0.0

    def __init__(self, most=1000, gpus=(), **outcomes):
        self.most, self.gpus, self.outcomes = most, gpus, outcomes
        self.submitted, self.known, self.asked, self.shown = [], {}, [], {}

    def submit(self, folder, jobs):
        self.submitted.append([job.name for job in jobs])
        self.jobs = jobs
        self.shown |= {job.name: job.environment.get("CUDA_VISIBLE_DEVICES") for job in jobs}
        names = [f"{len(self.submitted)}_{index}" for index in range(len(jobs))]
        for job, name in zip(jobs, names, strict=True):
            self.known[name] = job.name
        return names

    def states(self, folder, names):
        self.asked.append(list(names))
        return {name: self.outcome(folder, name) for name in names}

    def outcome(self, folder, name):
        run = self.known.get(name)
        if run is None:
            return State.ENDED
        outcomes = self.outcomes.get(run, [])
        outcome = outcomes.pop(0) if outcomes else "finishes"
        if isinstance(outcome, State):
            return outcome
        if outcome == "finishes":
            finish(folder.parent, run)
        elif outcome != "is killed":
            folder.mkdir(exist_ok=True)
            told = ("error", f"Traceback:\n  x\n{outcome}\n")
            (folder / f"{name}_0_result.pkl").write_bytes(pickle.dumps(told))
        return State.ENDED


@pytest.fixture
def folder(tmp_path):
    grid = GridFolder.create(tmp_path / "grid", Grid("tiny", "quick", (0, 1, 2), log="noting"))
    yield grid
    grid.close()


def go(folder, launcher):
    """Carry the grid out; what failed, and what was said."""
    stream = io.StringIO()
    failed = carry_out(folder, launcher, Progress(stream=stream))
    return failed, stream.getvalue().splitlines()


RUNS = ["seed=0", "seed=1", "seed=2"]


def test_every_run_is_a_job_of_one_array(folder, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    launcher = Told()
    failed, said = go(folder, launcher)
    assert (failed, launcher.submitted) == ({}, [RUNS])
    assert said[:4] == ["told: submitted 3 of the runs, as job 1_0 to 1_2", *(f"{run}: finished" for run in RUNS)]
    job = launcher.jobs[1]
    words = ["metasynth", "run", "tiny", "--out", str(folder.path / "seed=1"), "--preset", "quick", "--seed", "1"]
    assert job.words == (*words, "--device", "auto", "--threads", "1", "--quiet", "--log", "noting", "--resume")
    assert (job.name, job.log, job.own_session) == ("seed=1", folder.path / "seed=1.log", False)
    assert job.environment == {"OMP_NUM_THREADS": "1", "A": None}
    assert JobRecord.read(folder.path) == JobRecord("told", {"seed=0": "1_0", "seed=1": "1_1", "seed=2": "1_2"})


def test_no_more_jobs_at_a_time_than_there_may_be(folder):
    launcher = Told(most=2)
    assert go(folder, launcher)[0] == {}
    assert launcher.submitted == [["seed=0", "seed=1"], ["seed=2"]]


def test_an_earlier_launch_may_have_had_more_jobs(tmp_path):
    """Then none is submitted until enough of them have ended."""
    grid = GridFolder.create(tmp_path / "grid", Grid("tiny", "quick", tuple(range(7))))
    earlier = {f"seed={seed}": f"7_{seed}" for seed in range(4)}
    JobRecord("told", earlier).write(grid.path)
    launcher = Told(most=2, **{name: [State.RUNS] * 3 for name in earlier})
    launcher.known = {job: name for name, job in earlier.items()}
    assert go(grid, launcher)[0] == {}
    assert launcher.submitted == [["seed=4", "seed=5"], ["seed=6"]]
    grid.close()


def test_each_of_the_jobs_side_by_side_has_a_gpu_of_its_own(folder):
    """The third run is submitted when the second has ended, and has the place of that one."""
    launcher = Told(most=2, gpus=("1", "3"), **{"seed=0": [State.RUNS] * 3})
    assert go(folder, launcher)[0] == {}
    assert launcher.submitted == [["seed=0", "seed=1"], ["seed=2"]]
    assert launcher.shown == {"seed=0": "1", "seed=1": "3", "seed=2": "3"}
    assert JobRecord.read(folder.path).places == {"seed=0": 0, "seed=1": 1, "seed=2": 1}


def test_a_later_launch_knows_the_gpus_of_jobs_that_go_on(folder):
    finish(folder.path, "seed=0")
    JobRecord("told", {"seed=0": "7_0", "seed=1": "7_1"}, {"seed=0": 1, "seed=1": 0}).write(folder.path)
    launcher = Told(most=2, gpus=("1", "3"), **{"seed=1": [State.RUNS] * 3})
    launcher.known["7_1"] = "seed=1"
    assert go(folder, launcher)[0] == {}
    assert launcher.shown == {"seed=2": "3"}


def test_more_jobs_than_gpus_share_them(folder):
    launcher = Told(gpus=("1", "3"))
    assert go(folder, launcher)[0] == {}
    assert launcher.shown == {"seed=0": "1", "seed=1": "3", "seed=2": "1"}


def test_without_gpus_no_places_are_recorded(folder):
    """Records that were made before there were places are read, and written, as these are."""
    assert go(folder, Told())[0] == {}
    assert set(json.loads((folder.path / "jobs" / "jobs.json").read_text())) == {"launcher", "jobs", "digest"}
    assert JobRecord.read(folder.path).places == {}


@pytest.mark.parametrize(
    ("error", "told"), [("metasynth.errors.RunError: c.h5: no labels", "c.h5: no labels"), ("MemoryError",) * 2]
)
def test_a_run_that_fails_is_told_and_not_submitted_again(folder, error, told):
    launcher = Told(**{"seed=1": [error]})
    failed, said = go(folder, launcher)
    assert failed == {"seed=1": f"failed: {told}"}
    assert f"seed=1: failed: {told}" in said
    assert launcher.submitted == [RUNS]


def test_a_run_whose_job_was_ended_is_submitted_again(folder):
    launcher = Told(**{"seed=1": ["is killed", State.WAITS, State.RUNS, "is killed", "finishes"]})
    failed, said = go(folder, launcher)
    assert failed == {}
    assert launcher.submitted == [RUNS, ["seed=1"], ["seed=1"]]
    assert "seed=1: its job 1_1 was ended; it goes on in another" in said
    assert "seed=1: its job 2_0 was ended; it goes on in another" in said
    assert JobRecord.read(folder.path).jobs["seed=1"] == "3_0"


def test_but_not_for_ever(folder):
    launcher = Told(**{"seed=1": ["is killed"] * 10})
    failed, _ = go(folder, launcher)
    log = folder.path / "seed=1.log"
    assert failed == {"seed=1": f"failed: its jobs were ended 4 times, the last was 4_0 (see {log})"}
    assert launcher.submitted == [RUNS, *[["seed=1"]] * (MOST_SUBMISSIONS - 1)]


def test_a_job_that_was_cancelled_is_not_submitted_again(folder):
    launcher = Told(**{"seed=2": [State.CANCELLED]})
    assert go(folder, launcher)[0] == {"seed=2": "failed: its job 1_2 was cancelled"}
    assert launcher.submitted == [RUNS]


def test_a_job_without_results_or_an_error_is_told(folder):
    launcher = Told(**{"seed=2": ["is killed"]})
    (folder.path / "jobs").mkdir()
    (folder.path / "jobs" / "1_2_0_result.pkl").write_bytes(pickle.dumps(("success", None)))
    assert go(folder, launcher)[0] == {"seed=2": "failed: its job ended well, and left no results"}


def test_jobs_of_an_earlier_launch_are_come_back_to(folder):
    """Of four runs' worth: one is done, one goes on, one was ended while nobody looked."""
    finish(folder.path, "seed=0")
    JobRecord("told", {"seed=0": "7_0", "seed=1": "7_1", "seed=2": "7_2"}).write(folder.path)
    launcher = Told(**{"seed=1": [State.RUNS, State.RUNS, "finishes"]})
    launcher.known["7_1"] = "seed=1"
    failed, said = go(folder, launcher)
    assert failed == {}
    assert said[0] == "told: 1 jobs of an earlier launch go on"
    assert launcher.asked[0] == ["7_1", "7_2"]
    assert launcher.submitted == [["seed=2"]]


def test_nothing_is_known_while_the_launcher_has_no_answer(folder):
    launcher = Told()
    answers = [{}, {}]
    told = launcher.states
    launcher.states = lambda folder, names: answers.pop(0) if answers else told(folder, names)
    assert go(folder, launcher)[0] == {}
    assert launcher.submitted == [RUNS]


def test_an_interrupt_leaves_the_jobs(folder):
    launcher = Told(**{"seed=1": [State.RUNS] * 100})
    told = launcher.states

    def interrupted(folder, names):
        os.kill(os.getpid(), signal.SIGINT)
        return told(folder, names)

    launcher.states = interrupted
    with pytest.raises(Interrupted):
        go(folder, launcher)
    assert JobRecord.read(folder.path).jobs["seed=1"] == "1_1"


@pytest.mark.parametrize("launcher", [None, "slurm"])
def test_runs_that_are_jobs_are_left_to_their_launcher(folder, monkeypatch, launcher):
    JobRecord("local", {"seed=0": "1", "seed=1": "2"}).write(folder.path)
    states = {"1": State.ENDED, "2": State.RUNS}
    monkeypatch.setattr(launch, "local_states", lambda folder, names: states)
    refuse_jobs_of_others(folder.path, "local")
    with pytest.raises(UsageError) as caught:
        refuse_jobs_of_others(folder.path, launcher)
    told = "1 of its runs are jobs of local (2, ...); come back to them with --launcher local, or cancel them"
    assert str(caught.value) == f"{folder.path}: {told}"
    states["2"] = State.ENDED
    refuse_jobs_of_others(folder.path, launcher)


def test_a_damaged_record_is_told(folder):
    JobRecord("local", {"seed=0": "1"}).write(folder.path)
    path = folder.path / "jobs" / "jobs.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "launcher": "slurm"}))
    with pytest.raises(DataError, match=r"jobs\.json: "):
        JobRecord.read(folder.path)
