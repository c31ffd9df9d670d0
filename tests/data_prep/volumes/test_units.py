"""Affines in other units than mm, by the header or by what the user says."""

import nibabel as nib
import numpy as np
import pytest
from metasynth.data_prep.mappings import MAPPINGS
from metasynth.data_prep.options import Options
from metasynth.data_prep.prepare import prepare
from metasynth.data_prep.sources import Scan
from metasynth.data_prep.volumes.units import scaled_note
from metasynth.data_prep.volumes.volumes import read_image, read_labels
from support.head_phantom import head_image, head_labels

from metasynth.errors import DataError

IN_MM = np.array([[0.0, 0, 2.0, -7.5], [-1.0, 0, 0, 5], [0, 1.5, 0, 2], [0, 0, 0, 1]])


def save_in(path, data, unit, per_mm, code=None, kind=nib.Nifti1Image):
    """A file whose affine is `IN_MM`, written in another unit."""
    affine = IN_MM.copy()
    affine[:3] *= per_mm
    image = kind(data, affine)
    image.header["xyzt_units"] = (0 if unit is None else nib.nifti1.unit_codes.code[unit]) if code is None else code
    nib.save(image, path)
    return path


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize(
    ("unit", "per_mm", "scaled_from"), [("micron", 1000, "um"), ("meter", 0.001, "m"), ("mm", 1, None), (None, 1, None)]
)
def test_affines_are_brought_to_mm(tmp_path, kind, unit, per_mm, scaled_from):
    path = save_in(tmp_path / "a.nii", head_labels(), unit, per_mm, kind=kind)
    for volume in (read_image(path), read_labels(path)):
        np.testing.assert_allclose(volume.affine, IN_MM, rtol=1e-6)
        assert volume.scaled_from == scaled_from


def test_units_of_time_and_codes_that_are_none_do_not_matter(tmp_path):
    assert read_image(save_in(tmp_path / "a.nii", head_labels(), None, 1000, code=3 + 8)).scaled_from == "um"
    np.testing.assert_allclose(read_image(save_in(tmp_path / "b.nii", head_labels(), None, 1, code=5)).affine, IN_MM)


@pytest.mark.parametrize(("unit", "per_mm"), [("um", 1000), ("m", 0.001), ("mm", 1)])
@pytest.mark.parametrize("header", ["mm", "micron", "meter", None])
def test_what_the_user_says_overrides_the_header(tmp_path, unit, per_mm, header):
    volume = read_labels(save_in(tmp_path / "a.nii", head_labels(), header, per_mm), unit)
    np.testing.assert_allclose(volume.affine, IN_MM, rtol=1e-6)
    assert volume.scaled_from is None


@pytest.mark.parametrize(
    ("unit", "per_mm", "message"),
    [
        (None, 1000, "1000 x 1500 x 2000 mm (its header names no unit, mm is assumed)"),
        (None, 0.001, "0.001 x 0.0015 x 0.002 mm (its header names no unit, mm is assumed)"),
        ("mm", 1000, "1000 x 1500 x 2000 mm (mm by its header)"),
        ("meter", 1, "1000 x 1500 x 2000 mm (metres by its header)"),
        ("micron", 1, "0.001 x 0.0015 x 0.002 mm (micrometres by its header)"),
    ],
)
def test_voxels_that_no_brain_scan_has_need_a_unit(tmp_path, unit, per_mm, message):
    path = save_in(tmp_path / "a.nii", head_labels(), unit, per_mm)
    for read in (read_image, read_labels):
        with pytest.raises(DataError) as error:
            read(path)
        assert str(error.value) == (
            f"{path}: expected voxels of 0.05 to 20 mm, got {message}; --units mm, um or m says what its affine is in"
        )
    assert read_image(path, "mm").spacing == pytest.approx(per_mm * np.array([1, 1.5, 2]))


@pytest.mark.parametrize("size", [0.05, 20.0])
def test_the_bounds_are_inside(tmp_path, size):
    nib.save(nib.Nifti1Image(head_labels(), np.diag([size, size, size, 1])), tmp_path / "a.nii")
    assert read_image(tmp_path / "a.nii").spacing == pytest.approx([size] * 3)


def test_files_of_freesurfer_are_in_mm(tmp_path):
    affine = IN_MM.copy()
    affine[:3] *= 1000
    nib.save(nib.MGHImage(head_labels(), affine), tmp_path / "a.mgz")
    with pytest.raises(DataError, match=r"got 1000 x 1500 x 2000 mm \(mm by its header\)"):
        read_labels(tmp_path / "a.mgz")
    np.testing.assert_allclose(read_labels(tmp_path / "a.mgz", "um").affine, IN_MM, rtol=1e-5)


def test_image_and_label_map_in_two_units_are_one_subject(tmp_path):
    ids = head_labels()
    files = {
        "image": save_in(tmp_path / "t1.nii", head_image(ids), "micron", 1000),
        "labels": save_in(tmp_path / "seg.nii", ids, "mm", 1),
    }
    part = prepare(Scan("s", **files), Options(MAPPINGS["freesurfer-4"], volumes=True))
    assert part.scaled_from == ("um",)
    assert sorted(part.spacing) == pytest.approx([1, 1.5, 2])


def test_a_note_names_a_few():
    assert scaled_note([]) == []
    assert scaled_note([("a", "um"), ("b", "m"), ("c", "um")]) == [
        "affines in metres by their headers, brought to mm: b",
        "affines in micrometres by their headers, brought to mm: a, c",
    ]
    many = scaled_note([(f"s{i}", "um") for i in range(9)])
    assert many == ["affines in micrometres by their headers, brought to mm: s0, s1, s2 and 6 more"]
