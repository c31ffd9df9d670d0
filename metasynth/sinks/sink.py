"""What a sink is, how one is opened, and what it is handed."""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from metasynth.errors import PackageError, install_hint
from metasynth.files import write_atomically
from metasynth.plugins import require_name


@dataclass(frozen=True)
class Record:
    """A line of ``metrics.jsonl``.

    Attributes
    ----------
    number : int
        Of the line, from 1.
    series : str
        The stage, such as 'sigma=0.1/learn'; of records without one, their texts.
    step : int
        Within the stage; of records without one, their number.
    values : dict of str to float
        The numbers, by names that are unlike within the record.
    """

    number: int
    series: str
    step: int
    values: dict[str, float]

    @classmethod
    def of_line(cls, number: int, line: bytes) -> "Record":
        """What a line holds."""
        entries = dict(_flat(json.loads(line)))
        values = {key: float(value) for key, value in entries.items() if isinstance(value, int | float)}
        if "stage" in entries and "step" in values:
            return cls(number, str(entries["stage"]), int(values.pop("step")), values)
        return cls(number, "/".join(value for value in entries.values() if isinstance(value, str)), number, values)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """What is in a JSON value, by 'outer/inner'."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield name, value
    else:
        for key, item in items:
            yield from _flat(item, f"{name}/{key}" if name else str(key))


class Sink(Protocol):
    """Takes the records of one run, each once.

    It is used by a process of its own, which may be killed at any moment. So what it has it reads from where it writes.
    An error ends it for the session: the run goes on, and the next session opens it again.

    Attributes
    ----------
    held : int
        Records, from the first on, that it has of earlier sessions.
    """

    held: int

    def write(self, records: Sequence[Record]) -> None:
        """Take the next records, in their order; never one that it has."""

    def show(self, images: Mapping[str, Path]) -> None:
        """Take the pictures of the report, PNG files by name, in the place of those that it has."""

    def close(self, finished: bool) -> None:
        """End the session; ``finished``: the run has its results."""


@dataclass(frozen=True)
class SinkRun:
    """The run of a sink.

    Attributes
    ----------
    name : str
        That of the run's folder.
    folder : Path
        ``logs/NAME`` of the run, where the sink may write; there already.
    settings : mapping of str to Any
        Experiment, preset, seed, settings and data of the run, plain values by dotted keys.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]

    def identity(self) -> str:
        """16 characters that no other run has, the same in every session of this one."""
        path = self.folder / "id"
        if not path.is_file():
            write_atomically(path, f"{secrets.token_hex(8)}\n".encode())
        return path.read_text(encoding="ascii").strip()


@dataclass(frozen=True)
class SinkEntry:
    """A line of the table of sinks.

    Attributes
    ----------
    name : str
        As in ``--log NAME``: letters, digits, '_' and '-'.
    open : callable
        Makes one for a run; a function of a module, which another process can import. Whatever it raises is told before
        the run begins.
    needs : str
        The optional package that it imports, which is also the name of the extra; empty: none.
    """

    name: str
    open: Callable[[SinkRun], Sink]
    needs: str = ""

    def __post_init__(self) -> None:
        require_name(self.name, "name of a sink")

    def require_package(self) -> None:
        """Raise PackageError, which says how to install it, if the optional package is missing; nothing is imported."""
        # A folder of that name, such as W&B makes, is found too, but is no package.
        if self.needs and getattr(find_spec(self.needs), "origin", None) is None:
            raise PackageError(f"--log {self.name}: needs the package {self.needs}: {install_hint(self.needs)}")
