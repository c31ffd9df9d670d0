import gzip
from pathlib import Path

import pytest
from metasynth.data_prep.label_tables import STRUCTURES_24
from metasynth.data_prep.layouts import bids_scans, check_oasis_table, freesurfer_scans, oasis2d_scans
from metasynth.data_prep.sources import Sources

from metasynth.errors import DataError, UsageError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_freesurfer(tmp_path):
    xfm = "mri/transforms/talairach.xfm"
    touch(tmp_path, "bert/mri/norm.mgz", "bert/mri/aseg.mgz", f"bert/{xfm}", "ernie/mri/aseg.mgz", f"ernie/{xfm}")
    touch(tmp_path, "fsaverage/mri/aseg.mgz", "logs/recon.log", "bert/mri/aparc+aseg.mgz")
    sources = freesurfer_scans(tmp_path, "norm", "aparc+aseg", xfm)
    (scan,) = sources.scans
    assert (scan.name, scan.image.name, scan.labels.name) == ("bert", "norm.mgz", "aparc+aseg.mgz")
    assert scan.transform == tmp_path / "bert" / xfm
    ((name, reason),) = sources.left_out
    assert name == "ernie"
    assert reason.startswith("missing: ")
    assert "norm.mgz" in reason
    assert [s.name for s in freesurfer_scans(tmp_path, None, "aseg").scans] == ["bert", "ernie"]
    with pytest.raises(UsageError, match="expected FreeSurfer subjects"):
        freesurfer_scans(tmp_path / "logs", "norm", "aseg")


def test_oasis_in_two_dimensions(tmp_path):
    touch(tmp_path, *(f"OASIS_OAS1_000{i}_MR1/slice_{n}.nii.gz" for i in (1, 2) for n in ("norm", "seg24", "seg4")))
    touch(tmp_path, "OASIS_OAS1_0003_MR1/slice_norm.nii.gz", "other/readme.md")
    sources = oasis2d_scans(tmp_path, "slice_seg24")
    assert [s.name for s in sources.scans] == ["OASIS_OAS1_0001_MR1", "OASIS_OAS1_0002_MR1"]
    assert sources.left_out[0][1].endswith("slice_seg24.nii.gz")
    with pytest.raises(UsageError, match="expected folders with slice_norm"):
        oasis2d_scans(tmp_path / "other", "slice_seg24")


def test_the_table_of_oasis_is_compared(tmp_path):
    check_oasis_table(tmp_path)
    path = tmp_path / "seg24_labels.txt"
    names = [name.title().replace(" ", "-") for name in STRUCTURES_24]
    names[12], names[4], names[9] = "Left-VentralDC", "Left-Inf-Lat-Ventricle", "3rd-Ventricle"
    path.write_text("\n".join(f"{i:3d}  {name}  1 2 3 0" for i, name in enumerate(names)))
    check_oasis_table(tmp_path)
    path.write_text("² x\n" + "9" * 5000 + " x\n")
    check_oasis_table(tmp_path)
    path.write_text("5  Left-Caudate  1 2 3 0\n")
    with pytest.raises(DataError, match="id 5 is Left-Caudate, expected 'left thalamus'"):
        check_oasis_table(tmp_path)


def test_bids_with_derivatives(tmp_path):
    touch(
        tmp_path,
        "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz",
        "sub-02/anat/sub-02_T1w.nii.gz",
        "sub-03/anat/sub-03_run-1_T1w.nii.gz",
        "sub-03/anat/sub-03_run-1_T2w.nii.gz",
        "derivatives/fs/sub-01/ses-1/anat/sub-01_ses-1_desc-aseg_dseg.nii.gz",
        "derivatives/fs/sub-01/ses-1/anat/sub-01_ses-1_space-MNI_desc-aseg_dseg.nii.gz",
        "derivatives/fs/sub-01/ses-2/anat/sub-01_ses-2_desc-aseg_dseg.nii.gz",
        "derivatives/fs/sub-01/ses-2/anat/sub-01_ses-2_dseg.nii.gz",
        "derivatives/fs/sub-03/anat/sub-03_run-1_desc-aseg_dseg.nii.gz",
        "derivatives/other/sub-03/anat/sub-03_run-1_desc-aseg_dseg.nii.gz",
    )
    sources = bids_scans(tmp_path, None, "T1w", "aseg")
    assert [(s.name, s.person, s.labels.name) for s in sources.scans] == [
        ("sub-01_ses-1", "sub-01", "sub-01_ses-1_desc-aseg_dseg.nii.gz"),
        ("sub-01_ses-2", "sub-01", "sub-01_ses-2_desc-aseg_dseg.nii.gz"),
    ]
    reasons = dict(sources.left_out)
    assert "has no segmentation in" in reasons["sub-02"]
    assert "several segmentations" in reasons["sub-03_run-1"]
    sources = bids_scans(tmp_path, tmp_path / "derivatives" / "fs", "T1w", "aseg")
    assert [s.name for s in sources.scans][-1] == "sub-03_run-1"
    assert [s.name for s in bids_scans(tmp_path, None, "T1w", None).scans] == ["sub-01_ses-2"]


def bids(folder: Path, images: str, segmentations: str) -> Sources:
    """What is found in a data set of images and segmentations of these names."""
    touch(folder, *(f"{name.split('_')[0]}/anat/{name}.nii.gz" for name in images.split()))
    touch(folder, *(f"derivatives/{name.split('_')[0]}/anat/{name}.nii.gz" for name in segmentations.split()))
    return bids_scans(folder, None, "T1w", "aseg")


@pytest.mark.parametrize(
    ("images", "segmentations", "expected"),
    [
        ("sub-1_run-01_T1w", "sub-1_run-1_desc-aseg_dseg", "sub-1_run-01"),
        ("sub-1_run-1_T1w sub-1_run-2_T1w", "sub-1_run-02_desc-aseg_dseg", "sub-1_run-2"),
        ("sub-1_acq-mprage_T1w", "sub-1_desc-aseg_dseg", "sub-1_acq-mprage"),
        ("sub-1_acq-a_T1w sub-1_acq-b_T1w", "sub-1_desc-aseg_dseg", ""),
        ("sub-1_acq-a_T1w sub-1_T1w", "sub-1_desc-aseg_dseg", "sub-1"),
        (
            "sub-1_acq-a_T1w sub-1_acq-b_T1w",
            "sub-1_acq-b_desc-aseg_dseg sub-1_desc-aseg_dseg",
            "sub-1_acq-b",
        ),
        ("sub-1_T1w", "sub-1_acq-a_desc-aseg_dseg", ""),
        ("sub-01_T1w sub-1_T1w", "sub-1_desc-aseg_dseg", "sub-1"),
        ("sub-1_ses-1_T1w", "sub-1_desc-aseg_dseg", ""),
        ("sub-1_T1w", "sub-1_space-MNI_desc-aseg_dseg sub-1_desc-aseg_dseg", "sub-1"),
        ("sub-1_rec-norm_run-1_T1w", "sub-1_run-01_space-T1w_desc-aseg_dseg", "sub-1_rec-norm_run-1"),
    ],
)
def test_which_segmentation_of_bids_belongs_to_an_image(tmp_path, images, segmentations, expected):
    sources = bids(tmp_path, images, segmentations)
    assert [scan.name for scan in sources.scans] == expected.split()
    assert len(sources.scans) + len(sources.left_out) == len(images.split())


def test_a_segmentation_of_several_images_is_a_line(tmp_path):
    sources = bids(tmp_path, "sub-1_acq-a_T1w sub-1_acq-b_T1w", "sub-1_desc-aseg_dseg")
    segmentation = tmp_path / "derivatives" / "sub-1" / "anat" / "sub-1_desc-aseg_dseg.nii.gz"
    assert sources.left_out == [
        ("sub-1_acq-a", f"the segmentation {segmentation} may belong to it, and to sub-1_acq-b_T1w"),
        ("sub-1_acq-b", f"the segmentation {segmentation} may belong to it, and to sub-1_acq-a_T1w"),
    ]


def test_a_scan_of_bids_that_is_there_twice_counts_once(tmp_path):
    names = "sub-1_T1w", "derivatives/sub-1/anat/sub-1_desc-aseg_dseg"
    for name in (f"sub-1/anat/{names[0]}", names[1]):
        touch(tmp_path, f"{name}.nii", f"{name}.nii.gz")
        (tmp_path / f"{name}.nii").write_bytes(b"scan")
        (tmp_path / f"{name}.nii.gz").write_bytes(gzip.compress(b"scan"))
    sources = bids_scans(tmp_path, None, "T1w", "aseg")
    assert [(scan.image.name, scan.labels.name) for scan in sources.scans] == [
        ("sub-1_T1w.nii.gz", "sub-1_desc-aseg_dseg.nii.gz")
    ]
    assert [note.rpartition(": ")[2] for note in sources.notes] == ["sub-1_T1w.nii", "sub-1_desc-aseg_dseg.nii"]
    (tmp_path / "sub-1" / "anat" / "sub-1_T1w.nii").write_bytes(b"another")
    sources = bids_scans(tmp_path, None, "T1w", "aseg")
    assert (sources.scans, sources.left_out[0][0]) == ([], "sub-1")
    assert sources.left_out[0][1].startswith("2 files have this name: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, "[T1w]", "aseg"), r"^--image-suffix \[T1w\]: expected letters and digits, such as T1w$"),
        ((None, "**/T1w", "aseg"), r"^--image-suffix \*\*/T1w: expected letters and digits, such as T1w$"),
        ((None, "T2w", "aseg"), "holds no image called sub-\\*_T2w"),
        ((None, "T1w", "tumour"), "holds no segmentation called sub-\\*_desc-tumour_dseg"),
        ((Path("absent"), "T1w", "aseg"), "--derivatives absent: there is no such folder"),
    ],
)
def test_bids_without_what_is_needed(tmp_path, arguments, message):
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii", "derivatives/sub-1/anat/sub-1_desc-aseg_dseg.nii")
    with pytest.raises(UsageError, match=message):
        bids_scans(tmp_path, *arguments)
