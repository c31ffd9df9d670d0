"""A file that stands for the lock of a folder where the file system has no locks: only one process can make it."""

import json
import os
import socket
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from metasynth.errors import RunError
from metasynth.files import write_atomically

CLAIM_NAME = ".lock.claim"
_GUARD = ".takeover"


@final
class ClaimFile:
    """The file, from construction until ``release`` or the end of the process that made it.

    It holds host, number and start of that process. One that was killed leaves its file; on the same host it is taken
    over.

    Raises
    ------
    RunError
        Another process has made the file; one that may have ended on another host is named with the file.
    OSError
        The file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / CLAIM_NAME
        mine = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "started": _start_of(os.getpid())})
        try:
            _make(self._path, mine)
        except FileExistsError:
            _take_over(folder, self._path, mine)
        self._finalizer = weakref.finalize(self, _remove, self._path, mine, os.getpid())

    def release(self) -> None:
        """Remove the file; releasing twice does nothing."""
        self._finalizer()


def _make(path: Path, content: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _take_over(folder: Path, path: Path, mine: str) -> None:
    """Replace the file of a process that has ended; RunError if it may not have.

    Two that try at the same time are kept apart by a further file, under which the first is looked at again.
    """
    _refuse_living(folder, path)
    guard = path.with_name(path.name + _GUARD)
    try:
        _make(guard, mine)
    except FileExistsError:
        raise RunError(f"{folder}: another process is taking over this run; if none is, remove {guard}") from None
    try:
        _refuse_living(folder, path)
        write_atomically(path, mine.encode(), make_folder=False)
    finally:
        with suppress(OSError):
            guard.unlink()


def _refuse_living(folder: Path, path: Path) -> None:
    holder = _holder(path)
    host, process = holder.get("host"), holder.get("process")
    if host == socket.gethostname() and isinstance(process, int) and process > 0:
        start = _start_of(process)
        if start is None or start != holder.get("started"):  # it has ended; its number may be another's now
            return
        raise RunError(f"{folder}: process {process} is writing this run (it made {path})")
    who = f"process {process} on {host}" if holder else "another process"
    raise RunError(f"{folder}: {who} is writing this run; if it has ended, remove {path}")


def _holder(path: Path) -> dict[str, Any]:
    """What the file says of whose it is; nothing if it cannot be read."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text())
        if isinstance(found, dict):
            return found
    return {}


def _start_of(process: int) -> str | None:
    """When a process of this host began, in words of the system; None if there is none, '' if that cannot be told."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass  # it is somebody else's
    try:
        words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return None if words[0] == "Z" else words[19]
    except (OSError, IndexError):
        return ""


def _remove(path: Path, mine: str, process: int) -> None:
    """Remove the file if it is still this process's own, which a fork's is not."""
    if os.getpid() == process:
        with suppress(OSError):
            if path.read_text() == mine:
                path.unlink()
