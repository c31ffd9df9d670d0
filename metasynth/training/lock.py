"""One writer a folder: an advisory lock, which the system releases when its process ends, however it ends."""

import fcntl
import os
import weakref
from pathlib import Path

from metasynth.errors import RunError, UsageError
from metasynth.files import is_leftover

LOCK_NAME = ".lock"


class FolderLock:
    """The lock, held from construction until ``release`` or the end of the process.

    Raises:
        RunError: another process holds it.
        UsageError: the folder cannot be written.

    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK_NAME
        self._descriptor = -1
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
        except OSError:
            return  # a file system without locks: one writer is then up to the user

    def release(self) -> None:
        """Let others write the folder; releasing twice does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


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
        raise UsageError(f"{path}: cannot hold a run: a file is in the way; give another --out") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be made: {error.strerror or error}; give another --out") from error
    return FolderLock(path)


def holdings(path: Path) -> set[str]:
    """Names of the files in the folder, but for those of a run that was killed before it began."""
    if not path.is_dir():
        return set()
    try:
        names = {entry.name for entry in path.iterdir()}
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}; give another --out") from error
    return {name for name in names if name != LOCK_NAME and not is_leftover(name)}


def is_claimed_only(path: Path) -> bool:
    """Whether a run, or a grid, was killed in the folder before it began: a resumed one begins there."""
    return (path / LOCK_NAME).is_file() and not holdings(path)
