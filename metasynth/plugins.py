"""Tables to which other packages add lines: by an entry point, or in a program.

What another package declares is imported when its line is asked for, not before.
"""

import re
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, Protocol, TypeVar, final

from metasynth.errors import MetasynthError, RunError, UsageError


class Named(Protocol):
    """What has a name in settings and files."""

    @property
    def name(self) -> str:
        """In settings and files."""


NamedT = TypeVar("NamedT", bound=Named)


def require_name(name: str, what: str) -> None:
    """Raise UsageError, which begins with ``what``, unless a name is of letters, digits, '_' and '-'."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UsageError(f"{what}: expected letters, digits, '_' and '-', got {name!r}")


def load_declared(name: str, point: EntryPoint, kind: type[NamedT], noun: str) -> NamedT:
    """What an entry point declares.

    Parameters
    ----------
    name : str
        That of the entry point, which what it declares has to have.
    point : EntryPoint
    kind : type
        What it has to be of.
    noun : str
        What one is called in messages.

    Raises
    ------
    RunError
        When its module cannot be loaded, or what it declares is something else or has another name.
    """
    where = f"{noun} {name!r} ({point.value})"
    try:
        found = point.load()
    except (MetasynthError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit too: a module that ends its process must not end this one
        raise RunError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(found, kind):
        raise RunError(f"{where} is a {type(found).__name__}, no {kind.__name__}")
    if found.name != name:
        raise RunError(f"{where} has the name {found.name!r}; its entry point must have it too")
    return found


@final
class EntryTable(Generic[NamedT]):
    """Lines by name: those of this package, of the programs that register some, and of other packages.

    Parameters
    ----------
    noun : str
        What a line is of, in messages.
    kind : type
        What a line is.
    group : str
        The group of entry points by which other packages declare lines.
    lines : iterable
        Those of this package.
    """

    def __init__(self, noun: str, kind: type[NamedT], group: str, lines: Iterable[NamedT]) -> None:
        self.noun, self.kind, self.group = noun, kind, group
        self._own = {line.name: line for line in lines}
        self._registered: dict[str, NamedT] = {}

    def register(self, line: NamedT) -> None:
        """Add a line in this process.

        Raises
        ------
        UsageError
            (a ValueError) when the name is taken.
        """
        if line.name in self.names():
            raise UsageError(f"{self.noun} {line.name!r}: the name is taken")
        self._registered[line.name] = line

    def names(self) -> tuple[str, ...]:
        """All of them, ours first; no package of others is imported."""
        return (*self._own, *self.names_of_others())

    def names_of_others(self) -> tuple[str, ...]:
        """Those that came from outside the package; none is imported."""
        return (*self._registered, *self._declared())

    def find(self, name: str) -> NamedT | None:
        """The line of that name; None if there is none.

        Raises
        ------
        RunError
            When the package that declares it cannot be loaded.
        """
        here = self._own | self._registered
        if name in here:
            return here[name]
        point = self._declared().get(name)
        return None if point is None else load_declared(name, point, self.kind, self.noun)

    def entry_of(self, name: str) -> NamedT:
        """The line of that name.

        Raises
        ------
        UsageError
            (a ValueError) when there is none.
        RunError
            When the package that declares it cannot be loaded.
        """
        found = self.find(name)
        if found is None:
            raise UsageError(f"unknown {self.noun} {name!r}: expected one of {', '.join(self.names())}")
        return found

    def _declared(self) -> dict[str, EntryPoint]:
        """What other packages declare; a name that is here stays what it is here."""
        here = self._own | self._registered
        return {point.name: point for point in entry_points(group=self.group) if point.name not in here}
