"""A folder of files that is wholly there or not there at all."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metasynth.errors import RunError, UsageError


def require_free(out: Path) -> None:
    """UsageError unless a folder can be made there: nothing or an empty folder is there, in a folder that there is."""
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"--out {out}: exists already; give another name")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: the folder {out.parent} does not exist")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise UsageError(f"--out {out}: the folder {out.parent} cannot be written; give another name")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` to write to, which is moved there in the end; where that fails, nothing is left.

    Raises
    ------
    UsageError
        As `require_free`.
    RunError
        A file cannot be written.
    """
    require_free(out)
    temporary = out.with_name(f".{out.name[:40]}.{secrets.token_hex(8)}.tmp")
    try:
        try:
            temporary.mkdir()
            yield temporary
            temporary.replace(out)
        except OSError as error:
            raise RunError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
