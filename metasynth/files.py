"""Files that are either wholly there or not there at all, whenever the process or the machine stops."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from metasynth.errors import MetasynthError, RunError


def write_atomically(
    path: Path, data: bytes | memoryview, *, failure: type[MetasynthError] = RunError, make_folder: bool = True
) -> None:
    """Write ``data`` under a temporary name in the same folder, flush it to the disk, rename it to ``path``.

    A folder that is missing is made, unless ``make_folder`` is false.

    Raises:
        failure: the file could not be written (full disk, no permission, ...), in one line; what was at ``path``
            stays as it was, and no temporary file is left.

    """
    # Not longer than the name itself where that is as long as names may be.
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.tmp")
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
            raise failure(f"{path}: cannot be written: {error.strerror or error}") from error
        raise
    _sync_folder(path.parent)


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
