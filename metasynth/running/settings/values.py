"""How one setting is read and written: the rules for each annotation a configuration may use."""

import dataclasses
import json
import math
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from metasynth.errors import UsageError
from metasynth.text import shown

MOST = 2**31 - 1
"""The largest whole number, either way, of a setting: every library takes it, and none of that size can be done."""
CHOICES = "choices"
"""Key of a field's metadata: the texts that a setting may be, or be a list of, where its annotation does not say."""
LONGEST_TOLD = 60  # characters of a value in a message

_BOOLEANS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


@dataclass(frozen=True)
class OneOf:
    """``Annotated[str, OneOf(names)]``: a ``Literal`` whose choices are known when they are asked for."""

    names: Callable[[], Sequence[str]]


def choices_of(hint: Any) -> tuple[Any, ...]:
    """What a ``Literal`` or a `OneOf` allows; of anything else nothing."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    noted = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return tuple(choice for note in noted if isinstance(note, OneOf) for choice in note.names())


def is_plain_dataclass(cls: Any) -> bool:
    """Whether ``cls`` is a dataclass that is written field by field (it has no ``parse`` of its own)."""
    return isinstance(cls, type) and dataclasses.is_dataclass(cls) and not hasattr(cls, "parse")


def describe(hint: Any, separated: str = "comma-separated ") -> str:
    """The annotation in words, for messages; lists are those of ``--set``, or with '' those of JSON."""
    origin, args = get_origin(hint), get_args(hint)
    if _is_union(hint):
        return " or ".join(describe(arg, separated) for arg in args)
    if choices := choices_of(hint):
        return "one of " + ", ".join(map(str, choices))
    if origin is tuple and args[-1] is Ellipsis:
        return f"a {separated}list, each {describe(args[0], separated)}"
    if origin is tuple:
        return f"{len(args)} {separated}values ({', '.join(describe(arg, separated) for arg in args)})"
    words = {
        int: "a whole number",
        float: "a finite number",
        bool: "true or false",
        str: "text",
        type(None): "none",
    }
    return words.get(hint) or str(getattr(hint, "NOTATION", f"a {hint.__name__}"))


def parse(hint: Any, text: str, key: str) -> Any:
    """The value of setting ``key``, annotated ``hint``, from the command line; UsageError if it is none."""
    return _checked(lambda: _parse(hint, text), describe(hint), text, key)


def from_json(hint: Any, value: Any, key: str) -> Any:
    """The value of setting ``key``, annotated ``hint``, from a JSON value; UsageError if it is none."""
    return _checked(lambda: _decode(hint, value), describe(hint, ""), value, key)


def to_json(value: Any) -> Any:
    """A setting as a JSON value: tuples become lists, classes with ``to_json`` decide themselves."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if hasattr(value, "to_json"):
        return value.to_json()
    raise TypeError(f"a configuration cannot hold a {type(value).__name__}")


def to_text(value: Any) -> str:
    """A setting as `parse` reads it.

    A class with a notation of its own writes it by ``to_text()``, or else as the text or JSON of its ``to_json()``.
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return ",".join(map(to_text, value))
    if hasattr(value, "to_text"):
        return str(value.to_text())
    plain = to_json(value)
    return plain if isinstance(plain, str) else json.dumps(plain)


class _Refused(ValueError):
    """The value is not of the annotated type; the caller's message says what is."""


def _checked(read: Callable[[], Any], expected: str, given: Any, key: str) -> Any:
    try:
        return read()
    except _Refused:
        raise UsageError(f"{key}: expected {expected}, got {told(given)}") from None
    except ValueError as error:  # from the class of the value, which knows better what is wrong
        raise UsageError(f"{key}: got {told(given)}: {error}") from error


def told(given: Any) -> str:
    """A value as it came, for a message, but no page of it."""
    if isinstance(given, str):
        return shown(given)
    text = repr(given) if not isinstance(given, int) or abs(given) <= MOST**2 else "a far larger number"
    return text if len(text) <= LONGEST_TOLD else f"{text[:LONGEST_TOLD]}... ({len(text)} characters)"


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _parse(hint: Any, text: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if _is_union(hint):
        return _first(args, lambda arg: _parse(arg, text))
    if choices := choices_of(hint):
        return _choose({str(choice): choice for choice in choices}, text)
    if origin is tuple:
        parts = [part.strip() for part in text.split(",")] if text else []
        return tuple(_parse(kind, part) for kind, part in zip(_element_types(args, parts), parts, strict=True))
    if hint is type(None):
        return _choose({"none": None, "null": None}, text.lower())
    if hint is bool:
        return _choose(_BOOLEANS, text.lower())
    if hint in (int, float):
        try:
            number = hint(text)
        except ValueError:  # for int too many digits, too
            raise _Refused from None
        return _decode(hint, number)
    if hint is str:
        return text
    if hasattr(hint, "parse"):
        return hint.parse(text)
    raise TypeError(f"settings annotated {hint} cannot be read from text")


def _decode(hint: Any, value: Any) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if _is_union(hint):
        return _first(args, lambda arg: _decode(arg, value))
    if choices := choices_of(hint):
        if any(value == choice and type(value) is type(choice) for choice in choices):
            return value
        raise _Refused
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _Refused
        return tuple(_decode(kind, part) for kind, part in zip(_element_types(args, value), value, strict=True))
    if hint is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    if hint is float and type(value) is float and math.isfinite(value):
        return value
    if hint is int and type(value) is int and abs(value) > MOST:
        raise ValueError(f"must be a whole number from {-MOST} to {MOST}")
    if hint in (bool, int, str, type(None)) and type(value) is hint:
        return value
    if hasattr(hint, "from_json"):
        return hint.from_json(value)
    if hint in (bool, int, float, str, type(None)):
        raise _Refused
    raise TypeError(f"settings annotated {hint} cannot be read from JSON")


def _element_types(args: tuple[Any, ...], values: Any) -> list[Any]:
    if len(args) == 2 and args[1] is Ellipsis:
        return [args[0]] * len(values)
    if len(args) != len(values):
        raise _Refused
    return list(args)


def _choose(choices: dict[str, Any], text: str) -> Any:
    if text not in choices:
        raise _Refused
    return choices[text]


def _first(kinds: tuple[Any, ...], read: Callable[[Any], Any]) -> Any:
    """The value by the first member of a union that accepts it; None first, since text accepts 'none'."""
    refusals: list[ValueError] = []
    for kind in sorted(kinds, key=lambda kind: kind is not type(None)):
        try:
            return read(kind)
        except ValueError as error:
            refusals.append(error)
    # The last, or one that knows better what is wrong.
    raise next((error for error in refusals if not isinstance(error, _Refused)), refusals[-1])
