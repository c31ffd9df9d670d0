import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metasynth.segment.metrics import hausdorff_distance


def surface(mask):
    """Coordinates (N, ndim) of the voxels of a structure that have a neighbour outside it, one by one."""
    found = []
    for at in product(*map(range, mask.shape)):
        for axis, step in product(range(mask.ndim), (-1, 1)):
            near = list(at)
            near[axis] += step
            inside = 0 <= near[axis] < mask.shape[axis] and mask[tuple(near)]
            if mask[at] and not inside:
                found.append(at)
                break
    return np.array(found, dtype=float).reshape(-1, mask.ndim)


def by_hand(a, b, spacing, percentile):
    a, b = (surface(mask) * spacing for mask in (a, b))
    distances = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    return max(np.percentile(distances.min(axis), percentile) for axis in (0, 1))


@st.composite
def structures(draw):
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    masks = [rng.random(shape) < draw(st.sampled_from([0.05, 0.3, 0.8])) for _ in range(2)]
    for mask in masks:
        mask.flat[draw(st.integers(0, mask.size - 1))] = True
    return (*masks, rng.uniform(0.3, 3.0, len(shape)).tolist())


@given(structures(), st.sampled_from([0.0, 50.0, 95.0, 100.0]))
def test_it_is_that_of_all_pairs_of_surface_voxels(given, percentile):
    a, b, spacing = given
    expected = by_hand(a, b, spacing, percentile)
    assert hausdorff_distance(a, b, spacing, percentile) == pytest.approx(expected, rel=1e-12)
    assert hausdorff_distance(b, a, spacing, percentile) == pytest.approx(expected, rel=1e-12)
    assert hausdorff_distance(a, a, spacing, percentile) == 0.0


def test_a_shift_by_hand():
    a, b = np.zeros((9, 9, 9), dtype=bool), np.zeros((9, 9, 9), dtype=bool)
    a[2:5, 2:5, 2:5] = True
    b[4:7, 2:5, 2:5] = True
    assert hausdorff_distance(a, b, (1.5, 1.0, 1.0), 100) == 3.0


def test_a_few_far_voxels_do_not_matter_to_the_95th():
    a = np.zeros((40, 40), dtype=bool)
    a[5:25, 5:25] = True
    b = a.copy()
    b[39, 39] = True
    assert hausdorff_distance(a, b, (1.0, 1.0)) == 0.0
    assert hausdorff_distance(a, b, (1.0, 1.0), 100) == pytest.approx(math.hypot(15, 15))


def test_empty_structures():
    empty, full = np.zeros((3, 3), dtype=bool), np.ones((3, 3), dtype=bool)
    assert math.isnan(hausdorff_distance(empty, empty, (1, 1)))
    assert hausdorff_distance(empty, full, (1, 1)) == math.inf
    assert hausdorff_distance(full, empty, (1, 1)) == math.inf


@pytest.mark.parametrize(
    ("message", "shape", "spacing", "percentile"),
    [
        (r"^predicted: must have the shape of true, \(3, 3\), got \(2, 3\)$", (2, 3), (1, 1), 95),
        (r"^spacing: must be 2 numbers above 0, got \(1,\)$", (3, 3), (1,), 95),
        (r"^spacing: must be 2 numbers above 0, got \(1, 0\)$", (3, 3), (1, 0), 95),
        (r"^percentile: must be from 0 to 100, got 101$", (3, 3), (1, 1), 101),
    ],
)
def test_bad_input(message, shape, spacing, percentile):
    with pytest.raises(ValueError, match=message):
        hausdorff_distance(np.ones(shape, dtype=bool), np.ones((3, 3), dtype=bool), spacing, percentile)
