"""Which files belong together by their names, and which do not."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metasynth.data_prep.naming.pairing import match
from metasynth.data_prep.sources import Sources, label_scans, pair, with_files


def paths(folder: str, names: str) -> list[Path]:
    return [Path(folder, f"{name}.nii.gz") for name in names.split()]


def paired(images: str, labels: str) -> dict[str, str]:
    """{image: label map} of what is paired."""
    scans = pair(paths("i", images), paths("l", labels)).scans
    return {name(scan.image): name(scan.labels) for scan in scans}


def name(path: Path) -> str:
    return path.name.removesuffix(".nii.gz")


@pytest.mark.parametrize(
    ("images", "partners"),
    [
        ("s0_T1w s1_T1w", "s0_T1w_bet_mask s1_T1w_bet_mask"),
        ("s0_T1w s1_T1w", "s0_T1w_bet_mask s1_brain_mask"),
        ("s0_T1w s1_T1w", "s0_mask s1_mask"),
        ("s1 s10", "s1_mask s10_mask"),
        ("s1_T1w s10_T1w", "s1_brain s10_brain"),
        ("sub-0_T1w sub-1_T1w", "sub-0_desc-brain_mask sub-1_desc-brain_mask"),
        ("sub-1_T1w sub-11_T1w", "sub-1_desc-brain_mask sub-11_desc-brain_mask"),
        ("sub-1_ses-1_T1w sub-1_ses-2_T1w", "sub-1_ses-1_mask sub-1_ses-2_mask"),
        ("sub-1_run-01_T1w sub-1_run-02_T1w", "sub-1_run-1_mask sub-1_run-2_mask"),
        ("sub-1_T1w sub-1_T2w", "sub-1_T1w_mask sub-1_T2w_mask"),
        ("sub-1_T1w sub-2_T1w", "sub-1_seg24 sub-2_seg24"),
        ("s1_T1w s1_T2w", "s1_T1w_seg s1_T2w_seg"),
        ("la_003_0000 la_004_0000", "la_003 la_004"),
        ("BraTS19_001_t1 BraTS19_002_t1", "BraTS19_001_seg BraTS19_002_seg"),
        ("IXI002-Guys-0828-T1 IXI012-HH-1211-T1", "IXI002-Guys-0828-T1_synthseg IXI012-HH-1211-T1_synthseg"),
        ("bert_T1w ernie_T1w", "bert_seg ernie_seg"),
        ("bert.anat ernie.anat", "bert.seg2 ernie.seg2"),
        ("s1_left_T1w s1_right_T1w", "s1_left_seg s1_right_seg"),
        ("OAS1_0001_MR1_mpr OAS1_0002_MR1_mpr", "OAS1_0001_MR1_seg OAS1_0002_MR1_seg"),
        ("s1_mprage s2_mprage", "s1_T1_seg s2_T1_seg"),
        ("s1_T1w s2_T1w s3", "s1_seg s2_seg s3"),
        ("la_003_0000", "la_003"),
        ("scan", "mask"),
        ("s1_T1w", "s1_seg"),
    ],
)
def test_what_belongs_together(images, partners):
    expected = dict(zip(images.split(), partners.split(), strict=True))
    assert paired(images, partners) == expected
    assert paired(partners, images) == {partner: image for image, partner in expected.items()}
    masked = with_files(label_scans(paths("i", images)), paths("m", partners), "mask")
    assert {name(scan.labels): name(scan.mask) for scan in masked.scans} == expected


@pytest.mark.parametrize(
    ("images", "partners", "expected"),
    [
        ("s1_T1w s2_T1w", "s10_mask s2_mask", "s2_T1w"),
        ("s1_T1w s2_T1w", "s1_T2w_mask s2_T2w_mask", ""),
        ("sub-1_T1w sub-2_T1w", "sub-1_T2w_mask sub-2_mask", "sub-2_T1w"),
        ("sub-1_T1w sub-2_T1w", "sub-11_mask sub-22_mask", ""),
        ("sub-1_ses-1_T1w sub-2_ses-1_T1w", "sub-1_ses-2_mask sub-2_ses-2_mask", ""),
        ("sub-1_ses-A_T1w sub-2_ses-A_T1w", "sub-1_ses-B_mask sub-2_ses-B_mask", ""),
        ("sub-1_T1w sub-2_T1w", "sub-1_ses-2_mask sub-2_ses-2_mask", ""),
        ("sub-1_ses-1_T1w sub-2_ses-1_T1w", "sub-1_mask sub-2_mask", ""),
        ("p1_v1 p2_v1", "p1_v2 p2_v2", ""),
        ("a b", "a_1 b", "b"),
        ("s1_T1w s2_T1w", "s1_seg_a s1_seg_b s2_seg", "s2_T1w"),
        ("s1_T1w s1_T2w s2_T1w", "s1_seg s2_seg", "s2_T1w"),
        ("study_smith_T1 study_adams_T1", "study_smith_mask study_jones_mask", "study_smith_T1"),
        ("sub-1_T1w", "sub-2_dseg", ""),
    ],
)
def test_what_does_not_belong_together_is_left_out(images, partners, expected):
    assert list(paired(images, partners)) == expected.split()
    sources = pair(paths("i", images), paths("l", partners))
    assert len(sources.left_out) >= len(images.split()) - len(expected.split())


def test_what_a_derivative_of_bids_leaves_out_must_be_clear():
    acquired = "sub-1_acq-mprage_T1w sub-2_T1w"
    expected = {"sub-1_acq-mprage_T1w": "sub-1_desc-brain_mask", "sub-2_T1w": "sub-2_mask"}
    assert paired(acquired, "sub-1_desc-brain_mask sub-2_mask") == expected
    assert paired("sub-1_acq-a_T1w sub-1_acq-b_T1w", "sub-1_mask sub-2_mask") == {}
    assert paired("sub-1_acq-a_T1w sub-1_T1w", "sub-1_mask") == {"sub-1_T1w": "sub-1_mask"}
    assert paired("sub-1_T1w sub-2_T1w", "sub-1_acq-a_mask sub-2_mask") == {"sub-2_T1w": "sub-2_mask"}
    spaces = "sub-1_mask sub-1_space-MNI_mask"
    assert paired("sub-1_T1w sub-1_space-MNI_T1w", spaces) == dict(
        zip(("sub-1_T1w", "sub-1_space-MNI_T1w"), spaces.split(), strict=True)
    )


def test_lines_name_what_is_on_both_sides():
    sources = pair(paths("i", "s1_T1w s1_T2w s2_T1w s3_T1w"), paths("l", "s1_seg s2_a_seg s2_b_seg"))
    assert sources.left_out == [
        ("s1_T1w", "i/s1_T1w.nii.gz: the label map s1_seg may belong to it, and to s1_T2w"),
        ("s1_T2w", "i/s1_T2w.nii.gz: the label map s1_seg may belong to it, and to s1_T1w"),
        ("s2_T1w", "i/s2_T1w.nii.gz: several label maps may belong to it: s2_a_seg, s2_b_seg"),
        (
            "s3_T1w",
            "i/s3_T1w.nii.gz: has no label map; none is called s3_T1w; they are called s1_seg, s2_a_seg, s2_b_seg",
        ),
    ]
    sources = with_files(label_scans(paths("i", "s1 s2")), paths("m", "s3_mask s4_mask s5_mask s6_mask"), "mask")
    reason = "has no mask; none of the 4 files given is called s1; they are called s3_mask, s4_mask, s5_mask and 1 more"
    assert sources.left_out[0] == ("s1", reason)


def test_a_pair_is_called_by_what_both_share():
    def called(images: str, labels: str) -> list[str]:
        return [scan.name for scan in pair(paths("i", images), paths("l", labels)).scans]

    assert called("la_003_0000", "la_003") == ["la_003"]
    assert called("sub-1_run-01_T1w sub-1_run-02_T1w", "sub-1_run-1_dseg sub-1_run-2_dseg") == [
        "sub-1_run-01",
        "sub-1_run-02",
    ]
    assert called("s1_T1w s1_T2w", "s1_T1w_seg s1_T2w_seg") == ["s1_T1w", "s1_T2w"]
    assert called("scan", "mask") == ["scan"]


def test_one_and_one_are_said_to_be_all_there_is():
    sources = pair([Path("i/s1.nii")], [Path("l/other.nii")])
    assert sources.notes == ["i/s1.nii and l/other.nii belong together as the only ones"]
    assert pair([Path("la_003_0000.nii.gz")], [Path("la_003.nii.gz")]).notes == []


def test_channels_of_one_case_are_a_line():
    images, labels = paths("imagesTr", "la_003_0000 la_003_0001 la_004_0000"), paths("labelsTr", "la_003 la_004")
    for some in (labels, labels[:1]):
        sources = pair(images, some)
        assert dict(sources.left_out)["la_003"] == (
            "has 2 channels (la_003_0000, la_003_0001), and one image a case is read; name those of one channel, such "
            "as 'FOLDER/*_0000.nii.gz'"
        )
    assert [scan.name for scan in pair(images, labels).scans] == ["la_004"]
    numbered = paths("i", "case_0000 case_0001"), paths("l", "case_0000_seg case_0001_seg")
    assert [scan.name for scan in pair(*numbered).scans] == ["case_0000", "case_0001"]


def test_masks_are_of_the_image_and_not_of_what_its_pair_is_called():
    sources = pair(paths("i", "s1_T1w s2_T1w"), paths("l", "s1_seg s2_seg"))
    masked = with_files(sources, paths("m", "s1_T1w_mask s1_T2w_mask s2_T2w_mask"), "mask")
    assert [(scan.name, scan.mask.name) for scan in masked.scans] == [("s1", "s1_T1w_mask.nii.gz")]
    masked = with_files(sources, paths("m", "s1_T1w_mask s1_T2w_mask"), "mask", required=False)
    assert [(scan.name, scan.mask is None) for scan in masked.scans] == [("s1", False), ("s2", True)]


def test_folders_name_images_and_masks_alike():
    folders = [Path(f"d/{subject}/mri") for subject in ("n", "nor")]
    sources = pair([folder / "norm.mgz" for folder in folders], [folder / "aseg.mgz" for folder in folders])
    masked = with_files(sources, [folder / "brainmask.mgz" for folder in folders], "mask")
    assert [(scan.name, scan.mask.parts[1]) for scan in masked.scans] == [("n", "n"), ("nor", "nor")]


PIECES = st.sampled_from(["s1", "s10", "sub-1", "sub-11", "ses-1", "T1w", "T2w", "mask", "seg", "0000", "0001", "a"])
NAMES = st.lists(st.lists(PIECES, min_size=1, max_size=4).map("_".join), max_size=8, unique=True)


@given(NAMES, NAMES)
def test_a_pair_is_one_to_one_and_the_same_in_any_order(names, partners):
    found = match(names, partners)
    assert len(set(found.pairs.values())) == len(found.pairs)
    assert not found.pairs.keys() & found.unclear.keys()
    again = match(names[::-1], partners[::-1])
    assert (again.pairs, again.unclear.keys()) == (found.pairs, found.unclear.keys())
    for equal in set(names) & set(partners):
        assert found.pairs[equal] == equal


def test_nothing_has_no_partner():
    assert match([], []).pairs == {}
    assert with_files(Sources([], []), paths("m", "a b"), "mask") == Sources([], [])


def test_thousands_of_files_take_a_second():
    numbers = range(3000)
    images, labels = (
        [Path(f"sub-{k:04}_ses-1_T1w.nii") for k in numbers],
        [Path(f"sub-{k:04}_ses-1_desc-aseg_dseg.nii") for k in numbers],
    )
    start = time.process_time()
    assert len(pair(images, labels).scans) == 3000
    assert time.process_time() - start < 5  # quadratic work would take minutes
