"""The first thing wrong with a value is named by its keys, with what was expected and what came."""

import math

import pytest

from metasynth.errors import DataError
from metasynth.schema import (
    COUNT,
    FLAG,
    NUMBER,
    POSITIVE,
    TEXT,
    WHOLE,
    both,
    either,
    entries,
    expect,
    json_value,
    listing,
    mapping,
    maybe,
    one_of,
)

GOOD = [
    (NUMBER, 0),
    (NUMBER, -1.5),
    (POSITIVE, 1e-300),
    (WHOLE, -3),
    (COUNT, 0),
    (TEXT, ""),
    (FLAG, False),
    (maybe(TEXT), None),
    (either(TEXT, NUMBER), 3),
    (either(TEXT, NUMBER), "3"),
    (one_of("a", "b"), "b"),
    (listing(NUMBER), []),
    (listing(NUMBER, length=2), (1, 2)),
    (mapping(listing(TEXT), least=1), {"a": ["b"]}),
    (entries({"a": TEXT}, {"b": NUMBER}), {"a": "x", "c": None}),
    (both(entries({"a": TEXT}), mapping(TEXT)), {"a": "x", "b": "y"}),
    (json_value, {"a": [1, None, {"b": True}]}),
]
BAD = [
    (NUMBER, True, "its content: expected a finite number, got True"),
    (NUMBER, math.nan, "its content: expected a finite number, got nan"),
    (NUMBER, -math.inf, "its content: expected a finite number, got -inf"),
    (NUMBER, 2**63, "its content: expected a finite number, got 9223372036854775808"),
    (WHOLE, 3.0, "its content: expected a whole number, got 3.0"),
    (COUNT, -1, "its content: expected a whole number from 0 on, got -1"),
    (POSITIVE, 0, "its content: expected a number above 0, got 0"),
    (FLAG, 1, "its content: expected true or false, got 1"),
    (TEXT, b"a", "its content: expected text, got b'a'"),
    (TEXT, ["x" * 99], f"its content: expected text, got ['{'x' * 35}..."),
    (maybe(TEXT), 3, "its content: expected text, got 3"),
    (either(TEXT, NUMBER), [], "its content: expected a finite number, got an empty list"),
    (one_of("a", "b"), "c", "its content: expected one of a, b, got 'c'"),
    (one_of("a", "b"), ["a"], "its content: expected one of a, b, got ['a']"),
    (listing(NUMBER), "12", "its content: expected a list, got '12'"),
    (listing(NUMBER, least=1), [], "its content: expected a list of at least 1, got an empty list"),
    (listing(NUMBER, length=2), [1], "its content: expected a list of 2, got [1]"),
    (listing(listing(NUMBER)), [[1], [2, "3"]], "1.1: expected a finite number, got '3'"),
    (mapping(NUMBER), [], "its content: expected an object, got an empty list"),
    (mapping(NUMBER, least=2), {"a": 1}, "its content: expected an object with at least 2 entries, got an object"),
    (entries({"a": TEXT}), {}, "its content: expected an entry 'a', got an empty object"),
    (entries({"a": TEXT}), {"b": 1}, "its content: expected an entry 'a', got ['b']"),
    (entries({"a": entries({"b": TEXT})}), {"a": {"b": 1}}, "a.b: expected text, got 1"),
    (entries({}, {"b": NUMBER}), {"b": None}, "b: expected a finite number, got null"),
    (both(entries({"a": TEXT}), mapping(TEXT)), {"a": "x", "b": 1}, "b: expected text, got 1"),
    (json_value, {"a": [math.nan]}, "a.0: expected text, a finite number, true, false or null, got nan"),
]


@pytest.mark.parametrize(("schema", "value"), GOOD)
def test_what_is_as_it_should_be(schema, value):
    expect(value, schema, "f.json")


@pytest.mark.parametrize(("schema", "value", "message"), BAD)
def test_what_is_not(schema, value, message):
    with pytest.raises(DataError) as caught:
        expect(value, schema, "f.json")
    assert str(caught.value) == f"f.json: {message}"
