"""A grid as jobs: submit those of its runs that are not done, and look after them until they are."""

import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from metasynth.errors import UsageError
from metasynth.interrupts import Interrupted, watched
from metasynth.running.device import VISIBLE_GPUS
from metasynth.running.grid import GridRun
from metasynth.running.grid_command import words_of
from metasynth.running.grid_folder import GridFolder
from metasynth.running.jobs.job import RunJob
from metasynth.running.jobs.launcher import Launcher, State
from metasynth.running.jobs.local import local_states
from metasynth.running.jobs.record import FOLDER, JobRecord
from metasynth.running.jobs.slurm import slurm_states
from metasynth.running.progress import Progress

MOST_SUBMISSIONS = 4
"""Of one run, while it is looked after: the first, and those after something else than the run ended its job."""
SECONDS_BETWEEN_SIGNALS = 0.05
OVER = (State.CANCELLED, State.ENDED)


def carry_out(folder: GridFolder, launcher: Launcher, progress: Progress) -> dict[str, str]:
    """Have jobs carry out every run that is not done; those of an earlier launch that go on are left to it.

    Where the launcher has GPUs, a job has a place, the first that is free, and place k has GPU k mod their number, as
    in `metasynth.running.grid_run.carry_out`.

    Parameters
    ----------
    folder : GridFolder
        Open for writing; the jobs' files go into a folder inside.
    launcher : Launcher
    progress : Progress
        Where to say how far the grid is.

    Returns
    -------
    dict
        The names of the runs that failed, with what went wrong; one that fails does not stop the others.

    Raises
    ------
    Interrupted
        The process was asked to end; the jobs go on.
    RunError
        Jobs could not be submitted.
    """
    total = len(folder.grid.runs)
    with watched(forceful=False) as received:
        jobs = _Jobs(folder, launcher, progress)
        failed: dict[str, str] = {}
        with progress.task(f"grid of {folder.grid.experiment}", total, total - jobs.open) as task:
            while jobs.open and not received:
                jobs.submit_waiting()
                _pause(launcher.seconds_between_looks, received)
                for name, failure in jobs.look():
                    if failure:
                        failed[name] = failure
                    progress.say(f"{name}: {failure or 'finished'}", logging.WARNING if failure else logging.INFO)
                    task.advance(1)
                task.advance(0, jobs.note())
            if received:
                raise Interrupted(received[0])
    return failed


class _Jobs:
    """The runs of a grid that are not done: those that have a job, and those that wait for one."""

    def __init__(self, folder: GridFolder, launcher: Launcher, progress: Progress) -> None:
        self._folder, self._launcher, self._progress = folder, launcher, progress
        self._files = (folder.path / FOLDER).absolute()
        record = JobRecord.read(folder.path)
        self._record = record if record.launcher == launcher.name else JobRecord(launcher.name)
        self._submissions: Counter[str] = Counter()
        left = [run for run in folder.grid.runs if not folder.done(run)]
        self._submitted = [run for run in left if run.name in self._record.jobs]
        self._states = self._ask()
        self._submitted = [run for run in self._submitted if self._state(run) not in OVER]
        self._waiting = [run for run in left if run not in self._submitted]
        if self._submitted:
            progress.say(f"{launcher.name}: {len(self._submitted)} jobs of an earlier launch go on")

    @property
    def open(self) -> int:
        """How many runs there are."""
        return len(self._submitted) + len(self._waiting)

    def submit_waiting(self) -> None:
        """Submit as many as there is room for, and record them."""
        room = max(0, self._launcher.most - len(self._submitted))  # an earlier launch may have had more at a time
        runs, self._waiting = self._waiting[:room], self._waiting[room:]
        if not runs:
            return
        places = self._free_places(runs)
        names = self._launcher.submit(self._files, [self._job(run, places) for run in runs])
        self._record = self._record.with_jobs(dict(zip((run.name for run in runs), names, strict=True)), places)
        self._record.write(self._folder.path)
        self._submitted += runs
        self._submissions.update(run.name for run in runs)
        every = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        self._progress.say(f"{self._launcher.name}: submitted {len(names)} of the runs, as job {every}")

    def look(self) -> list[tuple[str, str | None]]:
        """The runs that are over since the last look, with what went wrong; those whose jobs were ended wait again."""
        self._states = self._ask()
        over = []
        for run in [run for run in self._submitted if self._state(run) in OVER]:
            self._submitted.remove(run)
            done = self._folder.done(run)
            failure = None if done else self._failure(run)
            if done or failure:
                over.append((run.name, failure))
            else:
                self._waiting.append(run)
                job = self._record.jobs[run.name]
                self._progress.say(f"{run.name}: its job {job} was ended; it goes on in another", logging.WARNING)
        return over

    def note(self) -> str:
        """How many jobs there are in each state."""
        counts = Counter(self._state(run).value for run in self._submitted if self._state(run) not in OVER)
        return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))

    def _ask(self) -> Mapping[str, State]:
        names = [self._record.jobs[run.name] for run in self._submitted]
        return self._launcher.states(self._files, names) if names else {}

    def _state(self, run: GridRun) -> State:
        return self._states.get(self._record.jobs[run.name], State.RUNS)  # it may not be known now

    def _free_places(self, runs: Sequence[GridRun]) -> dict[str, int]:
        """A place for each run, the first that no job has; none where the launcher has no GPUs to share out."""
        if not self._launcher.gpus:
            return {}
        taken = {self._record.places.get(run.name) for run in self._submitted}
        free = (place for place in count() if place not in taken)
        return {run.name: place for run, place in zip(runs, free, strict=False)}

    def _job(self, run: GridRun, places: Mapping[str, int]) -> RunJob:
        grid = self._folder.grid
        here = GridFolder(self._folder.path.absolute(), grid)  # jobs may have another working folder
        threads = os.environ.get("OMP_NUM_THREADS", str(grid.threads))
        gpus = self._launcher.gpus
        gpu = {VISIBLE_GPUS: gpus[places[run.name] % len(gpus)]} if gpus else {}
        environment = {"OMP_NUM_THREADS": threads, **self._launcher.environment, **gpu}
        words = tuple(words_of(here, run, resume=True))
        return RunJob(run.name, words, here.log(run), environment, own_session=not self._launcher.elsewhere)

    def _failure(self, run: GridRun) -> str | None:
        """What went wrong with a run that is not done; None if something else ended its job, and it may go on."""
        job = self._record.jobs[run.name]
        if self._state(run) is State.CANCELLED:
            return f"failed: its job {job} was cancelled"
        told = _told(self._files, job)
        if told is None and self._submissions[run.name] >= MOST_SUBMISSIONS:
            told = f"its jobs were ended {MOST_SUBMISSIONS} times, the last was {job} (see {self._folder.log(run)})"
        return told and f"failed: {told}"


def _told(place: Path, job: str) -> str | None:
    """What a job says of its end, in one line; None if it could not say anything any more."""
    from submitit.core.utils import JobPaths, pickle_load

    path = JobPaths(place, job).result_pickle
    if not path.is_file():
        return None
    outcome, trace = pickle_load(path)
    if outcome == "success":
        return "its job ended well, and left no results"
    last = str(trace).strip().splitlines()[-1]
    return last.partition(": ")[2] or last  # after the name of the exception


def _pause(seconds: float, received: Sequence[int]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not received:
        time.sleep(SECONDS_BETWEEN_SIGNALS)


def refuse_jobs_of_others(grid: Path, launcher: str | None) -> None:
    """Raise UsageError if runs of a grid are jobs of a launcher, and are to be carried out by another or by none."""
    record = JobRecord.read(grid)
    if record.launcher in ("", launcher):
        return
    names = list(record.jobs.values())
    ask = slurm_states(names) if record.launcher == "slurm" else local_states((grid / FOLDER).absolute(), names)
    there = [name for name in names if ask.get(name, State.RUNS) not in OVER]
    if there:
        raise UsageError(
            f"{grid}: {len(there)} of its runs are jobs of {record.launcher} ({there[0]}, ...); "
            f"come back to them with --launcher {record.launcher}, or cancel them"
        )
