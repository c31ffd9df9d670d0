"""Statistics of a few runs: intervals of a mean, paired comparisons, and correction for making several."""

import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval, mean ± half.

    Attributes
    ----------
    mean : float
    half : float or None
        Half the width of the interval; None of a single value, which has none.
    n : int
        How many values.
    """

    mean: float
    half: float | None
    n: int


@dataclass(frozen=True)
class Comparison:
    """What pairs of values say about a difference.

    Attributes
    ----------
    difference : Interval
        Mean of a - b.
    p_t : float or None
        Two-sided p of Student's paired t-test; None of a single pair.
    p_wilcoxon : float
        Two-sided p of Wilcoxon's signed-rank test; pairs without a difference are left out of it.
    """

    difference: Interval
    p_t: float | None
    p_wilcoxon: float


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean and Student's t-interval: half = t_{(1 + level) / 2, n - 1} s / sqrt(n).

    Parameters
    ----------
    values : sequence of n float
        Independent values.
    level : float
        Confidence, between 0 and 1.

    Raises
    ------
    ValueError
        If there is no value, one is not finite, or the level is none.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: must be between 0 and 1, got {level}")
    array = _finite("values", values)
    mean, n = float(array.mean()), len(array)
    if n == 1:
        return Interval(mean, None, n)
    return Interval(mean, float(stdtrit(n - 1, (1 + level) / 2)) * _standard_error(array), n)


def paired(a: Sequence[float], b: Sequence[float]) -> Comparison:
    """Compare ``a`` with ``b``, value by value.

    Without any difference both p are 1; with the same difference in all of several pairs, p of the t-test is 0.

    Parameters
    ----------
    a : sequence of n float
        First values.
    b : sequence of n float
        Those they are compared with.

    Raises
    ------
    ValueError
        If the lengths differ, there is no pair, or a value is not finite.
    """
    if len(a) != len(b):
        raise ValueError(f"b: expected as many values as in a, {len(a)}, got {len(b)}")
    differences = _finite("a", a) - _finite("b", b)
    return Comparison(interval(differences.tolist()), _p_student(differences), _p_wilcoxon(differences))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p of tests that are shown together: the probability of any false finding is kept.

    The i-th smallest of m is multiplied by m - i + 1 and raised to those before it. None stays and does not count.
    """
    known = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, at) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[at] = largest
    return adjusted


def p_text(p: float | None) -> str | None:
    """A p as tables have it: two digits, and no more zeros than can be told apart."""
    if p is None:
        return None
    return "<0.0001" if p < 1e-4 else f"{p:.2g}"


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Items by a key, in order of appearance."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _finite(name: str, values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name}: expected at least one number, got {values!r}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got {array[~np.isfinite(array)][0]}")
    return array


def _standard_error(array: NDArray[np.float64]) -> float:
    return float(array.std(ddof=1)) / math.sqrt(len(array))


def _p_student(differences: NDArray[np.float64]) -> float | None:
    if len(differences) == 1:
        return None
    if not differences.any():
        return 1.0
    error = _standard_error(differences)
    if error == 0:
        return 0.0
    return float(2 * stdtr(len(differences) - 1, -abs(differences.mean()) / error))


def _p_wilcoxon(differences: NDArray[np.float64]) -> float:
    from scipy.stats import wilcoxon  # half a second, which no run needs

    unequal = differences[differences != 0]
    if not len(unequal):
        return 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a normal approximation of few tied ranks is one
        return float(wilcoxon(unequal).pvalue)
