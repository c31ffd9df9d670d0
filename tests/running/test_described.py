"""Lines on settings are read from numpydoc docstrings."""

from dataclasses import dataclass, field
from typing import Literal

import pytest
from metasynth.experiments.comparison.settings import TestCache

from metasynth.augment.noise import NoiseLevel
from metasynth.running.settings.arguments import Arguments
from metasynth.running.settings.described import Setting, field_lines, list_settings
from metasynth.running.settings.values import parse, to_text


@dataclass(frozen=True)
class Inner:
    """A group.

    Parameters
    ----------
    rate : float
        How fast.
    """

    rate: float = 0.5


@dataclass(frozen=True)
class Base:
    """Settings.

    Attributes
    ----------
    steps, tasks : int
        How many of
        each, see `there`. Not shown.
    kind : {'a', 'b'}
        Which of ``a`` and ``b`` (e.g. a; Isensee et al. 2021): the first. 0: none.
    inner :
        See the class.

    Raises
    ------
    ValueError
        Never.
    """

    steps: int = 3
    tasks: int = 4
    kind: Literal["a", "b"] = "a"
    inner: Inner = field(default_factory=Inner)


@dataclass(frozen=True)
class Derived(Base):
    """More.

    Attributes
    ----------
    kind : {'a', 'b'}
        Here another.
    names : tuple of str
        Whose.
    """

    names: tuple[str, ...] = field(default=("x",), metadata={"choices": ("x", "y")})
    bare: float | None = None


@dataclass(frozen=True)
class Again(Derived):
    names: tuple[str, ...] = ("y",)


def test_lines_are_first_sentences_and_inherited():
    assert field_lines(Base) == {
        "steps": "How many of each, see there.",
        "tasks": "How many of each, see there.",
        "kind": "Which of a and b (e.g. a; Isensee et al. 2021): the first. 0: none.",
        "inner": "See the class.",
    }
    assert field_lines(Again) == {**field_lines(Base), "kind": "Here another.", "names": "Whose."}
    assert field_lines(int) == {}


def test_settings_are_listed_in_order_with_what_they_may_be():
    line = "How many of each, see there."
    assert list(list_settings(Again())) == [
        Setting("steps", 3, "a whole number", (), line),
        Setting("tasks", 4, "a whole number", (), line),
        Setting("kind", "a", "one of a, b", ("a", "b"), "Here another."),
        Setting("inner.rate", 0.5, "a finite number", (), "How fast."),
        Setting("names", ("y",), "a comma-separated list, each one of x, y", ("x", "y"), "Whose."),
        Setting("bare", None, "a finite number or none", (), ""),
    ]


@pytest.mark.parametrize(
    ("hint", "value", "text"),
    [
        (int, -3, "-3"),
        (float, 0.1 + 0.2, "0.30000000000000004"),
        (float, 1e-300, "1e-300"),
        (bool, True, "true"),
        (float | None, None, "none"),
        (str, "a=b,c", "a=b,c"),
        (tuple[int, ...], (), ""),
        (tuple[float, float], (0.9, 0.95), "0.9,0.95"),
        (tuple[NoiseLevel, ...], (NoiseLevel(0.0, 0.0), NoiseLevel(0.025, 0.2)), "0.0,0.025:0.2"),
        (tuple[TestCache, ...], (TestCache("t2", "a=b.h5"),), "t2=a=b.h5"),
        (Arguments, Arguments.parse('{"channels": [8, 16]}'), '{"channels": [8, 16]}'),
    ],
)
def test_a_value_is_written_as_it_is_read(hint, value, text):
    assert to_text(value) == text
    assert parse(hint, text, "key") == value
