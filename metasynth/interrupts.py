"""A signal to end is a flag, which is read where work may stop: between steps, batches, slices and scans.

An exception out of a signal handler comes anywhere, also where a lock is held that nobody would then release. So the
first signal is only noted, and `check` raises `Interrupted` at the next place that is fit for it. Work that comes to
no such place within `PATIENCE_S` is interrupted where it is; a further signal ends the process at once, which is as
safe as a kill: whole files are written atomically and runs go on from their checkpoints.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE_S = 3.0  # with work that does not look at the flag
AGAIN_S = 0.3  # what comes sooner is the same request: `timeout` signals both a process and its group
_SHOW_CURSOR = b"\x1b[?25h\n"


class Interrupted(KeyboardInterrupt):
    """The process was asked to end.

    Attributes
    ----------
    number : int
        The signal that asked.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_status(error: BaseException | None) -> int:
    """The exit status of a process that ends with a KeyboardInterrupt: 128 and the signal's number, as in shells."""
    return 128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT)


def check() -> None:
    """Raise Interrupted if this process watches for signals and one has come."""
    for number in SIGNALS:
        watch = signal.getsignal(number)
        if isinstance(watch, _Watch) and watch.received:
            watch.disarm()
            raise Interrupted(watch.received[0])


@contextmanager
def watched(*, forceful: bool = True) -> Iterator[list[int]]:
    """Note signals to end instead of what they would do; those that are ignored (as by nohup) stay so.

    Outside of the main thread, which alone may handle signals, nothing changes.

    Parameters
    ----------
    forceful : bool
        End the process at the second signal, and work that does not `check` after some patience; else further signals
        are noted only, for the caller to look at.

    Returns
    -------
    list of int
        The signals that have come, which grow as they do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield []
        return
    watch = _Watch(forceful)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    alarm = signal.getsignal(signal.SIGALRM)
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, watch)
    if forceful and alarm == signal.SIG_DFL:
        signal.signal(signal.SIGALRM, watch.interrupt)
    for outer in {id(handler): handler for handler in before.values() if isinstance(handler, _Watch)}.values():
        outer.disarm()
        watch.received.extend(outer.received)
    try:
        yield watch.received
    finally:
        watch.disarm()
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if alarm is None else alarm)


@contextmanager
def held(numbers: Iterable[int] = SIGNALS) -> Iterator[None]:
    """Signals wait meanwhile; a process that is started here begins with them held back, until it lets them through."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_to_parent() -> None:
    """In a worker: what a terminal sends to the whole group is its parent's to act on, which ends its workers."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


class _Watch:
    """The handler of the signals. That it is in their place is all that makes a process a watching one."""

    def __init__(self, forceful: bool) -> None:
        self.received: list[int] = []
        self._forceful = forceful
        self._last = float("-inf")

    def __call__(self, number: int, frame: FrameType | None) -> None:
        since, self._last = time.monotonic() - self._last, time.monotonic()
        if since < AGAIN_S:
            return
        if self.received and self._forceful:
            _end(number)
        self.received.append(number)
        if self._forceful and signal.getsignal(signal.SIGALRM) == self.interrupt:
            signal.setitimer(signal.ITIMER_REAL, PATIENCE_S, PATIENCE_S)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        raise Interrupted(self.received[0])

    def disarm(self) -> None:
        if signal.getsignal(signal.SIGALRM) == self.interrupt:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _end(number: int) -> None:
    """End this process and its workers, with nothing in between."""
    if "multiprocessing" in sys.modules:
        with suppress(Exception):
            for child in sys.modules["multiprocessing"].active_children():
                child.kill()
    with suppress(Exception):
        if sys.stderr.isatty():  # bars hide the cursor
            os.write(sys.stderr.fileno(), _SHOW_CURSOR)
    os._exit(128 + number)
