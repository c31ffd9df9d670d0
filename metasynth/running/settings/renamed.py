"""Settings that had another name, and those that there were none of: how records of earlier versions are read.

A class of settings names the former in ``RENAMED``: what is given by an old name goes into the setting that there is
now. On the command line and in files of settings an old name works for one version and is told once. In the records of
runs, which nobody writes, it is read without a word. ``ADDED`` has what records mean that lack a setting: a value, or a
function of all that they have of the class.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_type_hints

from metasynth.lines import logger, now_called
from metasynth.running.settings.values import from_json, is_plain_dataclass, to_json

_LOG = logger(__name__)


@dataclass(frozen=True)
class Renamed:
    """A setting as it was.

    Attributes
    ----------
    now : str
        The field of the same class that it is part of now, which has a plain default.
    hint : Any
        The annotation that it had.
    merge : callable
        (what the field is, what was given by the old name) -> what the field becomes.
    """

    now: str
    hint: Any
    merge: Callable[[Any, Any], Any]


def renamed_in(cls: type) -> Mapping[str, Renamed]:
    """The old names of a class of settings."""
    found: Mapping[str, Renamed] = getattr(cls, "RENAMED", {})
    return found


def added_in(cls: type) -> Mapping[str, Any]:
    """What a class of settings means, as JSON values, in records from before it had some of them."""
    found: Mapping[str, Any] = getattr(cls, "ADDED", {})
    return found


def renewed(cls: type, values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Recorded settings of one class as they are today; those of the classes in it are left.

    Raises
    ------
    UsageError
        What an old name holds is of another type.
    """
    found = {name: value for name, value in values.items() if name not in renamed_in(cls)}
    for name, old in renamed_in(cls).items():
        if name in values:
            before = getattr(cls, old.now)  # the default, which a field with an old name has
            if old.now in found:
                before = from_json(get_type_hints(cls)[old.now], found[old.now], prefix + old.now)
            found[old.now] = to_json(old.merge(before, from_json(old.hint, values[name], prefix + name)))
    added = {name: value for name, value in added_in(cls).items() if name not in found}
    return {**found, **{name: value(found) if callable(value) else value for name, value in added.items()}}


def all_renewed(config: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded settings as they are today, groups within groups, as far as they are those of ``config``."""
    found = renewed(type(config), values)
    for name, value in found.items():
        group = getattr(config, name, None)
        if is_plain_dataclass(type(group)) and isinstance(value, Mapping):
            found[name] = all_renewed(group, value)
    return found


@cache
def tell_renamed(old: str, new: str) -> None:
    """Say, once a process, what a setting is called now."""
    _LOG.warning("%s", now_called(old, new))
