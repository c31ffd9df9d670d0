"""Modules and folders are of a size to be read: no exception that does not say why."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest
from support.longest import LONGEST

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("metasynth", "experiments", "data_prep", "benchmarks", "examples")
MODULES = sorted(path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*.py"))
MOST_LINES, MOST_MODULES = 250, 18
REASON = re.compile(rf"\bmore\s+than\s+{MOST_LINES}\s+lines,?\s+(?:as|because|since)\b", re.IGNORECASE)
"""How a docstring says why its module is longer, such as "More than 250 lines, as it is one table."."""


def gives_a_reason(source: str) -> bool:
    return REASON.search(ast.get_docstring(ast.parse(source)) or "") is not None


def is_long(source: str) -> bool:
    return len(source.splitlines()) > MOST_LINES


def test_the_files_of_tests_that_take_longest_are_there():
    """One that is not would be begun in its turn, without a word."""
    assert [name for name in LONGEST if not (ROOT / "tests" / name).is_file()] == []


def test_modules_that_are_long_say_why_and_no_others_do():
    assert len(MODULES) > 200
    sources = {str(path): (ROOT / path).read_text(encoding="utf-8") for path in MODULES}
    assert [path for path, source in sources.items() if is_long(source) != gives_a_reason(source)] == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ('"""Tables."""', False),
        ("# More than 250 lines, as it is one table.", False),
        ('"""Tables.\n\nMore than 250 lines."""', False),
        ('"""Tables.\n\nMore than 250\nlines, as they are one list."""', True),
    ],
)
def test_what_counts_as_a_reason(source, reason):
    assert gives_a_reason(source) is reason


def test_what_counts_as_long():
    assert [is_long("\n" * count) for count in (250, 251)] == [False, True]


def test_no_folder_has_many_modules():
    counts = Counter(str(path.parent) for path in MODULES)
    assert counts["metasynth/bilevel/strategies"] > 5
    assert {folder: count for folder, count in counts.items() if count > MOST_MODULES} == {}
