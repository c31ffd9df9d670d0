"""Settings as frozen dataclasses: to and from JSON, and changed by ``--set a.b=c``.

A field may be an int, float, bool, str, ``Literal``, ``tuple[T, ...]``, ``tuple[T, U]``, ``T | None``,
another dataclass, or any class with ``parse(text)`` and ``from_json(value)`` (class methods) and
``to_json()``, and perhaps ``NOTATION`` (what ``parse`` reads, in words) and ``to_text()``. The annotation
alone decides how a value is read; ``metasynth.running.settings.values`` holds those rules.

A dataclass may have ``implied_by(changes)``, which says by name what a change of some of its settings changes with
them, unless it is given too.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, Self, TypeVar, get_type_hints

from metasynth.errors import UsageError
from metasynth.running.settings.renamed import Renamed, renamed_in, renewed, tell_renamed
from metasynth.running.settings.values import from_json, is_plain_dataclass, parse, to_json

C = TypeVar("C")
Tree = dict[str, Any]


def nearest(name: str, choices: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest choice if one is close, else all of them."""
    known = list(choices)
    close = difflib.get_close_matches(name, known, n=1)
    if not close:  # 'lr' is asked for and 'outer.lr' is meant
        tails = {choice.rpartition(".")[2]: choice for choice in reversed(known)}
        close = [tails[tail] for tail in difflib.get_close_matches(name.rpartition(".")[2], tails, n=1)]
    if close:
        return f"did you mean {close[0]!r}?"
    return f"choose from {', '.join(sorted(known))}" if known else "there is none to choose from"


def to_dict(config: Any) -> dict[str, Any]:
    """The settings as plain JSON values, nested as the dataclasses are."""
    if not is_plain_dataclass(type(config)):
        raise TypeError(f"config must be a dataclass instance; got {type(config).__name__}")
    return {field.name: _encode(getattr(config, field.name)) for field in dataclasses.fields(config) if field.init}


def from_dict(cls: type[C], values: Mapping[str, Any], where: str = "") -> C:
    """Build ``cls`` from what ``to_dict`` gave; every key must be there and none besides.

    Settings that had other names when they were written are read (see `metasynth.running.settings.renamed`).

    Raises
    ------
    UsageError
        A key is unknown or missing, a value is of another type, or the class refuses the values.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"{where or 'config'}: expected an object of settings, got {values!r}")
    prefix = f"{where}." if where else ""
    values = renewed(cls, values, prefix)
    hints = field_types(cls)
    for name in values:
        if name not in hints:
            raise UsageError(f"unknown setting {prefix + name!r}: {nearest(name, hints)}")
    missing = [prefix + name for name in hints if name not in values]
    if missing:
        raise UsageError(f"missing setting{'s' * (len(missing) > 1)} {', '.join(missing)}")
    parts: Tree = {}
    for name, hint in hints.items():
        key = prefix + name
        nested = is_plain_dataclass(hint)
        parts[name] = from_dict(hint, values[name], key) if nested else from_json(hint, values[name], key)
    try:
        return cls(**parts)
    except ValueError as error:
        raise UsageError(f"{where or 'config'} ({', '.join(hints)}): {error}") from error


class FileOverride(str):
    """A 'KEY=VALUE' that a file gave: messages name that file, ``--set`` and ``--vary`` win over it.

    Attributes
    ----------
    where : str
        How messages name the file, such as '--config fast.toml:'.
    """

    where: str

    def __new__(cls, text: str, where: str) -> Self:
        """The text, with where it is from."""
        override = super().__new__(cls, text)
        override.where = where
        return override


def apply_overrides(config: C, overrides: Sequence[str]) -> C:
    """A new configuration with each ``a.b=value`` applied; a later one wins over an earlier one.

    Raises
    ------
    UsageError
        An override has no '=', names no setting (the nearest is suggested), has a value of another type, or gives
        values that the configuration refuses.
    """
    tree: Tree = {}
    origins: dict[str, str] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UsageError(f"--set {override}: expected KEY=VALUE, for example --set {next(iter(_keys(config)))}=...")
        value = parse(hint_of(config, key), text.strip(), key)
        if old := renamed_of(config, key):
            key, value = _taken_over(config, tree, key, old, value)
        _insert(tree, key, value)
        origins[key] = override.where if isinstance(override, FileOverride) else "--set"
    return _replace(config, tree, "", origins)


def hint_of(config: Any, key: str) -> Any:
    """The annotation of the setting with a dotted name, which may be an old one; UsageError if there is none, or it is
    a group of settings.
    """
    if old := renamed_of(config, key):
        return old.hint
    owner, last = _owner(config, key)
    hints = field_types(type(owner)) if is_plain_dataclass(type(owner)) else {}
    if last not in hints:
        raise UsageError(f"unknown setting {key!r}: {nearest(key, _keys(config))}")
    if is_plain_dataclass(type(getattr(owner, last))):
        inside = ", ".join(_keys(getattr(owner, last), f"{key}."))
        raise UsageError(f"setting {key!r} is a group: set one of {inside}")
    return hints[last]


def renamed_of(config: Any, key: str) -> Renamed | None:
    """What became of the setting with a dotted name, if that is an old one."""
    owner, last = _owner(config, key)
    return renamed_in(type(owner)).get(last)


def _owner(config: Any, key: str) -> tuple[Any, str]:
    """The group that a dotted name is in, None if there is none of that name, and its last part."""
    *groups, last = key.split(".")
    for group in groups:
        config = getattr(config, group, None) if is_plain_dataclass(type(config)) else None
    return config, last


def _taken_over(config: Any, tree: Tree, key: str, old: Renamed, value: Any) -> tuple[str, Any]:
    """The key and the value that a setting with an old name gives, which is told."""
    owner, last = _owner(config, key)
    now = key.removesuffix(last) + old.now
    for group in now.split(".")[:-1]:
        tree = tree.get(group, {})
    before = tree.get(old.now, getattr(owner, old.now))
    value = old.merge(before, value)
    if value != before:  # a run's record names all settings
        tell_renamed(key, now)
    return now, value


def field_types(cls: type) -> dict[str, Any]:
    """Name and resolved annotation of every field that the constructor takes."""
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def _encode(value: Any) -> Any:
    return to_dict(value) if is_plain_dataclass(type(value)) else to_json(value)


def _keys(config: Any, prefix: str = "") -> Iterable[str]:
    """Dotted names of every setting that holds a value."""
    for name in field_types(type(config)):
        value = getattr(config, name)
        if is_plain_dataclass(type(value)):
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _insert(tree: Tree, key: str, value: Any) -> None:
    """Put a value at its place in the tree of changes."""
    *groups, last = key.split(".")
    for group in groups:
        tree = tree.setdefault(group, {})
    tree[last] = value


def _replace(config: C, tree: Tree, where: str, origins: Mapping[str, str]) -> C:
    if not tree:
        return config
    changes = {}
    for name, value in tree.items():
        current = getattr(config, name)
        nested = is_plain_dataclass(type(current))
        changes[name] = _replace(current, value, f"{where}{name}.", origins) if nested else value
    if implied_by := getattr(config, "implied_by", None):
        changes |= {name: value for name, value in implied_by(changes).items() if name not in changes}
    try:
        return dataclasses.replace(config, **changes)  # type: ignore[type-var]
    except ValueError as error:
        changed = [where + name for name, value in changes.items() if value != getattr(config, name)]
        raise UsageError(f"{_told(changed, origins)}: {error}") from error


def _told(names: Sequence[str], origins: Mapping[str, str]) -> str:
    """'--set a, b': settings, and groups of them, by where they were given."""
    told: dict[str, dict[str, None]] = {}
    for name, (key, origin) in product(names, origins.items()):
        if key == name or key.startswith(f"{name}."):
            told.setdefault(origin, {})[name] = None
    return "; ".join(f"{origin} {', '.join(found)}" for origin, found in told.items())
