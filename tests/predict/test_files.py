from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from metasynth.data_prep.volumes.volumes import read_labels
from support.head_phantom import head_labels, save

from metasynth.errors import DataError, RunError
from metasynth.predict.files import output_suffix, voxel_volume_ml, write_like

LABELS = (np.arange(3 * 4 * 5) % 7).reshape(3, 4, 5).astype(np.uint8)
AFFINE = np.array([[0.1, 0.0, 2.0, -7.3], [-1.2, 0.2, 0.1, 5.0], [0.15, 1.1, 0.0, 0.25], [0, 0, 0, 1]])


def nifti(path, shape=(3, 4, 5), kind=nib.Nifti1Image, codes=(1, 4)):
    image = kind(np.linspace(0, 900, int(np.prod(shape))).reshape(shape).astype(np.float32), AFFINE)
    image.set_qform(AFFINE, codes[0], strip_shears=True)
    image.set_sform(AFFINE if codes[1] else None, codes[1])
    image.header.set_xyzt_units("mm", "sec")
    image.header["cal_max"] = 800
    image.header["descrip"] = b"a person's name"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"private"))
    image.set_data_dtype(np.int16)  # stored with a slope
    nib.save(image, path)
    return path


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("codes", [(1, 4), (1, 0), (0, 2)])
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 1)])
def test_a_label_map_has_the_geometry_of_its_scan(tmp_path, kind, codes, shape):
    scan = nib.load(nifti(tmp_path / "scan.nii", shape, kind, codes))
    write_like(tmp_path / "deep" / "seg.nii.gz", LABELS, tmp_path / "scan.nii")
    found = nib.load(tmp_path / "deep" / "seg.nii.gz")
    assert type(found) is type(scan)
    assert found.shape == shape
    np.testing.assert_array_equal(found.affine, scan.affine)
    np.testing.assert_array_equal(np.asanyarray(found.dataobj).reshape(LABELS.shape), LABELS)
    assert found.get_data_dtype() == np.uint8
    assert np.asanyarray(found.dataobj).dtype == np.uint8  # no slope
    assert found.header.get_xyzt_units() == ("mm", "sec")
    assert (int(found.header["qform_code"]), int(found.header["sform_code"])) == codes
    assert found.header.get_intent()[0] == "label"
    assert float(found.header["cal_max"]) == 0
    assert len(found.header.extensions) == 0
    assert b"person" not in found.header["descrip"].item()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_mgz(tmp_path, dtype):
    path = save(tmp_path / "orig.mgz", np.random.default_rng(0).random((3, 4, 5), dtype=np.float32), "LIA", (1, 2, 1.5))
    scan = nib.load(path)
    labels = np.arange(60).reshape(scan.shape).astype(dtype)
    assert output_suffix(path) == ".mgz"
    write_like(tmp_path / "seg.mgz", labels, path)
    found = nib.load(tmp_path / "seg.mgz")
    np.testing.assert_array_equal(found.affine, scan.affine)
    np.testing.assert_array_equal(np.asanyarray(found.dataobj), labels)
    assert found.get_data_dtype().newbyteorder("=") == dtype


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 1)])
def test_posteriors_are_a_series(tmp_path, shape):
    nifti(tmp_path / "scan.nii", shape)
    posteriors = np.random.default_rng(0).random((3, 4, 5, 6), dtype=np.float32)
    write_like(tmp_path / "p.nii.gz", posteriors, tmp_path / "scan.nii")
    found = nib.load(tmp_path / "p.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(found.dataobj), posteriors)
    np.testing.assert_array_equal(found.affine, nib.load(tmp_path / "scan.nii").affine)
    assert found.header.get_zooms()[3] == 1.0
    save(tmp_path / "scan.mgz", posteriors[..., 0])
    write_like(tmp_path / "p.mgz", posteriors, tmp_path / "scan.mgz")
    np.testing.assert_array_equal(np.asanyarray(nib.load(tmp_path / "p.mgz").dataobj), posteriors)


def test_the_same_file_twice_and_none_of_a_full_disk(tmp_path, full_disk):
    scan = nifti(tmp_path / "scan.nii")
    for name in ("a.nii.gz", "b.nii.gz"):
        write_like(tmp_path / name, LABELS, scan)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    with full_disk(), pytest.raises(RunError, match=r"c\.nii\.gz: cannot be written: No space left"):
        write_like(tmp_path / "c.nii.gz", LABELS, scan)
    assert not (tmp_path / "c.nii.gz").exists()


def test_reading_label_maps(tmp_path):
    path = save(tmp_path / "a.nii.gz", head_labels(), spacing=(1.0, 2.0, 1.5))
    labels = read_labels(path, empty=True)
    np.testing.assert_array_equal(labels.data, head_labels())
    assert voxel_volume_ml(labels) == pytest.approx(0.003)
    assert not read_labels(save(tmp_path / "b.nii", 0 * head_labels()), empty=True).data.any()
    for wrong, message in (
        (head_labels() + 0.5, r"be whole numbers, got 0\.5 and others in 63360 voxels"),
        (-head_labels(), "not be negative, got -507"),
        (np.where(head_labels() > 3, np.nan, 1.0), r"be whole numbers, got NaN or infinity in \d+ voxels"),
    ):
        with pytest.raises(DataError, match=rf"c\.nii: labels must {message}"):
            read_labels(save(tmp_path / "c.nii", wrong), empty=True)


def test_what_is_made_of_a_scan_ends_as_its_format():
    endings = {"a.mgz": ".mgz", "a.MGZ": ".mgz", "a.mgh": ".mgz", "a.nii": ".nii.gz", "A.NII.GZ": ".nii.gz"}
    assert {name: output_suffix(Path(name)) for name in endings} == endings
