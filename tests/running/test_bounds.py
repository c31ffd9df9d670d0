"""Bounds of settings: which values they refuse, and in which words."""

import math
import re

import pytest

from metasynth.running.settings.bounds import require_at_least, require_distinct, require_positive


def test_values_within_their_bounds_pass():
    require_at_least(0, hidden=0, rotation=3)
    require_positive(lr=1e-300, steps=1)
    require_distinct("at least one", strategies=("unrolled", "implicit"), sigma=["0.1"])


@pytest.mark.parametrize("value", [0, 0.0, -1, math.nan])
def test_what_is_not_above_0_is_named(value):
    with pytest.raises(ValueError, match=rf"^lr must be positive, got {value}$"):
        require_positive(steps=1, lr=value)


def test_what_is_below_a_bound_is_named():
    with pytest.raises(ValueError, match=r"^workers must be at least 0, got -1$"):
        require_at_least(0, hold=0, workers=-1)


@pytest.mark.parametrize("values", [(), ("a", "b", "a")])
def test_an_empty_list_and_one_that_repeats_are_named(values):
    message = f"sigma must list at least one noise level, each once, got {values}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        require_distinct("at least one noise level", test=("a",), sigma=values)
