"""Files that are either wholly there or not there at all, whenever the process or the machine stops."""

import errno
import fcntl
import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from metasynth.errors import DataError, MetasynthError, RunError

MODELS = "models"
"""The folder of a run in which its segmenters are: runs check what is in it, and models are looked for there."""
LEARNED = "learned"
"""The folder of a run in which the augmenters are that it learned."""

_OTHERS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]+\.tmp")


def write_atomically(
    path: Path,
    data: bytes | memoryview,
    *,
    failure: type[MetasynthError] = RunError,
    make_folder: bool = True,
    what: str = "",
) -> None:
    """Write ``data`` under a temporary name in the same folder, flush it to the disk, rename it to ``path``.

    A folder that is missing is made, unless ``make_folder`` is false. ``what`` names the file in the message. Temporary
    files of this name that killed processes left are removed; those of others that write it now stay.

    Raises
    ------
    failure
        The file could not be written (full disk, no permission, ...), in one line; what was at ``path`` stays as it
        was, and no temporary file is left.
    """
    stem = f".{path.name[:40]}."  # not longer than the name itself where that is as long as names may be
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        _remove_dead_of(path.parent, stem)
        temporary, file = _begin(path.parent, stem)
        try:
            with file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = error.strerror or error
        raise failure(f"{path}: {f'{what} ' if what else ''}cannot be written: {reason}") from error
    _sync_folder(path.parent)


def _begin(folder: Path, stem: str) -> tuple[Path, BinaryIO]:
    """A new temporary file, locked for as long as it is open: one that can be locked is of a process that ended."""
    while True:
        path = folder / f"{stem}{secrets.token_hex(6)}.tmp"
        file = path.open("xb")
        with suppress(OSError):  # where there are no locks, nobody takes it for one of a process that ended
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return path, file
        file.close()  # another process removed it before it was locked


def _remove_dead_of(folder: Path, stem: str) -> None:
    with suppress(PermissionError):  # a folder may be written that cannot be listed
        for name in os.listdir(folder):
            if name.startswith(stem) and is_leftover(name):
                _remove_dead(os.path.join(folder, name))


def _remove_dead(path: str, *, without_locks: bool = False) -> None:
    """Remove a temporary file that no process writes any more.

    ``without_locks``: do so where that cannot be known, as the file system has no locks.
    """
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if isinstance(error, BlockingIOError) or not without_locks:
                    return
            os.unlink(path)
        finally:
            os.close(descriptor)


def is_plain(name: str) -> bool:
    """Whether a name, with '/' between folders, is one that leads to a place below where it starts."""
    return all(part not in ("", ".", "..") and part.isprintable() and "\\" not in part for part in name.split("/"))


def place_inside(folder: Path, name: str) -> Path:
    """The place of a file in a folder, or one below it; for names that come from a file that others may have made.

    Raises
    ------
    DataError
        The name, or a link on its way, leads out of the folder.
    """
    place = folder / name if is_plain(name) else None
    if place is None or not place.parent.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{folder}: the name {name!r} must not lead out of the folder; expected plain names and '/'")
    return place


def require_file(path: Path, expected: str, behind: str = "") -> None:
    """Refuse what opening would wait for or not find.

    Parameters
    ----------
    path : Path
        What is to be opened.
    expected : str
        What it should be, for messages.
    behind : str
        What is added to them.

    Raises
    ------
    DataError
        It is no file that can be looked at.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise DataError(f"{path}: the file is missing{behind}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be opened: {getattr(error, 'strerror', None) or error}{behind}") from error
    if not stat.S_ISREG(mode):
        kind = next((name for holds, name in _OTHERS if holds(mode)), "no file")
        raise DataError(f"{path}: expected {expected}, got {kind}{behind}")


def is_leftover(name: str) -> bool:
    """Whether ``name`` is that of a temporary file which a killed process left behind."""
    return _LEFTOVER.fullmatch(name) is not None


def remove_leftovers(folder: Path, *, below: bool = True) -> None:
    """Remove the temporary files of killed processes from a folder and those below it; links are not followed.

    Where the file system has no locks, by which those of living processes are known, it must be the caller's to write.
    """
    for place, folders, names in os.walk(folder):
        for name in filter(is_leftover, names):
            _remove_dead(os.path.join(place, name), without_locks=True)
        if not below:
            folders.clear()


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return next(iter(text.splitlines()), "") or type(error).__name__


def is_full(error: Exception) -> bool:
    """Whether a file could not be written for want of room: on the disk, in a quota, or in a file."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut; file systems that cannot do so for folders are left alone."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
