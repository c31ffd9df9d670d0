"""The table of sinks.

One is added by a line in `built_in`, by an entry point of the group `GROUP`, or in a program by `register`.
"""

from metasynth.errors import UsageError
from metasynth.plugins import EntryTable
from metasynth.sinks.built_in import ENTRIES
from metasynth.sinks.sink import SinkEntry

GROUP = "metasynth.sinks"
"""The group of entry points by which a package adds sinks; each is a `SinkEntry`."""
NONE = "none"

TABLE = EntryTable("sink", SinkEntry, GROUP, ENTRIES)


def register(entry: SinkEntry) -> None:
    """Add a sink to the table of this process, for a program that runs studies itself.

    Raises
    ------
    UsageError
        (a ValueError) when the name is taken.
    """
    TABLE.register(entry)


def names() -> tuple[str, ...]:
    """All sinks, ours first; no package of others is imported."""
    return TABLE.names()


def chosen(text: str) -> tuple[SinkEntry, ...]:
    """The sinks of 'NAME,NAME'; none of 'none'.

    Raises
    ------
    UsageError
        A name is empty, given twice, or of no sink.
    PackageError
        An optional package is missing.
    RunError
        The package that declares a sink cannot be loaded.
    """
    given = [name.strip() for name in text.split(",")]
    if given == [NONE]:
        return ()
    if not all(given):
        raise UsageError(f"--log {text!r}: expected names such as tensorboard,mlflow, or {NONE}")
    for name in given:
        if given.count(name) > 1:
            raise UsageError(f"--log {text}: {name} is given twice")
        if name not in names():
            raise UsageError(f"--log {text}: unknown sink {name!r}: expected {NONE} or one of {', '.join(names())}")
    entries = tuple(map(TABLE.entry_of, given))
    for entry in entries:
        entry.require_package()
    return entries
