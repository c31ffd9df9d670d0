"""What a value read from a file must look like, told in one line where it does not.

A schema is a function that finds the first thing wrong with a value: where in it, what was expected and what came.
Values are those of JSON: no number is NaN or infinite.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from metasynth.errors import DataError

Problem = tuple[tuple[str, ...], str, Any]
Schema = Callable[[Any], Problem | None]
SHOWN = 40  # characters of a value that a message repeats


def expect(value: Any, schema: Schema, where: str) -> None:
    """Require that a value is as the schema says.

    Parameters
    ----------
    value : Any
        What was read.
    schema : Schema
        What it must be.
    where : str
        The file, for the message.

    Raises
    ------
    DataError
        It is something else; the message names the entry by dotted keys.
    """
    found = schema(value)
    if found is not None:
        keys, what, came = found
        raise DataError(f"{where}: {'.'.join(keys) or 'its content'}: expected {what}, got {_shown(came)}")


def scalar(what: str, test: Callable[[Any], bool]) -> Schema:
    """A value that passes a test."""
    return lambda value: None if test(value) else ((), what, value)


def one_of(*allowed: str) -> Schema:
    """One of some texts."""
    return scalar(f"one of {', '.join(allowed)}", lambda value: isinstance(value, str) and value in allowed)


def maybe(schema: Schema) -> Schema:
    """The same, or null."""
    return lambda value: None if value is None else schema(value)


def either(first: Schema, second: Schema) -> Schema:
    """One of two; what is wrong is told of the second."""
    return lambda value: None if first(value) is None else second(value)


def listing(item: Schema, least: int = 0, length: int | None = None) -> Schema:
    """A list of items, at least so many or exactly so many."""
    what = f"a list of {length}" if length is not None else f"a list of at least {least}" if least else "a list"

    def problem(value: Any) -> Problem | None:
        if not isinstance(value, list | tuple) or len(value) < least or length not in (None, len(value)):
            return (), what, value
        return _first((str(at), item(one)) for at, one in enumerate(value))

    return problem


def mapping(item: Schema, least: int = 0) -> Schema:
    """An object with any keys, at least so many."""
    what = f"an object with at least {least} entr{'y' if least == 1 else 'ies'}" if least else "an object"

    def problem(value: Any) -> Problem | None:
        if not isinstance(value, Mapping) or len(value) < least:
            return (), what, value
        return _first((str(key), item(one)) for key, one in value.items())

    return problem


def entries(required: Mapping[str, Schema], optional: Mapping[str, Schema] = {}) -> Schema:
    """An object with these keys, and perhaps with those; it may have others."""

    def problem(value: Any) -> Problem | None:
        if not isinstance(value, Mapping):
            return (), "an object", value
        missing = [key for key in required if key not in value]
        if missing:
            return (), f"an entry {missing[0]!r}", sorted(map(str, value)) or value
        given = {**required, **{key: schema for key, schema in optional.items() if key in value}}
        return _first((key, schema(value[key])) for key, schema in given.items())

    return problem


def both(first: Schema, second: Schema) -> Schema:
    """What both say."""
    return lambda value: first(value) or second(value)


def json_value(value: Any) -> Problem | None:
    """Anything that JSON can hold."""
    if isinstance(value, Mapping):
        return mapping(json_value)(value)
    if isinstance(value, list | tuple):
        return listing(json_value)(value)
    plain = value is None or isinstance(value, str | bool) or _is_number(value)
    return None if plain else ((), "text, a finite number, true, false or null", value)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**63


def _is_whole(value: Any) -> bool:
    return _is_number(value) and isinstance(value, int)


def _first(found: Any) -> Problem | None:
    """The first problem of (key, problem) pairs, under its key."""
    return next(((((key, *problem[0]), *problem[1:])) for key, problem in found if problem is not None), None)


def _shown(value: Any) -> str:
    if isinstance(value, Sequence | Mapping) and not isinstance(value, str) and not value:
        return f"an empty {'object' if isinstance(value, Mapping) else 'list'}"
    if isinstance(value, Mapping):
        return "an object"
    text = "null" if value is None else repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


NUMBER = scalar("a finite number", _is_number)
POSITIVE = scalar("a number above 0", lambda value: _is_number(value) and value > 0)
WHOLE = scalar("a whole number", _is_whole)
COUNT = scalar("a whole number from 0 on", lambda value: _is_whole(value) and value >= 0)
TEXT = scalar("text", lambda value: isinstance(value, str))
FLAG = scalar("true or false", lambda value: isinstance(value, bool))
