"""Progress of long work: bars on a terminal, a message every ten seconds elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from metasynth.interrupts import check
from metasynth.lines import Unread, logger, tell

SECONDS_BETWEEN_LINES = 10.0
LOGGER = logger("metasynth.progress")


class Progress:
    """Where a run says how far it is.

    Bars are drawn where standard error is a terminal. Lines are messages of the logger ``metasynth.progress``, which
    the command line writes to standard error, so that standard output holds results only.

    Parameters
    ----------
    quiet : bool
        Lines even on a terminal.
    stream : TextIO or None
        Where to write bars and lines instead.
    """

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._bars: Bars | None = None
        self._open = 0
        place = stream or sys.stderr
        if place and place.isatty() and not quiet:  # none where it was closed from the start
            self._bars = Bars(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(file=Unread(place), markup=False, highlight=False),  # type: ignore[arg-type]
            )

    def say(self, text: str, level: int = logging.INFO) -> None:
        """Say one line, above the bars if there are any; dropped where nobody can read it any more."""
        if self._stream is None:
            LOGGER.log(level, "%s", text)  # standard error leads above the bars while there are any
        elif self._bars and self._open:
            self._bars.console.print(text)
        else:
            tell(text, self._stream)

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator["Task"]:
        """Follow ``total`` units of work, of which ``done`` were done before (by a run now resumed)."""
        task = Task(self, name, total, done)
        if self._bars is None:
            yield task
            task.finish()
            return
        self._open += 1
        task.bar = self._bars.add_task(name, total=total, completed=done, note="")
        if self._open == 1:
            self._bars.start()
        try:
            yield task
        finally:
            self._open -= 1
            if not self._open:  # the terminal is given back, whatever ended the work
                self._bars.stop()

    @contextmanager
    def counter(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """A callback (done, total) for work that reports itself; nothing is shown if it is never called."""
        with ExitStack() as stack:
            task: Task | None = None

            def follow(done: int, total: int) -> None:
                nonlocal task
                task = task or stack.enter_context(self.task(name, total, done - 1))
                task.advance()

            yield follow

    def show(self, task: "Task", count: int, note: str) -> None:
        """Move the bar of ``task``; without bars the task writes its own lines."""
        if self._bars is not None and task.bar is not None:
            self._bars.update(task.bar, advance=count, note=note)


class Task:
    """One piece of work that is being followed; made by ``Progress.task``."""

    def __init__(self, progress: Progress, name: str, total: int, done: int) -> None:
        self.bar: TaskID | None = None
        self._progress, self._name, self._total = progress, name, total
        self._done, self._note = done, ""
        self._start = self._last = time.monotonic()

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """``count`` more units are done; ``note`` is shown beside them ('sigma .12') until the next.

        Raises
        ------
        Interrupted
            The process was asked to end, which it may between two units.
        """
        self._done += count
        self._note = self._note if note is None else note
        if self.bar is not None:
            self._progress.show(self, count, self._note)
        elif self._done < self._total and time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._line()
        check()

    def finish(self) -> None:
        """Write the last line."""
        self._line()

    def _line(self) -> None:
        self._last = time.monotonic()
        seconds = f"{self._last - self._start:.0f} s"
        parts = [f"{self._name}: {self._done}/{self._total}", self._note, seconds]
        self._progress.say(", ".join(part for part in parts if part))
