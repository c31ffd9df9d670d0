"""The process that has the sinks: what it is asked, and what it answers."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from metasynth.files import first_line
from metasynth.sinks.sink import Record, Sink, SinkEntry, SinkRun

MESSAGES = "messages.log"
Request = tuple[Any, ...]


@final
@dataclass
class Host:
    """Answers requests by the names of those that failed, each with what went wrong; they are asked nothing more.

    What loggers print goes to ``messages.log`` in ``logs``.

    Attributes
    ----------
    logs : Path
        The folder ``logs`` of the run.
    name : str
        That of the run.
    settings : mapping
        As in `SinkRun`.
    entries : sequence of SinkEntry
        What to open.
    """

    logs: Path
    name: str
    settings: Mapping[str, Any]
    entries: Sequence[SinkEntry]
    sinks: dict[str, Sink] = field(default_factory=dict)

    def __call__(self, request: Request) -> dict[str, str]:
        """Do what ``request`` names, with what follows the name."""
        what, *given = request
        if what == "open":
            return self._open()
        if what == "write":
            return self._each(lambda sink: _write(sink, *given))
        if what == "show":
            return self._each(lambda sink: sink.show(*given))
        return self._each(lambda sink: sink.close(*given))

    def _open(self) -> dict[str, str]:
        with (self.logs / MESSAGES).open("ab") as messages:
            for stream in (1, 2):
                os.dup2(messages.fileno(), stream)
        failed = {}
        for entry in self.entries:
            try:
                self.sinks[entry.name] = entry.open(SinkRun(self.name, self.logs / entry.name, self.settings))
            except BaseException as error:  # SystemExit too: others' code must not end the process
                failed[entry.name] = described(error)
        return failed

    def _each(self, do: Callable[[Sink], None]) -> dict[str, str]:
        failed = {}
        for name, sink in list(self.sinks.items()):
            try:
                do(sink)
            except BaseException as error:
                failed[name] = described(error)
                del self.sinks[name]
        return failed


def described(error: BaseException) -> str:
    """The kind of an error and its first line."""
    return f"{type(error).__name__}: {first_line(error)}"


def _write(sink: Sink, before: int, lines: bytes) -> None:
    """Hand over those of some lines, which ``before`` others precede, that a sink does not have."""
    numbered = enumerate(lines.splitlines(), start=before + 1)
    records = [Record.of_line(number, line) for number, line in numbered if number > sink.held]
    if records:
        sink.write(records)
        sink.held = records[-1].number
