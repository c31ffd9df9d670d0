"""Feeds the sinks of a run from its ``metrics.jsonl``, by a process beside the one that trains.

The process is asked for one thing at a time and not waited for while the run works, so that a step costs the time to
look at a clock. It may end at any moment: what the sinks have not, they are handed in the next session.
"""

import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from metasynth.errors import RunError
from metasynth.files import first_line
from metasynth.sinks.host import MESSAGES, Host, Request
from metasynth.sinks.sink import SinkEntry
from metasynth.workers import Worker, WorkerEnded, WorkerFailed, one_worker

LOGS = "logs"
SECONDS_BETWEEN = 5.0
PATIENCE_S = 5.0  # with sinks, when the run has been stopped
MOST_BYTES = 2**18  # of one request
Say = Callable[[str], None]


@contextmanager
def feeding(
    run: Path, metrics: Path, settings: Mapping[str, Any], entries: Sequence[SinkEntry], say: Say
) -> Iterator["Feed"]:
    """Open sinks for a run; without any there is no process.

    Parameters
    ----------
    run, metrics : Path
        Its folder and its records.
    settings : mapping of str to Any
        As in `SinkRun`.
    entries : sequence of SinkEntry
        The sinks.
    say : callable
        Told of a sink that fails, in one line.

    Raises
    ------
    RunError
        A sink cannot be opened, or the folder ``logs`` cannot be written.
    """
    if not entries:
        yield Feed(metrics, None, say)
        return
    for entry in entries:
        _require_importable(entry)
    logs = _folders(run, entries)
    with one_worker(Host(logs, run.resolve().name, settings, entries)) as worker:
        _open(logs, worker)
        feed = Feed(metrics, worker, say)
        try:
            yield feed
        finally:
            feed.leave()


def _require_importable(entry: SinkEntry) -> None:
    """RunError if a fresh process could not make what the entry makes."""
    try:
        pickle.dumps(entry.open)
        why = f"{entry.open.__qualname__} of the program that runs" if entry.open.__module__ == "__main__" else ""
    except Exception as error:  # which one it is depends on what cannot be pickled
        why = first_line(error)
    if why:
        told = "open: expected a function or class that another process can import"
        raise RunError(f"sink {entry.name!r}: {told}, got {why}")


def _folders(run: Path, entries: Sequence[SinkEntry]) -> Path:
    """The folder of the sinks, which has one for each; RunError, which names it, if it cannot be written."""
    logs = run / LOGS
    try:
        for entry in entries:
            (logs / entry.name).mkdir(parents=True, exist_ok=True)
        (logs / MESSAGES).open("ab").close()
    except OSError as error:
        raise RunError(f"{error.filename}: cannot be written: {error.strerror or error}") from error
    return logs


def _open(logs: Path, worker: Worker) -> None:
    worker.ask(("open",))
    try:
        failed = worker.answer()
    except (WorkerEnded, WorkerFailed) as error:
        raise RunError(f"{logs}: the process of the sinks cannot be started: {error}") from error
    for name, why in failed.items():
        raise RunError(f"{logs / name}: the sink {name!r} cannot be opened: {why}; --log none runs without")


@final
class Feed:
    """What has been handed on, and what has not.

    Parameters
    ----------
    metrics : Path
        The records.
    worker : Worker or None
        The process of the sinks; None: there are none.
    say : callable
        Told of a sink that fails.
    """

    def __init__(self, metrics: Path, worker: Worker | None, say: Say) -> None:
        self._metrics, self._worker, self._say = metrics, worker, say
        self._given = self._before = self._position = 0  # bytes and lines that were handed on; bytes there are
        self._asked = False
        self._last = float("-inf")

    def look(self, position: int) -> None:
        """Hand on what is new, if it is time and the process is not busy.

        Parameters
        ----------
        position : int
            Bytes of the records; fewer than before, where they were cut back to a checkpoint.
        """
        self._note(position)
        if self._worker is None or time.monotonic() - self._last < SECONDS_BETWEEN:
            return
        self._last = time.monotonic()
        if self._asked and not self._worker.has_answered():
            return
        self._take()
        self._ask_next()

    def behind(self) -> bool:
        """Whether there is anything that the sinks have not, or have not yet said to have."""
        return self._worker is not None and (self._asked or self._given < self._position)

    def finish(self, position: int, images: Mapping[str, Path]) -> None:
        """Hand on the rest and the pictures of the report, and wait until the sinks have everything.

        Raises
        ------
        Interrupted
            The process was asked to end.
        """
        self._note(position)
        self._take()
        while self._ask_next():
            self._take()
        for request in (("show", dict(images)), ("close", True)):
            self._ask(request)
            self._take()
        self._worker = None

    def leave(self) -> None:
        """Hand on what can be in some seconds, where the run was stopped; after `finish` there is nothing left."""
        until = time.monotonic() + PATIENCE_S
        while self._answered_by(until) and self._ask_next():
            pass
        if self._answered_by(until):
            self._ask(("close", False))
            self._answered_by(until)
        self._worker = None

    def _note(self, position: int) -> None:
        if position < self._given:  # lines made again are counted again, and each sink passes over those that it has
            self._given = self._before = 0
        self._position = position

    def _answered_by(self, until: float) -> bool:
        """Whether the process is there, and free by then."""
        if self._asked and self._worker and not self._worker.has_answered(max(0.0, until - time.monotonic())):
            return False
        self._take()
        return self._worker is not None

    def _ask_next(self) -> bool:
        """Hand on the next lines; whether there were any."""
        lines = self._next_lines() if self._worker else b""
        if lines:
            self._ask(("write", self._before, lines))
            self._given += len(lines)
            self._before += lines.count(b"\n")
        return bool(lines)

    def _next_lines(self) -> bytes:
        """Whole lines from where the last ended, as many as one request takes."""
        if self._given >= self._position:
            return b""
        try:
            with self._metrics.open("rb") as file:
                file.seek(self._given)
                lines = file.read(min(MOST_BYTES, self._position - self._given))
        except OSError as error:
            self._stop(f"{self._metrics}: cannot be read: {error.strerror or error}")
            return b""
        return lines[: lines.rfind(b"\n") + 1]

    def _ask(self, request: Request) -> None:
        if self._worker:
            self._worker.ask(request)
            self._asked = True

    def _take(self) -> None:
        """Wait for the answer to what was asked, if anything was, and say who failed."""
        if self._worker is None or not self._asked:
            return
        try:
            failed = self._worker.answer()
        except (WorkerEnded, WorkerFailed) as error:
            self._stop(f"the process of the sinks: {error}")
            return
        self._asked = False  # only now: a process whose answer was not waited for is busy
        for name, why in failed.items():
            self._say(f"sink {name!r} failed: {why}; {_LATER}")

    def _stop(self, why: str) -> None:
        self._worker = None
        self._say(f"{why}; {_LATER}")


_LATER = "the run goes on, and --resume hands on the records that it has not"
