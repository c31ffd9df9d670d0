"""What `gpu.py` has found so far, in a file at every moment, and how much of its time is left."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metasynth.files import write_atomically
from metasynth.sizes import memory_failure

PARTS = ("steps", "data", "paper", "noise")
SHARES = {"steps": 0.4, "data": 0.15, "paper": 0.25, "noise": 0.2}
"""Of the time; what a part leaves is for those after it, and the last has all that is left."""


class OutOfTime(Exception):
    """A part has used up its time; the message says in the middle of what."""


class Deadline:
    """When a part has to end.

    Parameters
    ----------
    seconds : float
        From now on.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds, 0 where there are none."""
        return max(0.0, self._end - time.monotonic())

    def require(self, seconds: float = 0.0, what: str = "") -> None:
        """Raise OutOfTime unless more than ``seconds`` are left, which is what is certain to be needed."""
        if self.left <= seconds:
            needed = f"; {what} takes {seconds:.3g} s, {self.left:.3g} s are left" if what else ""
            raise OutOfTime(f"out of time{needed}")


class Budget:
    """The minutes that were given, split over the parts that were asked for."""

    def __init__(self, seconds: float, parts: Sequence[str]) -> None:
        self._whole, self._parts = Deadline(seconds), parts

    def of(self, part: str) -> Deadline:
        """That of a part which begins now."""
        coming = self._parts[self._parts.index(part) :]
        return Deadline(self._whole.left * SHARES[part] / sum(SHARES[one] for one in coming))


class Results:
    """Rows by part, and what was not measured with the reason; each is printed and written as it comes.

    Parameters
    ----------
    path : Path or None
        The JSON file.
    about : mapping
        What was asked for, and where it ran.
    """

    def __init__(self, path: Path | None, about: Mapping[str, Any]) -> None:
        self._path = path
        self.content: dict[str, Any] = {**about, "parts": {}, "unrun": [], "finished": False}
        self.write()

    def add(self, part: str, row: Mapping[str, Any]) -> None:
        """A row of a part."""
        self.content["parts"].setdefault(part, []).append(dict(row))
        print(" ".join(_shown(*item) for item in row.items() if not isinstance(item[1], list | dict)), flush=True)
        self.write()

    def unrun(self, part: str, name: str, reason: str) -> None:
        """What was not measured, and why."""
        self.content["unrun"].append({"part": part, "name": name, "reason": reason})
        print(f"unrun: {part}: {name}: {reason}", flush=True)
        self.write()

    @contextmanager
    def attempt(self, part: str, name: str) -> Iterator[None]:
        """A context for what may not fit into time or memory, or be refused: it is then named, and the next comes."""
        try:
            yield
        except OutOfTime as error:
            self.unrun(part, name, str(error))
        except Exception as error:
            reason = memory_failure(error) or f"{type(error).__name__}: {error}".splitlines()[0]
            self.unrun(part, name, reason)

    def finish(self) -> None:
        """Nothing else is to come."""
        self.content["finished"] = True
        self.write()

    def write(self) -> None:
        """Write the file; RunError if that cannot be done."""
        if self._path:
            text = json.dumps(self.content, indent=1, ensure_ascii=False) + "\n"
            write_atomically(self._path, text.encode(), make_folder=False)


def _shown(name: str, value: object) -> str:
    return value if isinstance(value, str) else f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"


def say(text: str) -> None:
    """A line for whoever waits."""
    print(text, file=sys.stderr, flush=True)
