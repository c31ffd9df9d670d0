import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from metasynth.data_prep.mappings import MAPPINGS
from metasynth.data_prep.volumes.align import atlas_grid
from metasynth.data_prep.volumes.resample import (
    Grid,
    grid_with_spacing,
    has_spacing,
    require_field,
    resample_classes,
    resample_ids,
    resample_image,
    resample_structures,
    to_source,
)
from metasynth.data_prep.volumes.volumes import Volume
from support.head_phantom import head_image, head_labels

from metasynth import sizes
from metasynth.errors import DataError, UsageError

CLASSES = MAPPINGS["freesurfer-4"].apply(head_labels(shape=(72, 88, 80)))


def volume(data, spacing=(1.0, 1.0, 1.0), origin=(3.0, -4.0, 5.0)):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return Volume(data, affine, "v")


def own_grid(source):
    return Grid(source.data.shape, source.affine)


@given(
    arrays.arrays(np.uint8, (4, 5, 3), elements=st.integers(0, 3)),
    st.sampled_from(["majority", "nearest"]),
)
def test_the_own_grid_changes_nothing(classes, how):
    source = volume(classes)
    grid = own_grid(source)
    np.testing.assert_array_equal(resample_classes(classes, to_source(source, grid), grid, how), classes)
    image = classes.astype(np.float32)
    np.testing.assert_allclose(resample_image(image, to_source(source, grid), grid), image, atol=1e-6)


@given(
    arrays.arrays(np.uint8, (5, 5, 5), elements=st.sampled_from([0, 2, 7])),
    st.sampled_from([0.6, 1.7, 2.0]),
    st.sampled_from(["majority", "nearest"]),
)
def test_no_class_appears_that_was_not_there(classes, spacing, how):
    source = volume(classes)
    grid = grid_with_spacing(source, (spacing,) * 3)
    out = resample_classes(classes, to_source(source, grid), grid, how)
    assert set(np.unique(out)) <= set(np.unique(classes)) | {0}


@pytest.mark.parametrize("how", ["majority", "nearest"])
def test_volumes_of_classes_are_kept(how):
    source = volume(CLASSES)
    grid = grid_with_spacing(source, (2.0, 2.0, 2.0))
    out = resample_classes(CLASSES, to_source(source, grid), grid, how)
    before = np.bincount(CLASSES.ravel(), minlength=5)[1:]
    after = 8 * np.bincount(out.ravel(), minlength=5)[1:]
    np.testing.assert_allclose(after, before, rtol=0.15)  # voting rounds small structures off


def test_the_largest_class_wins():
    classes = np.full((8, 8, 8), 3, dtype=np.uint8)
    classes[::4] = 1  # a quarter of every coarse voxel's neighbourhood
    source = volume(classes)
    grid = grid_with_spacing(source, (4.0, 4.0, 4.0))
    assert (resample_classes(classes, to_source(source, grid), grid) == 3).all()


TABLES = st.lists(st.integers(0, 2), min_size=4, max_size=4).map(lambda table: np.array([0, *table], np.uint8))


@given(
    arrays.arrays(np.uint8, (5, 6, 5), elements=st.integers(0, 4)),
    TABLES,
    st.sampled_from([0.6, 1.0, 1.7, 2.0]),
    st.sampled_from(["majority", "nearest"]),
)
def test_the_classes_of_structures_are_those_without(structures, table, spacing, how):
    source = volume(structures)
    grid = grid_with_spacing(source, (spacing,) * 3)
    matrix = to_source(source, grid)
    found = resample_structures(structures, table, matrix, grid, how)
    np.testing.assert_array_equal(table[found], resample_classes(table[structures], matrix, grid, how))
    assert set(np.unique(found)) <= set(np.unique(structures)) | {0}
    if spacing == 1.0:
        np.testing.assert_array_equal(found, structures)


def test_of_the_largest_class_the_largest_structure_wins():
    """Of every coarse voxel 4 of 10 parts are white matter; 6 are nuclei, 4 of one and 2 of another."""
    structures = np.tile(np.repeat(np.array([1, 2, 3], np.uint8), [4, 4, 2]), 4)[:, None, None]
    structures = np.ascontiguousarray(np.broadcast_to(structures, (40, 10, 10)))
    source = volume(structures)
    grid = grid_with_spacing(source, (10.0, 10.0, 10.0))
    found = resample_structures(structures, (0, 1, 2, 2), to_source(source, grid), grid)
    assert found.ravel()[1:].tolist() == [2, 2, 2]  # the first is at the edge of the field


def test_the_structures_of_the_background_are_voted_on_among_themselves():
    """Fluid has more of a coarse voxel than air has; a class that has more than either is what it is."""
    structures = np.tile(np.array([0, 1, 1, 1, 2, 2, 2, 2], np.uint8)[:, None, None], (1, 8, 8))
    source = volume(structures)
    grid = grid_with_spacing(source, (4.0, 8.0, 8.0))
    found = resample_structures(structures, (0, 0, 1), to_source(source, grid), grid)
    assert found.ravel().tolist() == [1, 2]


def test_the_grid_covers_the_field_about_its_centre():
    source = volume(np.zeros((10, 11, 12)), spacing=(1.0, 2.0, 1.5))
    grid = grid_with_spacing(source, (2.0, 2.0, 2.0))
    assert grid.shape == (5, 11, 9)
    np.testing.assert_allclose(grid.spacing, 2)
    centres = [
        v.affine[:3, :3] @ ((np.array(s) - 1) / 2) + v.affine[:3, 3]
        for v, s in ((source, (10, 11, 12)), (grid, grid.shape))
    ]
    np.testing.assert_allclose(*centres)
    assert has_spacing(source, (1.0004, 2.0, 1.5))
    assert not has_spacing(source, (1.01, 2.0, 1.5))


def test_a_linear_image_stays_linear_in_mm():
    x = np.arange(30.0, dtype=np.float32)[:, None, None] * np.ones((1, 30, 30), np.float32)
    source = volume(x)
    grid = grid_with_spacing(source, (2.0, 2.0, 2.0))
    out = resample_image(x, to_source(source, grid), grid)
    np.testing.assert_allclose(out[4:-4, 7, 7], 0.5 + 2 * np.arange(15)[4:-4], atol=1e-3)


def test_a_transform_moves_the_anatomy_where_it_says():
    source = volume(CLASSES)
    world = np.eye(4)
    world[:3, 3] = [6.0, -4.0, 2.0]
    out = resample_classes(CLASSES, to_source(source, own_grid(source), world), own_grid(source))
    np.testing.assert_array_equal(out[6:, :-4, 2:], CLASSES[:-6, 4:, :-2])


def test_noise_is_averaged_where_the_grid_is_coarser():
    ids = head_labels()
    noise = head_image(ids) - head_image(ids, seed=1)
    source = volume(noise)
    grid = grid_with_spacing(source, (2.0, 2.0, 2.0))
    brain = ids > 0
    coarse = resample_image(np.where(brain, noise, 0).astype(np.float32), to_source(source, grid), grid)
    assert coarse.std() < 0.6 * noise[brain].std()


@pytest.mark.parametrize("far", [1e5, 1e12, 1e30])
def test_a_label_map_that_lies_elsewhere_gives_nothing(far):
    labels = volume(np.full((4, 4, 4), 614_454_277), origin=(far, 0, 0))
    here = volume(np.zeros((4, 4, 4)), origin=(0, 0, 0))
    assert not resample_ids(labels, own_grid(here)).any()
    near = Grid((6, 4, 4), volume(here.data, origin=(-1, 0, 0)).affine)
    found = resample_ids(volume(labels.data, origin=(0, 0, 0)), near)
    np.testing.assert_array_equal(found[1:5], labels.data)
    assert not found[[0, 5]].any()


def test_a_grid_that_the_memory_cannot_hold_is_refused(monkeypatch):
    source = volume(np.zeros((50, 40, 30), np.float32), (20.0, 20.0, 20.0))
    monkeypatch.setattr(sizes, "available_memory", lambda: 2 << 30)
    line = "^v: a grid of 1000 x 800 x 600 voxels of 1 x 1 x 1 mm takes at least 5.4 GiB of memory; 2.0 GiB can be had$"
    with pytest.raises(DataError, match=line):
        grid_with_spacing(source, (1.0, 1.0, 1.0))
    assert grid_with_spacing(source, (2.0, 2.0, 2.0)).shape == (500, 400, 300)


SIX = volume(np.zeros((6, 6, 6), np.uint8))


def test_voxels_without_measure_are_refused():
    with pytest.raises(
        DataError, match=r"^v: a grid of 6e\+09 x 6e\+09 x 6e\+09 voxels of 1e-09 x 1e-09 x 1e-09 mm takes "
    ):
        grid_with_spacing(SIX, (1e-9,) * 3)
    with pytest.raises(DataError, match=r"^v: a grid of .* voxels of 9.99989e-321 x "):
        grid_with_spacing(SIX, (1e-320,) * 3)


@pytest.mark.parametrize("spacing", [7.0, 1e300])
def test_a_field_of_less_than_a_voxel_is_refused(spacing):
    require_field(SIX, (6.0, 6.0, 2.0))
    line = rf"^v: --spacing 1 x {re.escape(f'{spacing:g}')} x 1: the whole field is 6 x 6 x 6 mm$"
    with pytest.raises(DataError, match=line):
        require_field(SIX, (1.0, spacing, 1.0))


def test_a_single_voxel_may_fill_the_field():
    assert grid_with_spacing(SIX, (6.0, 6.0, 2.0)).shape == (1, 1, 3)


def test_spacings_without_measure_of_aligned_volumes_are_refused():
    with pytest.raises(UsageError, match=r"^--spacing 1e-09 x 1 x 1: a grid of 1.96e\+11 x 233 x 189 voxels takes "):
        atlas_grid((1e-9, 1.0, 1.0))
    with pytest.raises(UsageError, match=r"^--spacing 1 x 1 x 1e\+09: the template's field is 196 x 232 x 188 mm$"):
        atlas_grid((1.0, 1.0, 1e9))
    assert atlas_grid((196.0, 1.0, 1.0)).shape == (2, 233, 189)
