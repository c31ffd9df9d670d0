import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from metasynth.report.statistics import grouped, holm, interval, p_text, paired

numbers = st.lists(st.integers(-1000, 1000).map(lambda n: n / 64), min_size=2, max_size=12)


def test_an_interval_in_closed_form():
    """For two values the quantile is that of Cauchy's distribution, tan(pi (p - 1/2))."""
    found = interval([1.0, 3.0])
    assert (found.mean, found.n) == (2.0, 2)
    assert found.half == pytest.approx(math.tan(math.pi * 0.475), rel=1e-9)
    assert interval([1.0, 3.0], level=0.5).half == pytest.approx(1.0, rel=1e-9)


@given(numbers, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_an_interval_is_that_of_scipy(values, level):
    found = interval(values, level)
    assert found.mean == pytest.approx(np.mean(values))
    if len(set(values)) == 1:
        assert found.half == 0
        return
    low, high = stats.t.interval(level, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high), rel=1e-9, abs=1e-12)


def test_one_value_has_no_interval():
    assert interval([0.3]) == interval([0.3], level=0.5)
    assert (interval([0.3]).mean, interval([0.3]).half) == (0.3, None)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interval([]), "values: expected at least one number"),
        (lambda: interval([0.1, math.nan]), "values: expected finite numbers, got nan"),
        (lambda: interval([0.1], level=1.0), "level: must be between 0 and 1, got 1.0"),
        (lambda: paired([1.0], [1.0, 2.0]), "b: expected as many values as in a, 1, got 2"),
        (lambda: paired([1.0], [math.inf]), "b: expected finite numbers, got inf"),
        (lambda: paired([], []), "a: expected at least one number"),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(-100, 100), st.integers(-100, 100)), min_size=3, max_size=7))
def test_pairs_as_scipy_compares_them(pairs):
    a, b = np.array(pairs, float).T / 8
    found = paired(a, b)
    assert found.difference == interval((a - b).tolist())
    if len(set(a - b)) > 1:
        assert found.p_t == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-6, abs=1e-12)
    assert 0 <= found.p_wilcoxon <= 1


def test_the_signed_rank_test_in_closed_form():
    """Without ties all 2^n signs are equally likely, and two of them are the most extreme."""
    found = paired([0.1, 0.25, 0.45, 0.7, 1.1], [0.0] * 5)
    assert found.p_wilcoxon == pytest.approx(2 / 2**5)
    with_zero = paired([0.1, 0.25, 0.45, 0.7, 1.1, 0.5], [0.0] * 5 + [0.5])
    assert with_zero.p_wilcoxon == found.p_wilcoxon  # which is left out


def test_no_difference_is_no_evidence():
    found = paired([0.5, 0.6, 0.7], [0.5, 0.6, 0.7])
    assert (found.difference.mean, found.difference.half) == (0, 0)
    assert (found.p_t, found.p_wilcoxon) == (1, 1)


def test_the_same_difference_in_all_pairs():
    found = paired([1.5, 2.5, 3.5], [1.0, 2.0, 3.0])
    assert (found.difference.mean, found.difference.half, found.p_t) == (0.5, 0, 0)
    assert found.p_wilcoxon == pytest.approx(0.25)


def test_one_pair():
    found = paired([1.5], [1.0])
    assert (found.difference.mean, found.difference.half, found.difference.n) == (0.5, None, 1)
    assert found.p_t is None
    assert found.p_wilcoxon == 1


def test_holm():
    """Holm (1979): .01 * 4, .02 * 3 (below which none falls), .03 * 2, .04 * 1."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, None, 0.5]) == [1.0, None, 1.0]
    assert holm([0.05]) == [0.05]
    assert holm([]) == []


def test_groups_are_in_the_order_in_which_they_appear():
    assert list(grouped(["b1", "a1", "b2"], lambda text: text[0]).items()) == [("b", ["b1", "b2"]), ("a", ["a1"])]


@pytest.mark.parametrize(
    ("p", "text"), [(None, None), (0.0, "<0.0001"), (9e-5, "<0.0001"), (1e-4, "0.0001"), (0.0456, "0.046"), (1.0, "1")]
)
def test_how_a_p_is_shown(p, text):
    assert p_text(p) == text
