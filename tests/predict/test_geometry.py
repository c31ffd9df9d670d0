from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metasynth.data_prep.slicing import GROWS_TO, IN_PLANE, cut, label_box, planes
from metasynth.data_prep.volumes.resample import Grid, resample_image
from metasynth.data_prep.volumes.volumes import Volume
from support.head_phantom import head_labels

from metasynth.errors import DataError
from metasynth.predict.geometry import Window, resample_share, stack_orientation, turned, turned_back

ORIENTATIONS = [
    "".join(pair[sign] for pair, sign in zip(order, signs, strict=True))
    for order in permutations(("RL", "AP", "SI"))
    for signs in product((0, 1), repeat=3)
]


@pytest.mark.parametrize("axis", ["coronal", "axial", "sagittal"])
def test_a_stack_is_the_planes_that_caches_are_made_of(axis):
    volume = Volume(head_labels(), np.diag([1.0, 2.0, 3.0, 1.0]), "here")
    orientation = stack_orientation(IN_PLANE[axis])
    assert orientation == GROWS_TO[axis] + IN_PLANE[axis]
    np.testing.assert_array_equal(turned(volume, orientation).data, planes(volume.data, axis))


@given(st.sampled_from(ORIENTATIONS), st.sampled_from(ORIENTATIONS), st.integers(0, 2**32 - 1))
def test_voxels_keep_their_place_and_come_back(stored, wanted, seed):
    rng = np.random.default_rng(seed)
    oblique = np.eye(4)
    oblique[:3, :3] = np.diag([1.0, 2.0, 3.0]) + rng.uniform(-0.1, 0.1, (3, 3))
    oblique[:3, 3] = rng.uniform(-50, 50, 3)
    volume = turned(Volume(rng.random((3, 4, 5)), oblique, "here"), stored)
    there = turned(volume, wanted)
    np.testing.assert_array_equal(turned_back(there.data, volume.affine, wanted), volume.data)
    for at in ((0, 0, 0), (1, 2, 1)):
        point = there.affine @ [*at, 1]
        index = np.linalg.inv(volume.affine) @ point
        assert there.data[at] == volume.data[tuple(index[:3].round().astype(int))]


@pytest.mark.parametrize("letters", ["", "I", "IS", "XR", "AIRR", "AIX"])
def test_an_orientation_that_is_none(letters):
    with pytest.raises(DataError, match="expected two or three letters of RL, AP and SI"):
        stack_orientation(letters)


@st.composite
def contents(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = tuple(rng.integers(1, 12, 3))
    content = np.zeros(shape, dtype=bool)
    content[tuple(rng.integers(0, shape))] = True
    content |= rng.random(shape) < 0.05
    return content, tuple(int(n) for n in rng.integers(1, 20, 3)), draw(st.sampled_from([1, 2, 4]))


@given(contents())
def test_a_window_is_cut_as_the_items_of_a_cache_and_holds_all_of_the_content(given):
    content, least, divisor = given
    window = Window.about(content, least, [divisor] * 3)
    assert all(n % divisor == 0 and n >= low for n, low in zip(window.shape, least, strict=True))
    stack = np.arange(1, content.size + 1).reshape(content.shape)
    box = label_box(content[None].astype(np.uint8))
    np.testing.assert_array_equal(window.take(stack), cut(stack[None], box, window.shape)[0])
    back = window.put(window.take(stack), stack.shape, around=-1)
    np.testing.assert_array_equal(back[content], stack[content])
    assert set(np.unique(back[back != stack])) <= {-1}


def test_a_window_is_no_larger_than_asked_for_where_the_content_fits():
    content = np.zeros((20, 20, 20), dtype=bool)
    content[3:9, 5:6, 0:18] = True
    window = Window.about(content, (1, 8, 16), (1, 4, 4))
    assert window == Window((3, 1, -1), (6, 8, 20))


def grids(factor):
    """The matrix and grid of voxels `factor` times as large over the field of 12 voxels a side."""
    n = round(12 / factor)
    affine = np.diag([factor, factor, factor, 1.0])
    affine[:3, 3] = (factor - 1) / 2
    return affine, Grid((n, n, n), affine)


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.5, 3.0])
def test_shares_go_on_at_the_border_and_add_up_to_1(factor):
    matrix, grid = grids(factor)
    rng = np.random.default_rng(0)
    shares = rng.dirichlet([0.3, 0.3, 0.3], size=(12, 12, 12)).astype(np.float32)
    resampled = [resample_share(shares[..., k], matrix, grid) for k in range(3)]
    np.testing.assert_allclose(sum(resampled), 1.0, atol=1e-5)
    np.testing.assert_allclose(resample_share(np.full((12, 12, 12), 0.3, np.float32), matrix, grid), 0.3, rtol=1e-5)
    inner = (slice(2, -2),) * 3 if factor < 3 else (slice(1, -1),) * 3
    np.testing.assert_allclose(
        resampled[0][inner], resample_image(np.ascontiguousarray(shares[..., 0]), matrix, grid)[inner], atol=1e-5
    )
