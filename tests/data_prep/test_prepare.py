import dataclasses
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from metasynth.data_prep.mappings import MAPPINGS
from metasynth.data_prep.options import Options
from metasynth.data_prep.prepare import prepare
from metasynth.data_prep.slicing import SliceChoice, planes
from metasynth.data_prep.sources import Scan
from metasynth.data_prep.structure_tables import STRUCTURE_NAMES
from metasynth.data_prep.structures import with_structures
from metasynth.data_prep.volumes.align import atlas_grid
from support.head_phantom import as_muse, head_image, head_labels, save

from metasynth.errors import DataError

FOUR = MAPPINGS["freesurfer-4"]
ALL = Options(FOUR, slices=SliceChoice("all"), min_content=0.0)
ORIENTATIONS = [
    "".join(pair[sign] for pair, sign in zip(order, signs, strict=True))
    for order in permutations(("RL", "AP", "SI"))
    for signs in product((0, 1), repeat=3)
]


def scan_of(folder, ids=None, orientation="RAS", image=None, **more):
    ids = head_labels() if ids is None else ids
    files = {"labels": save(folder / "seg.nii", ids, orientation, **more)}
    if image is not None:
        files["image"] = save(folder / "t1.nii", image, orientation, **more)
    return Scan("s1", **files)


@given(st.sampled_from(ORIENTATIONS), st.sampled_from(["coronal", "axial", "sagittal"]))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_slices_do_not_depend_on_how_a_file_is_stored(tmp_path, orientation, axis):
    ids = head_labels()
    scan = scan_of(tmp_path, ids, orientation, head_image(ids))
    part = prepare(scan, dataclasses.replace(ALL, axis=axis))
    np.testing.assert_array_equal(part.labels, planes(FOUR.apply(ids), axis)[part.slice_index])
    assert part.images.shape == part.labels.shape


FINE = with_structures(FOUR, "freesurfer-structures")
FLUID = STRUCTURE_NAMES.index("fluid outside the ventricles")


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"volumes": True},
        {"spacing_mm": (2.0, 1.5, 2.0)},
        {"spacing_mm": (2.0, 1.5, 2.0), "interpolation": "nearest", "axis": "sagittal"},
        {"slices": SliceChoice("around", (4,)), "min_content": 0.4},
    ],
)
def test_structures_are_of_the_same_slices_and_merge_to_the_same_classes(tmp_path, changed):
    scan = scan_of(tmp_path, image=head_image(head_labels()))
    plain, fine = (prepare(scan, dataclasses.replace(ALL, mapping=m, **changed)) for m in (FOUR, FINE))
    assert plain.slice_index.tolist() == fine.slice_index.tolist()
    np.testing.assert_array_equal(FINE.classes_of(fine.labels), plain.labels)
    np.testing.assert_array_equal(fine.images, plain.images)
    fluid = fine.labels == FLUID
    assert fluid.any()
    assert (plain.labels[fluid] == 0).all()


@pytest.mark.parametrize("volumes", [False, True])
def test_class_volumes_are_those_counted_in_the_file(tmp_path, volumes):
    scan = scan_of(tmp_path, orientation="LIA", spacing=(1.0, 2.0, 1.5))
    part = prepare(scan, dataclasses.replace(ALL, volumes=volumes))
    counted = np.asarray(nib.load(scan.labels).dataobj)
    for k, ids in enumerate([(2, 41, 16), (3, 42), (10, 49), (4, 43)], 1):
        assert np.count_nonzero(part.labels == k) == np.isin(counted, ids).sum()
    assert part.spacing == pytest.approx((2.0, 1.5, 1.0))
    assert part.labels.ndim == 4 - (not volumes)


def test_the_image_is_stripped_and_lies_under_its_labels(tmp_path):
    ids = head_labels()
    part = prepare(scan_of(tmp_path, ids, "PSR", head_image(ids)), ALL)
    brain = planes((ids > 0) & (ids != 507), "coronal")[part.slice_index]
    assert (part.images[~brain] == 0).all()
    means = [float(part.images[part.labels == k].mean(dtype=np.float64)) for k in range(1, 5)]
    assert means[0] > means[2] > means[1] > means[3]
    assert part.images.min() == 0
    assert part.images.max() == 1


def test_skull_and_all_stay_where_nothing_is_stripped(tmp_path):
    ids = head_labels()
    part = prepare(scan_of(tmp_path, ids, "RAS", head_image(ids)), dataclasses.replace(ALL, strip=False))
    image = head_image(ids)
    air, bright = np.quantile(image, 0.01), np.quantile(image, 0.99)
    bright = np.quantile(image[image > air + 0.1 * (bright - air)], 0.99)
    expected = np.clip((image - air) / (bright - air), 0, 1)
    np.testing.assert_allclose(part.images, planes(expected, "coronal")[part.slice_index], atol=1e-3)


@pytest.mark.parametrize("resample", [False, True])
def test_image_labels_and_mask_may_be_stored_in_three_ways(tmp_path, resample):
    ids = head_labels()
    files = {
        "labels": save(tmp_path / "seg.nii", ids, "LPS"),
        "image": save(tmp_path / "t1.nii", head_image(ids), "LAS"),
        "mask": save(tmp_path / "mask.nii", (ids > 0).astype(np.uint8), "PSR"),
    }
    options = dataclasses.replace(ALL, resample_labels=resample)
    part = prepare(Scan("s", **files), options)
    same = {
        name: save(tmp_path / f"ras-{name}.nii", nib.as_closest_canonical(nib.load(path)).get_fdata())
        for name, path in files.items()
    }
    expected = prepare(Scan("s", **same), options)
    np.testing.assert_array_equal(part.labels, expected.labels)
    np.testing.assert_array_equal(part.images, expected.images)


def test_a_mask_of_its_own_decides_about_the_brain(tmp_path):
    ids = head_labels()
    scan = scan_of(tmp_path, ids, "LAS", head_image(ids))
    white = np.isin(ids, (2, 41)).astype(np.uint8)
    scan = dataclasses.replace(scan, mask=save(tmp_path / "mask.nii", white, "LAS"))
    part = prepare(scan, ALL)
    assert (part.images[part.labels != 1] == 0).all()
    assert (part.labels == 2).any()


def test_two_atlases_of_one_anatomy_give_one_part(tmp_path):
    ids = head_labels()
    a = prepare(scan_of(tmp_path / "a", ids, "LIA", head_image(ids)), ALL)
    b = prepare(
        scan_of(tmp_path / "b", as_muse(ids), "PSR", head_image(ids)),
        dataclasses.replace(ALL, mapping=MAPPINGS["muse-4"]),
    )
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.images, b.images)


def test_slices_are_taken_around_the_middle_of_the_brain(tmp_path):
    ids = head_labels()
    options = dataclasses.replace(ALL, slices=SliceChoice("around", (5,)), every_mm=3.0)
    part = prepare(scan_of(tmp_path, ids, spacing=(1.0, 1.5, 1.0)), options)
    at = np.flatnonzero(FOUR.apply(ids).any(axis=(0, 2)))
    middle = (at[0] + at[-1]) / 2
    np.testing.assert_array_equal(np.diff(part.slice_index), 2)
    assert abs(part.slice_index.mean() - middle) <= 0.5


def test_another_spacing(tmp_path):
    ids = head_labels()
    part = prepare(
        scan_of(tmp_path, ids, "LIA", head_image(ids)), dataclasses.replace(ALL, spacing_mm=(2.0,) * 3, volumes=True)
    )
    assert part.labels.shape == (1, 22, 20, 18)
    assert part.spacing == (2.0, 2.0, 2.0)
    before = np.bincount(FOUR.apply(ids).ravel(), minlength=3)[1:3]
    np.testing.assert_allclose(8 * np.bincount(part.labels.ravel())[1:3], before, rtol=0.06)
    assert part.images.max() <= 1
    inside = part.images[part.labels == 1]
    assert np.median(inside) > 0.8


def test_labels_of_another_grid_are_refused_or_resampled(tmp_path):
    ids = head_labels()
    image = save(tmp_path / "t1.nii", head_image(ids), "LIA")
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [-9.5, 5.5, -19.5]
    labels = save(tmp_path / "seg.nii", ids[::2, ::2, ::2].copy(), "PSR", affine=affine)
    scan = Scan("s1", labels, image)
    with pytest.raises(DataError, match=r"t1\.nii and .*seg\.nii: .*must share one grid.*--resample-labels puts"):
        prepare(scan, ALL)
    part = prepare(scan, dataclasses.replace(ALL, resample_labels=True))
    right = planes(FOUR.apply(ids), "coronal")[part.slice_index]
    assert (part.labels == right).mean() > 0.93
    assert set(np.unique(part.labels)) == set(range(5))


def test_labels_far_away_cannot_be_resampled(tmp_path):
    ids = head_labels()
    far = np.eye(4)
    far[:3, 3] = 500
    scan = Scan("s1", save(tmp_path / "seg.nii", ids, affine=far), save(tmp_path / "t1.nii", head_image(ids)))
    with pytest.raises(DataError, match=r"seg\.nii: none of its labels lies in the field of .*t1\.nii"):
        prepare(scan, dataclasses.replace(ALL, resample_labels=True))


def test_a_given_transform_puts_the_brain_into_the_templates_space(tmp_path):
    ids = head_labels()
    scan = scan_of(tmp_path, ids, "LIA", head_image(ids), spacing=(4.0, 4.0, 4.0))
    shift = np.eye(4)
    shift[:3, 3] = atlas_grid((4.0,) * 3).affine[:3, 3] + 4.0 * np.array([7, 8, 4]) - [-10.0, 5.0, -20.0]
    (tmp_path / "t.txt").write_text("\n".join(" ".join(map(str, row)) for row in shift))
    scan = dataclasses.replace(scan, transform=tmp_path / "t.txt")
    part = prepare(scan, dataclasses.replace(ALL, align="transforms", volumes=True))
    assert part.spacing == (4.0, 4.0, 4.0)
    inside = planes(FOUR.apply(ids), "coronal")
    at = np.array([8, 48 - 4 - 40, 7])  # rows run down from the top of the field
    box = tuple(slice(start, start + n) for start, n in zip(at, inside.shape, strict=True))
    np.testing.assert_array_equal(part.labels[0][box], inside)
    assert np.count_nonzero(part.labels) == np.count_nonzero(inside)
    fine = prepare(scan, dataclasses.replace(ALL, mapping=FINE, align="transforms", volumes=True))
    np.testing.assert_array_equal(fine.labels[0][box], planes(FINE.apply_structures(ids), "coronal"))
    np.testing.assert_array_equal(FINE.classes_of(fine.labels), part.labels)
    with pytest.raises(DataError, match="s1: has no transform"):
        prepare(dataclasses.replace(scan, transform=None), dataclasses.replace(ALL, align="transforms"))


def test_a_shear_is_refused_unless_the_brain_is_aligned(tmp_path):
    ids = head_labels()
    sheared = np.diag([4.0, 4.0, 4.0, 1.0])
    sheared[0, 1] = 1.0
    image = nib.Nifti1Image(ids, None)
    image.set_sform(sheared, 1)
    nib.save(image, tmp_path / "seg.nii")
    scan = Scan("s1", tmp_path / "seg.nii")
    with pytest.raises(DataError, match="axes must be at right angles"):
        prepare(scan, ALL)
    (tmp_path / "t.txt").write_text("1 0 0 -90\n0 1 0 -100\n0 0 1 -60\n")
    aligned = dataclasses.replace(ALL, align="transforms", spacing_mm=(4.0,) * 3)
    part = prepare(dataclasses.replace(scan, transform=tmp_path / "t.txt"), aligned)
    assert part.labels.any()


def test_a_subject_without_slices_that_hold_brain(tmp_path):
    scan = scan_of(tmp_path)
    with pytest.raises(DataError, match=r"seg\.nii: none of the 2 wanted slices holds labels"):
        prepare(scan, dataclasses.replace(ALL, slices=SliceChoice("range", (0, 2, 1))))


def test_the_plane_of_oasis_is_turned_upright(tmp_path):
    ids = head_labels()[:, 17]  # (left to right, inferior to superior)
    stored = MAPPINGS["freesurfer-24"].apply(ids[:, None])[:, 0][::-1, ::-1]
    for name, data in (("seg", stored), ("norm", stored.astype(np.float32) / 24)):
        nib.save(nib.Nifti1Image(data[..., None], np.diag([-1.0, 1, 1, 1])), tmp_path / f"{name}.nii.gz")
    scan = Scan("s", tmp_path / "seg.nii.gz", tmp_path / "norm.nii.gz")
    part = prepare(scan, Options(MAPPINGS["oasis-24"], flat=True))
    assert part.labels.shape == (1, 40, 36)
    assert part.slice_index.tolist() == [109]
    stem_rows = np.nonzero(part.labels[0] == 10)[0]
    assert stem_rows.mean() > 20
    assert np.nonzero(part.labels[0] == 1)[1].mean() < np.nonzero(part.labels[0] == 14)[1].mean()
    assert part.images.shape == part.labels.shape
