import nibabel as nib
import numpy as np
import pytest
from metasynth.data_prep.scaling import scale
from metasynth.data_prep.volumes.volumes import (
    Volume,
    check_affine,
    matched,
    read_image,
    read_labels,
    require_same_grid,
    to_ras,
)
from support.head_phantom import head_image, head_labels, save

from metasynth.errors import DataError


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgz"])
def test_formats(tmp_path, name):
    ids = head_labels()
    volume = to_ras(read_labels(save(tmp_path / name, ids, "LIA")))
    np.testing.assert_array_equal(volume.data, ids)
    np.testing.assert_allclose(volume.affine[:3, 3], [-10, 5, -20])


def test_labels_stored_as_floats_are_read(tmp_path):
    volume = read_labels(save(tmp_path / "a.nii", head_labels().astype(np.float32)))
    np.testing.assert_array_equal(volume.data, head_labels())


def test_a_last_axis_of_length_1_is_dropped_and_series_are_refused(tmp_path):
    data = head_image(head_labels())
    nib.save(nib.Nifti1Image(data[..., None], np.eye(4)), tmp_path / "one.nii")
    assert read_image(tmp_path / "one.nii").data.shape == data.shape
    nib.save(nib.Nifti1Image(np.stack([data, data], -1), np.eye(4)), tmp_path / "two.nii")
    with pytest.raises(DataError, match=r"two\.nii: expected one volume of 3 dimensions, got shape 36 x 44 x 40 x 2"):
        read_image(tmp_path / "two.nii")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a * 0, "holds no label above 0"),
        (lambda a: a - 1, "labels must not be negative, got -1; ids beyond the file's type overflow so"),
        (lambda a: a * 1e9, "labels must fit 32 bits"),
        (lambda a: a + 0.5, r"labels must be whole numbers, got 0\.5 and others"),
        (lambda a: np.where(a == 2, np.nan, a), "labels must be whole numbers, got NaN or infinity in"),
        (lambda a: np.where(a == 2, np.inf, a), "labels must be whole numbers, got NaN or infinity in"),
    ],
)
def test_values_that_are_no_labels(tmp_path, change, message):
    path = save(tmp_path / "a.nii.gz", change(head_labels().astype(np.float64)))
    with pytest.raises(DataError, match=rf"a\.nii\.gz: {message}"):
        read_labels(path)


def test_ids_that_overflowed_their_type_are_noticed(tmp_path):
    path = save(tmp_path / "a.nii.gz", (head_labels() + 32_700).astype(np.int16))
    with pytest.raises(DataError, match="overflow"):
        read_labels(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_labels_that_were_scaled_when_they_were_saved(tmp_path, dtype):
    ids = head_labels() % 100  # a step of .39 in 8 bits
    image = nib.Nifti1Image(ids.astype(np.float32), np.eye(4))
    image.set_data_dtype(dtype)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.nii").data, ids)


@pytest.mark.parametrize(("off", "fine"), [(1e-4, True), (-9e-4, True), (2e-3, False), (-0.25, False)])
def test_labels_are_rounded_within_a_thousandth(tmp_path, off, fine):
    ids = np.where(head_labels() == 16, 6 + off, head_labels())
    path = save(tmp_path / "a.nii", ids)
    if fine:
        assert (read_labels(path).data[head_labels() == 16] == 6).all()
    else:
        n = int((head_labels() == 16).sum())
        with pytest.raises(
            DataError, match=rf"a\.nii: labels must be whole numbers, got {6 + off!r} and others in {n} v"
        ):
            read_labels(path)


def test_a_value_that_is_nearly_whole_is_shown_in_full(tmp_path):
    path = save(tmp_path / "a.nii", np.full((2, 2, 2), np.float32(3.0012345)))
    with pytest.raises(DataError, match=r"whole numbers, got 3\.001234531402588 and others in 8 voxels"):
        read_labels(path)


def test_steps_that_are_too_coarse_to_tell_are_refused(tmp_path):
    image = nib.Nifti1Image(np.arange(1001, dtype=np.float32).reshape(7, 11, 13), np.eye(4))
    image.set_data_dtype(np.uint8)
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(DataError, match=r"whole numbers, got \d+\.\d+ and others"):
        read_labels(tmp_path / "a.nii")


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.float64])
def test_large_ids_are_exact(tmp_path, dtype):
    ids = np.array([0, 20_000_000, 20_000_001, 614_454_277, 2**31 - 1, 1, 2, 3], dtype=dtype).reshape(2, 2, 2)
    np.testing.assert_array_equal(read_labels(save(tmp_path / "a.nii.gz", ids)).data, ids.astype(np.int64))


def test_ids_beyond_what_a_type_tells_apart_are_refused(tmp_path):
    ids = np.full((2, 2, 2), 20_000_001)
    path = save(tmp_path / "a.nii", ids.astype(np.float32))
    message = r"labels from 16777216 on cannot be told apart as float32, got 20000000\.0; save them as integers"
    with pytest.raises(DataError, match=message):
        read_labels(path)
    assert (read_labels(save(tmp_path / "a.nii", np.full((2, 2, 2), 2**24 - 1, np.float32))).data == 2**24 - 1).all()
    with pytest.raises(DataError, match="labels must fit 32 bits, got 2147483648"):
        read_labels(save(tmp_path / "a.nii", (ids * 0 + 2**31).astype(np.uint32)))


def turned_volume(volume, orientation):
    """The same voxels, stored another way."""
    wanted = nib.orientations.axcodes2ornt(tuple(orientation))
    turn = nib.orientations.ornt_transform(nib.orientations.io_orientation(volume.affine), wanted)
    data = nib.orientations.apply_orientation(volume.data, turn)
    return Volume(data, volume.affine @ nib.orientations.inv_ornt_aff(turn, volume.data.shape), volume.where)


@pytest.mark.parametrize("degrees", [0, 20, 45])
@pytest.mark.parametrize("orientation", ["LPS", "PSR", "IAL"])
def test_volumes_match_however_they_are_stored(degrees, orientation):
    turn = np.deg2rad(degrees)  # about one axis; at 45 degrees none is nearer to that of the body
    affine = np.diag([-1.0, 1.2, 2.0, 1.0])
    affine[:2, :2] @= [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    image = Volume(head_labels(), affine, "image")
    other = turned_volume(image, orientation)
    rounded = Volume(other.data, other.affine * (1 + 1e-7), "labels")
    found = matched(rounded, image)
    np.testing.assert_array_equal(found.data, image.data)
    np.testing.assert_array_equal(found.affine, image.affine)
    assert found.where == "labels"
    shifted = rounded.affine.copy()
    shifted[:3, 3] += 0.1
    assert matched(Volume(other.data, shifted, "labels"), image) is None
    assert matched(Volume(other.data[1:], other.affine, "labels"), image) is None


def test_a_truncated_file(tmp_path):
    path = save(tmp_path / "a.nii.gz", head_labels())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"a\.nii\.gz: is truncated, damaged or no NIfTI or MGH file"):
        read_labels(path)


def test_a_file_of_another_kind_and_a_missing_one(tmp_path):
    (tmp_path / "a.nii").write_text("no volume")
    with pytest.raises(DataError, match="is truncated, damaged or no NIfTI"):
        read_image(tmp_path / "a.nii")
    with pytest.raises(DataError, match=r"b\.nii: the file is missing"):
        read_image(tmp_path / "b.nii")


def test_voxels_of_no_size(tmp_path):
    with pytest.raises(DataError, match="voxels must have a size above 0 along every axis, got 1 x 0 x 1 mm"):
        check_affine(read_labels(_with_affine(tmp_path, np.diag([1.0, 0.0, 1.0, 1.0]))))


def test_a_place_that_no_number_is_exact_at(tmp_path):
    affine = np.eye(4)
    affine[1, 3] = 1e30
    with pytest.raises(DataError, match=r"seg\.nii: its first voxel lies farther away than a kilometre: \[1 0 0 0; "):
        check_affine(read_labels(_with_affine(tmp_path, affine)))
    affine[1, 3] = -1e6
    check_affine(read_labels(_with_affine(tmp_path, affine)))


def test_shears(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = np.tan(np.deg2rad(20))
    volume = read_labels(_with_affine(tmp_path, affine))
    with pytest.raises(DataError, match=r"axes must be at right angles, got 70\.0 degrees between axes 0 and 1"):
        check_affine(volume)
    check_affine(volume, allow_shear=True)
    affine[:, 1] = affine[:, 0]
    with pytest.raises(DataError, match="two axes of its affine are parallel"):
        check_affine(read_labels(_with_affine(tmp_path, affine)), allow_shear=True)


def test_oblique_axes_are_orthogonal(tmp_path):
    turn = np.deg2rad(12)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    check_affine(read_labels(_with_affine(tmp_path, affine)))


def test_two_grids_are_both_said(tmp_path):
    ids = head_labels()
    labels = read_labels(save(tmp_path / "seg.nii", ids))
    require_same_grid(read_image(save(tmp_path / "t1.nii", head_image(ids))), labels)
    other = read_image(save(tmp_path / "t1.nii", head_image(ids)[1:]))
    with pytest.raises(
        DataError, match=r"t1\.nii and .*seg\.nii: .*got shapes 35 x 44 x 40 and 36 x 44 x 40; --resample-labels"
    ):
        require_same_grid(other, labels)
    other = read_image(save(tmp_path / "t1.nii", head_image(ids), spacing=(1.0, 1.0, 1.1)))
    with pytest.raises(
        DataError, match=r"affines that differ by 3\.9 mm at a corner: \[1 0 0 -10; .*1\.1 -20\] and \["
    ):
        require_same_grid(other, labels)


def test_scaling_is_robust_and_of_the_mask_alone():
    ids = head_labels()
    image, mask = head_image(ids), (ids > 0) & (ids != 507)
    out = scale(image, mask, "t1")
    assert out.min() == 0
    assert out.max() == 1
    assert (out[~mask] == 0).all()
    inside = image[mask]
    low, high = np.percentile(inside, [1, 99])
    middle = (inside > low) & (inside < high)
    np.testing.assert_allclose(out[mask][middle], (inside[middle] - low) / (high - low), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scale(1000 + 7 * image, mask, "t1"), out, atol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_are_refused_in_the_brain_alone(tmp_path, value):
    ids = head_labels()
    image, mask = head_image(ids).astype(np.float64), (ids > 0) & (ids != 507)
    at = tuple(int(n) for n in np.argwhere(mask)[7])
    image[~mask] = value
    scale(read_image(save(tmp_path / "t1.nii", image)).data, mask, "t1")
    image[at] = value
    broken = read_image(save(tmp_path / "t1.nii", image))
    with pytest.raises(
        DataError, match=rf"t1: 1 of {mask.sum()} voxels are NaN, .* first at \({at[0]}, {at[1]}, {at[2]}\)"
    ):
        scale(broken.data, mask, "t1")


def test_an_image_without_contrast():
    with pytest.raises(DataError, match="t1: has no contrast, its 1 and 99 % quantiles are both 5"):
        scale(np.full((4, 4, 4), 5, np.float32), np.ones((4, 4, 4), bool), "t1")


def _with_affine(folder, affine):
    """A file whose header holds any affine, even one nibabel would not take apart."""
    image = nib.Nifti1Image(head_labels(), np.eye(4))
    image.header["sform_code"], image.header["qform_code"] = 1, 0
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        image.header[name] = affine[row]
    path = folder / "seg.nii"
    with path.open("wb") as file:
        image.header["vox_offset"] = 352
        image.header.write_to(file)
        file.write(b"\0" * (352 - file.tell()))
        file.write(head_labels().tobytes(order="F"))
    return path
