"""One writer a folder: an advisory lock, which the system releases when its process ends, however it ends.

Where the file system has no locks, as some networks' have not, a file that only one process can make stands for one;
it says whose it is, and of a process of this host that has ended it is taken over.
"""

import fcntl
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metasynth.errors import RunError, UsageError
from metasynth.files import is_leftover
from metasynth.lines import logger
from metasynth.running.integrity.claim_file import CLAIM_NAME, ClaimFile
from metasynth.running.manifest import CONFIG

LOCK_NAME = ".lock"


class FolderLock:
    """The lock, held from construction until ``release`` or the end of the process.

    Raises
    ------
    RunError
        Another process holds it.
    UsageError
        The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK_NAME
        self._descriptor = -1
        self._claim: ClaimFile | None = None
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            self._lock(folder, path)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)
            # Worker processes inherit the descriptor, outlive a killed parent by seconds, and would hold the lock.
            os.register_at_fork(after_in_child=_Release(self))
        except OSError as error:
            self.release()
            raise UsageError(f"{folder}: cannot be written: {error.strerror or error}; give another --out") from error

    def _lock(self, folder: Path, path: Path) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 20, 0).decode(errors="replace").strip()
            self.release()
            who = f"process {holder}" if holder else "another process"
            raise RunError(f"{folder}: {who} is writing this run (it holds {path})") from None
        except OSError as error:
            try:
                self._claim = ClaimFile(folder)
            except RunError:
                self.release()
                raise
            reason = error.strerror or error
            line = f"{path}: the file system cannot lock it ({reason}); {CLAIM_NAME} beside it is used instead"
            logger(__name__).warning("%s", line)

    def release(self) -> None:
        """Let others write the folder; releasing twice does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._claim is not None:
            self._claim.release()
            self._claim = None


class _Release:
    """Closes a lock's descriptor in the process it is called in; the parent's hold is not touched."""

    def __init__(self, lock: FolderLock) -> None:
        self._lock = weakref.ref(lock)

    def __call__(self) -> None:
        lock = self._lock()
        if lock is not None:
            lock.release()


def claim(path: Path) -> FolderLock:
    """Make the folder if it is absent, and lock it for this process."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise _in_the_way(path) from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be made: {error.strerror or error}; give another --out") from error
    return FolderLock(path)


@contextmanager
def claimed(path: Path) -> Iterator[FolderLock]:
    """The same, for a block that is to give what holds the lock; if it fails, the folder is let go."""
    lock = claim(path)
    try:
        yield lock
    except BaseException:
        lock.release()
        raise


def holdings(path: Path) -> set[str]:
    """Names of the files in the folder, but for those of a run that was killed before it began.

    Raises
    ------
    UsageError
        It cannot be read, or a file is in its place.
    """
    if not path.is_dir():
        there = next(place for place in (path, *path.parents) if os.path.lexists(place))
        if not there.is_dir():
            raise _in_the_way(path)
        return set()
    try:
        names = {entry.name for entry in path.iterdir()}
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}; give another --out") from error
    return {name for name in names if not _is_lock(name) and not is_leftover(name)}


def is_claimed_only(path: Path) -> bool:
    """Whether a run, or a grid, was killed in the folder before it began: a resumed one begins there."""
    return any((path / name).is_file() for name in (LOCK_NAME, CLAIM_NAME)) and not holdings(path)


def refuse_taken(path: Path) -> None:
    """Raise UsageError if the folder holds a run or anything else."""
    held = holdings(path)
    if CONFIG in held:
        raise UsageError(f"{path}: holds another run; continue it with --resume or give another --out")
    if held:
        raise UsageError(f"{path}: is not empty (it holds {min(held)}); give another --out")


def _is_lock(name: str) -> bool:
    return name == LOCK_NAME or name.startswith(CLAIM_NAME)


def _in_the_way(path: Path) -> UsageError:
    return UsageError(f"{path}: cannot hold a run: a file is in the way; give another --out")
