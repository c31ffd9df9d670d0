"""What a launcher is: who carries jobs out, and what it tells of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import Enum
from importlib.util import find_spec
from pathlib import Path

from metasynth.errors import PackageError, install_hint
from metasynth.running.jobs.job import RunJob

MOST_TIMEOUTS = 100  # of one job; each time it goes on from the run's last checkpoint


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
    most : int
        Jobs that there may be at a time.
    elsewhere : bool
        Whether runs are carried out on other machines, whose memory and GPUs are not this one's.
    environment : mapping of str to (str or None)
        What a run has otherwise than its job, as in `RunJob`.
    gpus : sequence of str
        GPUs of this machine that its runs share out, each as ``CUDA_VISIBLE_DEVICES`` of a run that has it alone; none:
        the runs have what `environment` says, or what their job has.
    seconds_between_looks : float
        How long to wait before `states` is asked again.
    """

    name: str
    most: int
    elsewhere: bool
    environment: Mapping[str, str | None]
    gpus: Sequence[str]
    seconds_between_looks: float

    @abstractmethod
    def submit(self, folder: Path, jobs: Sequence[RunJob]) -> list[str]:
        """Submit jobs, whose files go into ``folder``, and return what each is called; RunError if that is refused."""

    @abstractmethod
    def states(self, folder: Path, names: Sequence[str]) -> dict[str, State]:
        """What has become of jobs that were submitted with ``folder``; none of them where it cannot be said now."""


def require_submitit(name: str) -> None:
    """Raise PackageError, which says what to install, if the package that a launcher goes through is missing."""
    if find_spec("submitit") is None:
        raise PackageError(f"--launcher {name} needs the package submitit: {install_hint('cluster')}")
