"""Jobs that are processes of this machine, through `submitit`."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

from metasynth.children import safe_path
from metasynth.interrupts import SIGNALS, held
from metasynth.running.device import VISIBLE_GPUS
from metasynth.running.jobs.job import RunJob
from metasynth.running.jobs.launcher import MOST_TIMEOUTS, Launcher, State, require_submitit
from metasynth.running.jobs.settings import LOCAL, read_settings

YEAR_MIN = 60 * 24 * 365


@final
class LocalLauncher(Launcher):
    """Processes of this machine, which go on when the one that launched them ends.

    Parameters
    ----------
    texts : sequence of str
        'KEY=VALUE,...': those of `metasynth.running.jobs.settings.LOCAL`.
    jobs : int
        Runs side by side.
    gpus : sequence of str
        Those that the runs share out; none: the runs see what this process sees.
    """

    name, elsewhere, seconds_between_looks = "local", False, 0.2

    def __init__(self, texts: Sequence[str], jobs: int, gpus: Sequence[str] = ()) -> None:
        require_submitit(self.name)
        self.most, self.gpus = jobs, tuple(gpus)
        self._settings = {"timeout_min": YEAR_MIN, **read_settings(texts, LOCAL)}
        self._timeouts = self._settings.pop("max_num_timeout", MOST_TIMEOUTS)
        self.environment = {VISIBLE_GPUS: os.environ.get(VISIBLE_GPUS)}  # submitit shows its jobs none
        self._jobs: list[Any] = []

    def submit(self, folder: Path, jobs: Sequence[RunJob]) -> list[str]:
        """Start a process for each job; their numbers."""
        from submitit import LocalExecutor

        executor = LocalExecutor(folder, max_num_timeout=self._timeouts)
        executor.update_parameters(**self._settings)
        of_the_terminal = set(SIGNALS) - {signal.SIGTERM}
        with held(of_the_terminal), safe_path(), _own_output_aside():
            submitted = [executor.submit(job) for job in jobs]
        self._jobs += submitted
        return [job.job_id for job in submitted]

    def states(self, folder: Path, names: Sequence[str]) -> dict[str, State]:
        """Whether each process is there, and is one of ``folder``."""
        self._jobs = [job for job in self._jobs if not job.done()]  # ended ones would stay as zombies
        return local_states(folder, names)


def local_states(folder: Path, names: Sequence[str]) -> dict[str, State]:
    """Which numbers are those of processes that `submitit` started for jobs of ``folder``."""
    return {name: State.RUNS if _controls(name, folder) else State.ENDED for name in names}


def _controls(process: str, folder: Path) -> bool:
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended, or the system has no such files: then the run's lock keeps two from writing it
        return False
    return b"submitit.local._local" in words and os.fsencode(folder) in words


@contextmanager
def _own_output_aside() -> Iterator[None]:
    """What is started here does not hold this process's input and output open, which may be a pipe that others read."""
    kept = {}
    for number in range(3):
        with suppress(OSError):  # it was closed from the start
            kept[number] = os.dup(number)
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for number in kept:
            os.dup2(null, number)
        yield
    finally:
        for number, descriptor in kept.items():
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(null)
