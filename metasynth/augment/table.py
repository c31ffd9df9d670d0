"""The table of augmenters: what studies call each, how it is made, and what they have to know of it.

Studies decide nothing by a name; they ask the line of the table. An augmenter is added by one line in `built_in`, by an
entry point of the group `GROUP`, or in a program by `register`. The class that it makes is an `augmenter.Augmenter`, of
which `bias_field` is an example; what a line says is in `entry`.
"""

from metasynth.augment.built_in import ENTRIES
from metasynth.augment.entry import AugmenterEntry, Study
from metasynth.plugins import EntryTable

GROUP = "metasynth.augmenters"
"""The group of entry points by which a package adds augmenters; each is an `AugmenterEntry`."""

TABLE = EntryTable("augmenter", AugmenterEntry, GROUP, ENTRIES)


def register(entry: AugmenterEntry) -> None:
    """Add an augmenter to the table of this process, for a program that runs studies itself.

    Raises
    ------
    UsageError
        (a ValueError) when the name is taken.
    """
    TABLE.register(entry)


def built_in(study: Study) -> tuple[str, ...]:
    """Those of this package that a study offers."""
    return tuple(entry.name for entry in ENTRIES if study in entry.studies)


def names(study: Study) -> tuple[str, ...]:
    """The augmenters that a study offers, ours first; no package of others is imported."""
    return (*built_in(study), *own_names())


def own_names() -> tuple[str, ...]:
    """Those that came from outside the package."""
    return TABLE.names_of_others()


def known_entry(name: str) -> AugmenterEntry | None:
    """The line of that name; None if there is none.

    Raises
    ------
    RunError
        When the package that declares it cannot be loaded.
    """
    return TABLE.find(name)


def entry_of(name: str) -> AugmenterEntry:
    """The line of that name.

    Raises
    ------
    UsageError
        (a ValueError) when there is none.
    RunError
        When the package that declares it cannot be loaded.
    """
    return TABLE.entry_of(name)
