import nibabel as nib
import numpy as np
import pytest
from head_phantom import head_image, head_labels, save
from metasynth.data_prep.volumes import (
    check_affine,
    read_image,
    read_labels,
    require_same_grid,
    scale,
    to_ras,
)

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
