"""Who carries jobs out: Slurm, or processes of this machine, both through `submitit`."""

import os
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

from metasynth.children import safe_path
from metasynth.errors import PackageError, RunError, UsageError, install_hint
from metasynth.interrupts import SIGNALS, held
from metasynth.running.jobs.job import RunJob
from metasynth.running.jobs.settings import LOCAL, SLURM, read_settings

NAMES = ("slurm", "local")
MOST_TIMEOUTS = 100  # of one job; each time it goes on from the run's last checkpoint
YEAR_MIN = 60 * 24 * 365
_OVER = {"", "COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY"}


class State(Enum):
    """Of a job, as its launcher knows it."""

    WAITS = "wait"
    RUNS = "run"
    CANCELLED = "cancelled"
    ENDED = "ended"


class Launcher(ABC):
    """Submits jobs and knows what becomes of them, also of those that another process submitted.

    Attributes
    ----------
    name : str
        As in ``--launcher``.
    texts : tuple of str
        What ``--launcher-set`` was given.
    most : int
        Jobs that there may be at a time.
    elsewhere : bool
        Whether runs are carried out on other machines, whose memory and GPUs are not this one's.
    environment : mapping of str to (str or None)
        What a run has otherwise than its job, as in `RunJob`.
    seconds_between_looks : float
        How long to wait before `states` is asked again.
    """

    name: str
    texts: tuple[str, ...]
    most: int
    elsewhere: bool
    environment: Mapping[str, str | None]
    seconds_between_looks: float

    @abstractmethod
    def submit(self, folder: Path, jobs: Sequence[RunJob]) -> list[str]:
        """Submit jobs, whose files go into ``folder``, and return what each is called; RunError if that is refused."""

    @abstractmethod
    def states(self, folder: Path, names: Sequence[str]) -> dict[str, State]:
        """What has become of jobs that were submitted with ``folder``; none of them where it cannot be said now."""


@final
class LocalLauncher(Launcher):
    """Processes of this machine, which go on when the one that launched them ends.

    Parameters
    ----------
    texts : sequence of str
        'KEY=VALUE,...': those of `metasynth.running.jobs.settings.LOCAL`.
    jobs : int
        Runs side by side.
    """

    name, elsewhere, seconds_between_looks = "local", False, 0.2

    def __init__(self, texts: Sequence[str], jobs: int) -> None:
        _require_submitit(self.name)
        self.texts, self.most = tuple(texts), jobs
        self._settings = {"timeout_min": YEAR_MIN, **read_settings(texts, LOCAL)}
        self._timeouts = self._settings.pop("max_num_timeout", MOST_TIMEOUTS)
        gpus = "CUDA_VISIBLE_DEVICES"
        self.environment = {gpus: os.environ.get(gpus)}  # submitit shows its jobs none
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


@final
class SlurmLauncher(Launcher):
    """Job arrays of a Slurm cluster.

    Parameters
    ----------
    texts : sequence of str
        'KEY=VALUE,...': those of `metasynth.running.jobs.settings.SLURM`; timeout_min has to be among them.
    jobs : int or None
        Runs side by side; None: as many as the cluster gives.
    """

    name, elsewhere, seconds_between_looks, environment = "slurm", True, 5.0, {}
    most = 1000  # an array of a cluster that sets no other number

    def __init__(self, texts: Sequence[str], jobs: int | None) -> None:
        _require_submitit(self.name)
        self.texts, self._side_by_side = tuple(texts), jobs or self.most
        self._settings = read_settings(texts, SLURM)
        if "timeout_min" not in self._settings:
            raise UsageError(
                "--launcher slurm: needs --launcher-set timeout_min=MINUTES, after which a job is requeued"
            )
        missing = [command for command in ("sbatch", "squeue", "srun") if shutil.which(command) is None]
        if missing:
            raise UsageError(f"--launcher slurm: there is no {missing[0]} here; start it where jobs are submitted")

    def submit(self, folder: Path, jobs: Sequence[RunJob]) -> list[str]:
        """Submit the jobs as one array; each is called by the array's number and its own in it, as in '17_0'."""
        from submitit import AutoExecutor

        settings = {"name": "metasynth", "array_parallelism": self._side_by_side, **self._settings}
        timeouts = settings.pop("max_num_timeout", MOST_TIMEOUTS)
        executor = AutoExecutor(folder, cluster=self.name, slurm_max_num_timeout=timeouts)
        shared = {"name", "timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node"}
        names = {key: key if key in shared else f"slurm_{key}" for key in settings}
        executor.update_parameters(**{names[key]: value for key, value in settings.items()})
        executor.update_parameters(slurm_additional_parameters={"requeue": True})  # whatever the cluster's default
        try:
            with held(), safe_path():
                return [str(job.job_id) for job in executor.submit_array(jobs)]
        except Exception as error:  # submitit has several for what sbatch may say
            raise RunError(f"--launcher slurm: the jobs were refused: {_told_by_sbatch(error)}") from error

    def states(self, folder: Path, names: Sequence[str]) -> dict[str, State]:
        """What ``squeue`` says."""
        return slurm_states(names)


def make_launcher(name: str, texts: Sequence[str], jobs: int | None, side_by_side: int) -> Launcher:
    """The launcher of a name.

    Parameters
    ----------
    name : str
        One of ``NAMES``.
    texts : sequence of str
        What ``--launcher-set`` was given.
    jobs : int or None
        Runs at a time, where the user said so.
    side_by_side : int
        The same where this machine carries them out and the user said nothing.

    Raises
    ------
    UsageError
        It cannot be used here, or not with these settings.
    """
    return SlurmLauncher(texts, jobs) if name == "slurm" else LocalLauncher(texts, jobs or side_by_side)


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


def _require_submitit(name: str) -> None:
    if find_spec("submitit") is None:
        raise PackageError(f"--launcher {name} needs the package submitit: {install_hint('cluster')}")


def local_states(folder: Path, names: Sequence[str]) -> dict[str, State]:
    """Which numbers are those of processes that `submitit` started for jobs of ``folder``."""
    return {name: State.RUNS if _controls(name, folder) else State.ENDED for name in names}


def _controls(process: str, folder: Path) -> bool:
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended, or the system has no such files: then the run's lock keeps two from writing it
        return False
    return b"submitit.local._local" in words and os.fsencode(folder) in words


def slurm_states(names: Sequence[str]) -> dict[str, State]:
    """What ``squeue`` says of jobs, without the accounting that ``sacct`` needs; nothing while it has no answer.

    Raises
    ------
    RunError
        There is no ``squeue`` here.
    """
    arrays = ",".join(sorted({name.partition("_")[0] for name in names}))
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i %T", f"--jobs={arrays}"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RunError(f"squeue cannot be started: {error.strerror or error}") from error
    if asked.returncode and "Invalid job id" not in asked.stderr:  # the controller may be away for a while
        return {}
    told = dict(line.split() for line in asked.stdout.splitlines())
    return {name: _of_slurm(told.get(name, "")) for name in names}


def _of_slurm(told: str) -> State:
    """The state of a job by Slurm's word for it, empty for a job that it no longer knows."""
    if told == "CANCELLED":
        return State.CANCELLED
    if told in _OVER:
        return State.ENDED
    return State.WAITS if told == "PENDING" else State.RUNS


def _told_by_sbatch(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if "error:" in line] or str(error).splitlines() or [repr(error)]
    return lines[0].strip()
