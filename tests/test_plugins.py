"""Tables to which others add lines: what is ours, what was registered, what other packages declare."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest

from metasynth import plugins
from metasynth.errors import DataError, RunError, UsageError
from metasynth.plugins import EntryTable, load_declared, require_name


@dataclass(frozen=True)
class Line:
    name: str


OURS, PROGRAM, DECLARED, NOT_ONE = Line("ours"), Line("program"), Line("declared"), 3


@pytest.fixture
def table(monkeypatch):
    values = {"declared": "DECLARED", "ours": "DECLARED", "other": "DECLARED", "none": "NOT_ONE", "gone": "GONE"}
    points = [EntryPoint(name, f"{__name__}:{value}", "lines") for name, value in values.items()]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == "lines" else [])
    return EntryTable("thing", Line, "lines", [OURS])


def test_names_are_ours_then_registered_then_declared(table):
    table.register(PROGRAM)
    assert table.names() == ("ours", "program", "declared", "other", "none", "gone")
    assert table.names_of_others() == ("program", "declared", "other", "none", "gone")


def test_a_line_is_found_where_it_is_and_ours_stay_ours(table):
    table.register(PROGRAM)
    assert [table.entry_of(name) for name in ("ours", "program", "declared")] == [OURS, PROGRAM, DECLARED]
    assert table.find("unknown") is None


@pytest.mark.parametrize(
    ("name", "error", "line"),
    [
        ("unknown", UsageError, "unknown thing 'unknown': expected one of ours, declared, other, none, gone"),
        ("other", RunError, f"thing 'other' ({__name__}:DECLARED) has the name 'declared'; its entry point must have "
         "it too"),
        ("none", RunError, f"thing 'none' ({__name__}:NOT_ONE) is a int, no Line"),
        ("gone", RunError, f"thing 'gone' ({__name__}:GONE) cannot be loaded: AttributeError: module '{__name__}' has "
         "no attribute 'GONE'"),
    ],
)  # fmt: skip
def test_a_line_that_is_not_there(table, name, error, line):
    with pytest.raises(error) as refused:
        table.entry_of(name)
    assert str(refused.value) == line


@pytest.mark.parametrize("line", [OURS, DECLARED])
def test_a_name_that_is_taken(table, line):
    with pytest.raises(UsageError) as refused:
        table.register(line)
    assert str(refused.value) == f"thing {line.name!r}: the name is taken"


class Raising:
    value = "package:LINE"

    def __init__(self, error):
        self.error = error

    def load(self):
        raise self.error


def test_an_error_that_has_its_line_keeps_it_and_the_user_can_stop():
    for error in (DataError("a line"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught:
            load_declared("a", Raising(error), Line, "thing")
        assert caught.value is error


def test_a_name_of_other_letters():
    require_name("A-b_1", "name of a thing")
    with pytest.raises(UsageError) as refused:
        require_name("a b", "name of a thing")
    assert str(refused.value) == "name of a thing: expected letters, digits, '_' and '-', got 'a b'"
