"""What settings there are: of each its key, its value, what it may be, and one line from the docstring of its class.

Settings are described where they are declared, in the ``Attributes`` (or ``Parameters``) section of a numpydoc
docstring. It is read here and nowhere else.
"""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, get_args, get_origin

from metasynth.running.settings.config import field_types
from metasynth.running.settings.values import CHOICES, choices_of, describe, is_plain_dataclass, to_json, to_text

SECTIONS = ("Attributes", "Parameters")


@dataclass(frozen=True)
class Setting:
    """One setting of a configuration.

    Attributes
    ----------
    key : str
        As ``--set`` takes it, such as 'outer.lr'.
    value : Any
        What it is.
    kind : str
        What it may be, in words.
    choices : tuple of str
        The texts that it may be, or be a list of; empty where that is no short list.
    line : str
        What it means; empty where its class does not say.
    """

    key: str
    value: Any
    kind: str
    choices: tuple[str, ...]
    line: str

    @property
    def text(self) -> str:
        """The value as ``--set`` takes it."""
        return to_text(self.value)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        value = to_json(self.value)
        return {"key": self.key, "default": value, "type": self.kind, "choices": [*self.choices], "line": self.line}


def list_settings(config: Any, prefix: str = "") -> Iterator[Setting]:
    """Every setting of a configuration that holds a value, in the order of the fields."""
    lines = field_lines(type(config))
    for name, hint in field_types(type(config)).items():
        value = getattr(config, name)
        if is_plain_dataclass(type(value)):
            yield from list_settings(value, f"{prefix}{name}.")
            continue
        choices = _noted_choices(type(config), name)
        kind = _of_choices(hint, choices) if choices else describe(hint)
        yield Setting(prefix + name, value, kind, choices or _literals(hint), lines.get(name, ""))


def field_lines(cls: type) -> dict[str, str]:
    """Name -> the first sentence of what the docstring of a class, or of one it inherits from, says of a field."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        found |= {name: _first_sentence(text) for name, text in _entries(one.__doc__ or "").items()}
    return found


def _entries(docstring: str) -> dict[str, str]:
    """Name -> description of every entry of the sections; names before one colon share theirs."""
    found: dict[str, list[str]] = {}
    heading, names = "", list[str]()
    for line, after in pairwise([*inspect.cleandoc(docstring).splitlines(), ""]):
        if _is_rule(after):
            heading, names = line, []
        elif heading in SECTIONS and line[:1].strip() and not _is_rule(line):
            names = [name.strip() for name in line.partition(":")[0].split(",")]
            found |= {name: [] for name in names}
        else:
            for name in names:
                found[name] += line.split()
    return {name: " ".join(words) for name, words in found.items()}


def _is_rule(line: str) -> bool:
    """Whether a line underlines a heading."""
    return len(line) > 2 and set(line) == {"-"}


def _first_sentence(text: str) -> str:
    """Without the marks of code."""
    return re.split(r"(?<=\.) (?=[A-Z])", text.replace("`", ""), maxsplit=1)[0]


def _noted_choices(cls: type, name: str) -> tuple[str, ...]:
    """What a field's metadata say, of a class or of the one whose field it declares anew."""
    fields = (vars(one).get("__dataclass_fields__", {}).get(name) for one in cls.__mro__)
    return next((tuple(field.metadata[CHOICES]) for field in fields if field and CHOICES in field.metadata), ())


def _literals(hint: Any) -> tuple[str, ...]:
    """The choices of a ``Literal`` or a `OneOf`, or of a list of one."""
    if get_origin(hint) is tuple:
        hint = get_args(hint)[0]
    return tuple(map(str, choices_of(hint)))


def _of_choices(hint: Any, choices: tuple[str, ...]) -> str:
    one = f"one of {', '.join(choices)}"
    return f"a comma-separated list, each {one}" if get_origin(hint) is tuple else one
