"""What is common to all Python processes that this program starts: where they import from, and when they end."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PARENT = "METASYNTH_PARENT"
SAFE_PATH = "PYTHONSAFEPATH"
_LOOK_S = 0.2  # between looks at whether the parent is there
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextmanager
def safe_path() -> Iterator[None]:
    """Python processes started here do not import from the current folder."""
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        os.environ.pop(SAFE_PATH)
        if before is not None:
            os.environ[SAFE_PATH] = before


def safe_environment() -> dict[str, str]:
    """What a Python process is given that is not to import from the folder it is started in, and to end with this."""
    return {SAFE_PATH: "1", PARENT: str(os.getpid())}


def end_with_named_parent() -> None:
    """Have this process end with the one that started it, where that asked for it by `safe_environment`."""
    parent = os.environ.pop(PARENT, "")  # its own children have another
    if parent.isdecimal():
        end_with(int(parent), from_main_thread=True)


def end_with(parent: int, from_main_thread: bool) -> None:
    """Kill this process when its parent is no more.

    Linux does so by itself, though for the end of the thread that started the process, and so only where that is the
    one that lasts. Elsewhere, and if the parent ended before this was called, looks at it do.
    """
    if sys.platform == "linux" and from_main_thread:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    when_gone(parent, signal.SIGKILL)


def when_gone(parent: int, number: signal.Signals) -> None:
    """Send this process a signal, once, when its parent is no more."""
    threading.Thread(target=_watch_parent, args=(parent, number), daemon=True).start()


def _watch_parent(parent: int, number: signal.Signals) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os.kill(os.getpid(), number)
