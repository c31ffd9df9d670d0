"""Files that are either wholly there or not there at all, whenever the process or the machine stops."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from metasynth.errors import DataError, MetasynthError, RunError


def write_atomically(
    path: Path,
    data: bytes | memoryview,
    *,
    failure: type[MetasynthError] = RunError,
    make_folder: bool = True,
    what: str = "",
) -> None:
    """Write ``data`` under a temporary name in the same folder, flush it to the disk, rename it to ``path``.

    A folder that is missing is made, unless ``make_folder`` is false. ``what`` names the file in the message.

    Raises:
        failure: the file could not be written (full disk, no permission, ...), in one line; what was at ``path``
            stays as it was, and no temporary file is left.

    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise failure(f"{path}: {f'{what} ' if what else ''}cannot be written: {reason}") from error
        raise
    _sync_folder(path.parent)


def place_inside(folder: Path, name: str) -> Path:
    """The place of a file in a folder, or one below it; for names that come from a file that others may have made.

    Raises:
        DataError: the name, or a link on its way, leads out of the folder.

    """
    parts = name.split("/")
    plain = all(part not in ("", ".", "..") and part.isprintable() and "\\" not in part for part in parts)
    place = folder / name if plain else None
    if place is None or not place.parent.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{folder}: the name {name!r} must not lead out of the folder; expected plain names and '/'")
    return place


def is_leftover(name: str) -> bool:
    """Whether ``name`` is that of a temporary file which a killed process left behind."""
    return name.startswith(".") and name.endswith(".tmp")


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut; file systems that cannot do so for folders are left alone."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
