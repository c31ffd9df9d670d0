"""Sinks that write into a file what they are handed, and some that fail at it."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from metasynth.sinks import Record, SinkEntry, SinkRun


class Noting:
    """A line a record, and one for each other call."""

    def __init__(self, run: SinkRun) -> None:
        self._notes = run.folder / "notes"
        self._notes.touch()
        self.held = len(noted(run.folder.parent.parent, run.folder.name))
        self._note("open", run.name, run.settings["experiment"])

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            self._note(record.number, record.series, record.step, record.values)

    def show(self, images: Mapping[str, Path]) -> None:
        self._note("show", *images, all(path.read_bytes().startswith(b"\x89PNG") for path in images.values()))

    def close(self, finished: bool) -> None:
        self._note("close", finished)

    def _note(self, *what: object) -> None:
        with self._notes.open("ab", buffering=0) as file:
            file.write(json.dumps(what).encode() + b"\n")


class Failing(Noting):
    """Fails at the third record."""

    def write(self, records: Sequence[Record]) -> None:
        super().write([record for record in records if record.number < 3])
        if records[-1].number >= 3:
            raise OSError(28, "No space left on device", "/store")


class Ending(Noting):
    """Ends its process, at the third record."""

    def write(self, records: Sequence[Record]) -> None:
        if records[-1].number >= 3:
            os._exit(7)


class Leaving(Noting):
    """Leaves the program."""

    def write(self, records: Sequence[Record]) -> None:
        raise SystemExit("no licence")


class Printing:
    """Prints, as loggers do."""

    held = 0

    def __init__(self, run: SinkRun) -> None:
        os.write(1, b"out\n")
        os.write(2, b"err\n")

    def show(self, images: Mapping[str, Path]) -> None:
        pass

    def close(self, finished: bool) -> None:
        pass


def refuse(run: SinkRun) -> Noting:
    raise ValueError("MYLOG_URI: expected an address, got ''\nand more")


NOTING = SinkEntry("noting", Noting)
FAILING = SinkEntry("failing", Failing)
ENDING = SinkEntry("ending", Ending)
LEAVING = SinkEntry("leaving", Leaving)
PRINTING = SinkEntry("printing", Printing)
REFUSING = SinkEntry("refusing", refuse)


def notes(run: Path, name: str = "noting") -> list[list[object]]:
    """Everything that a sink noted."""
    return [json.loads(line) for line in (run / "logs" / name / "notes").read_bytes().splitlines()]


def noted(run: Path, name: str = "noting") -> list[list[object]]:
    """The records that it noted."""
    return [note for note in notes(run, name) if isinstance(note[0], int)]
