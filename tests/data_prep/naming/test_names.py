"""What files are called: folders that tell files of one name apart, copies of one scan, and odd names."""

import gzip
import os
import unicodedata
from pathlib import Path

import pytest
from metasynth.data_prep.naming.names import name_files, stem
from metasynth.data_prep.sources import label_scans, pair


def write(folder: Path, **contents: bytes) -> list[Path]:
    """Files by name (with __ for / and _gz for .nii.gz); those that end in .gz or .mgz are packed."""
    paths = []
    for name, content in contents.items():
        path = folder / name.replace("__", "/").replace("_gz", ".nii.gz").replace("_nii", ".nii").replace(
            "_mgz", ".mgz"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if path.suffix == ".nii" else gzip.compress(content))
        paths.append(path)
    return paths


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ("d/s1/mri/aseg.nii.gz d/s2/mri/aseg.nii.gz", "s1 s2"),
        ("d/s1/aseg.mgz d/s2/aseg.mgz", "s1 s2"),
        ("d/a/s1/mri/aseg.mgz d/b/s2/mri/aseg.mgz", "s1 s2"),
        ("d/a/s1/mri/aseg.mgz d/b/s1/mri/aseg.mgz", "a b"),
        ("d/a/s1/mri/aseg.mgz d/a/s2/mri/aseg.mgz d/b/s1/mri/aseg.mgz", "a_s1 a_s2 b_s1"),
        ("d/sub-1/ses-1/anat/T1w.nii d/sub-1/ses-2/anat/T1w.nii", "sub-1_ses-1 sub-1_ses-2"),
        ("d/bert/visit1/T1.nii d/bert/visit2/T1.nii d/ernie/visit3/T1.nii", "bert_visit1 bert_visit2 ernie_visit3"),
        ("d/s1/mri/aseg.mgz d/s2/aseg.mgz", "s1_mri s2"),
        ("d/s1/T1.nii d/s1/T1.nii.gz d/s2/T1.nii d/s2/T1.nii.gz", "s1 s2"),
        ("d/s1.nii d/s1.nii.gz", "s1"),
        ("d/s1.nii", "s1"),
        ("d/s1/mri/norm.mgz d/s2/mri/orig.mgz", "norm orig"),
        ("d/S1.NII.GZ d/s2.nii", "S1 s2"),
    ],
)
def test_names_come_from_the_first_folder_that_differs(files, names):
    assert name_files([Path(path) for path in files.split()]).names == names.split()


def test_a_path_through_other_folders_is_the_same(monkeypatch, tmp_path):
    (tmp_path / "s1").mkdir()
    monkeypatch.chdir(tmp_path / "s1")
    assert name_files([Path("aseg.mgz"), Path("../s2/aseg.mgz")]).names == ["s1", "s2"]


def test_a_scan_that_is_there_packed_and_unpacked_counts_once(tmp_path):
    files = write(tmp_path, s1_nii=b"one", s1_gz=b"one", s2_gz=b"two", s2_nii=b"two", s3_nii=b"three")
    sources = label_scans(files)
    assert [(scan.name, scan.labels.name) for scan in sources.scans] == [
        ("s1", "s1.nii.gz"),
        ("s2", "s2.nii.gz"),
        ("s3", "s3.nii"),
    ]
    assert sources.left_out == []
    assert sources.notes == ["2 files hold what another of that name holds and count once: s1.nii, s2.nii"]
    sources = pair(files, files)
    assert next((scan.image.name, scan.labels.name) for scan in sources.scans) == ("s1.nii.gz", "s1.nii.gz")


def test_two_contents_of_one_name_are_left_out(tmp_path):
    files = write(tmp_path, s1_nii=b"one", s1_gz=b"other", s2_gz=b"two")
    (tmp_path / "s3.nii.gz").write_bytes(b"\x1f\x8b broken")
    (tmp_path / "s3.nii").write_bytes(b"\x1f\x8b broken")
    sources = label_scans([*files, tmp_path / "s3.nii.gz", tmp_path / "s3.nii"])
    assert [scan.name for scan in sources.scans] == ["s2"]
    assert sources.left_out[0] == ("s1", f"2 files have this name: {tmp_path}/s1.nii, {tmp_path}/s1.nii.gz")
    assert [name for name, _ in sources.left_out] == ["s1", "s3"]


def test_every_name_there_twice_ends(tmp_path):
    files = [tmp_path / folder / f"{name}.nii" for folder in "ab" for name in ("s1", "s2")]
    sources = pair(files, files)
    assert (sources.scans, [name for name, _ in sources.left_out]) == ([], ["s1", "s2"])
    assert pair([], []).scans == pair(files, []).scans == pair([], files[:1]).scans == []


def test_names_that_cannot_be_printed(tmp_path):
    assert stem(Path(os.fsdecode(b"s\xe9.nii.gz"))) == "s%E9"
    assert stem(Path("s\n1\x1b.nii")) == "s%0A1%1B"
    assert stem(Path("a\u00a0b.mgz")) == "a%C2%A0b"
    composed, apart = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    scans = pair([Path(f"i/{composed}.nii"), Path("i/a.nii")], [Path(f"l/{apart}.nii"), Path("l/a.nii")]).scans
    assert [scan.name for scan in scans] == ["a", composed]
