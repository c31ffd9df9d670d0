"""The table of augmenters: what studies call each, how it is made, and what they have to know of it.

Studies decide nothing by a name; they ask the line of the table. An augmenter is added by one line in `built_in`, by an
entry point of the group `GROUP`, or in a program by `register`. The class that it makes is an `augmenter.Augmenter`, of
which `bias_field` is an example; what a line says is in `entry`.
"""

from importlib.metadata import EntryPoint, entry_points

from metasynth.augment.built_in import ENTRIES
from metasynth.augment.entry import AugmenterEntry, Study
from metasynth.errors import MetasynthError, RunError, UsageError

GROUP = "metasynth.augmenters"
"""The group of entry points by which a package adds augmenters; each is an `AugmenterEntry`."""

_TABLE: dict[str, AugmenterEntry] = {entry.name: entry for entry in ENTRIES}
_BUILT_IN = tuple(_TABLE)


def register(entry: AugmenterEntry) -> None:
    """Add an augmenter to the table of this process, for a program that runs studies itself.

    Raises
    ------
    UsageError
        (a ValueError) when the name is taken.
    """
    if entry.name in _TABLE or entry.name in _points():
        raise UsageError(f"augmenter {entry.name!r}: the name is taken")
    _TABLE[entry.name] = entry


def built_in(study: Study) -> tuple[str, ...]:
    """Those of this package that a study offers."""
    return tuple(entry.name for entry in ENTRIES if study in entry.studies)


def names(study: Study) -> tuple[str, ...]:
    """The augmenters that a study offers, ours first; no package of others is imported."""
    return (*built_in(study), *own_names())


def own_names() -> tuple[str, ...]:
    """Those that came from outside the package."""
    return (*(name for name in _TABLE if name not in _BUILT_IN), *_points())


def known_entry(name: str) -> AugmenterEntry | None:
    """The line of that name; None if there is none.

    Raises
    ------
    RunError
        When the package that declares it cannot be loaded.
    """
    if name in _TABLE:
        return _TABLE[name]
    point = _points().get(name)
    return None if point is None else _loaded(point)


def entry_of(name: str) -> AugmenterEntry:
    """The line of that name.

    Raises
    ------
    UsageError
        (a ValueError) when there is none.
    RunError
        When the package that declares it cannot be loaded.
    """
    found = known_entry(name)
    if found is None:
        raise UsageError(f"unknown augmenter {name!r}: expected one of {', '.join((*_TABLE, *_points()))}")
    return found


def _points() -> dict[str, EntryPoint]:
    """What other packages declare; a name of ours stays ours."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in _TABLE}


def _loaded(point: EntryPoint) -> AugmenterEntry:
    where = f"augmenter {point.name!r} ({point.value})"
    try:
        found = point.load()
    except (MetasynthError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit too: a module that ends its process must not end this one
        raise RunError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(found, AugmenterEntry):
        raise RunError(f"{where} is a {type(found).__name__}, no AugmenterEntry")
    if found.name != point.name:
        raise RunError(f"{where} has the name {found.name!r}; its entry point must have it too")
    return found
