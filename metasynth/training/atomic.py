"""Files that are either wholly there or not there at all, whenever the process or the machine stops."""

import os
from contextlib import suppress
from pathlib import Path

from metasynth.errors import RunError


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write ``data`` under a temporary name in the same folder, flush it to the disk, rename it to ``path``.

    Raises:
        RunError: the file could not be written (full disk, no permission, ...); what was at ``path`` stays as
            it was.

    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
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
