"""The folder in which the parts of a cache lie while it is made: whose it is, and when it goes."""

import os
import re
from contextlib import suppress
from pathlib import Path

from metasynth.data.schema import is_cache
from metasynth.errors import DataError, UsageError
from metasynth.files import is_leftover, write_atomically

WORK_SUFFIX = ".work"
DONE = "done"  # a file of this name in the work folder: once the cache is in its place, nothing of it is needed
PART_NAME = r"[A-Za-z0-9._-]{0,80}-[0-9a-f]{16}\.npz"


def make_work_folder(folder: Path) -> None:
    """Make the work folder, or take up the one that is there.

    Raises
    ------
    UsageError
        Something else has its name.
    DataError
        It cannot be made.
    """
    problem = foreign_work(folder)
    if problem:
        raise UsageError(f"{folder}: {problem}")
    try:
        folder.mkdir(exist_ok=True)
        (folder / DONE).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be made: {error.strerror}") from error


def foreign_work(folder: Path) -> str | None:
    """Why a folder is not one that this program works in; None where it is, or is not there."""
    if not os.path.lexists(folder):
        return None
    if folder.is_symlink() or not folder.is_dir():
        return "is no folder; subjects are prepared in a folder of this name: move it, or give another --out"
    strange = sorted(path.name for path in folder.iterdir() if not _is_work(path))
    if not strange:
        return None
    return f"holds {strange[0]}, which metasynth did not write; move it, or give another --out"


def remove_work_folder(folder: Path) -> None:
    """Remove what this program wrote into the work folder, and the folder where nothing else is in it."""
    with suppress(OSError):
        for path in sorted(folder.iterdir(), key=lambda path: path.name == DONE):  # what says that all can go goes last
            if _is_work(path):
                path.unlink()
        folder.rmdir()


def mark_done(folder: Path) -> None:
    """Say that the work folder can go once the cache that it holds is in its place."""
    write_atomically(folder / DONE, b"", failure=DataError, make_folder=False)


def finish_work(folder: Path) -> None:
    """Remove the work folder of a process that was killed when its cache was in its place already, or an empty one."""
    if (folder / DONE).is_file() and not os.path.lexists(folder / folder.name.removesuffix(WORK_SUFFIX)):
        remove_work_folder(folder)
    with suppress(OSError):
        folder.rmdir()


def _is_work(path: Path) -> bool:
    """Whether a file of the work folder is a part, the cache before it is moved to its place, or left of either."""
    if path.is_symlink() or not path.is_file():
        return False
    if path.name == DONE:
        return path.stat().st_size == 0
    whole = path.name == path.parent.name.removesuffix(WORK_SUFFIX) and is_cache(path)
    return whole or is_leftover(path.name) or re.fullmatch(PART_NAME, path.name) is not None
