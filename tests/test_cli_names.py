"""Names of files and people, and odd text, from the command line to what comes out."""

import csv
import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.head_phantom import head_image, head_labels, save
from support.tiny_model import save_random

from metasynth.cli.main import main
from metasynth.data.cache import Cache

SHAPE = (18, 22, 20)
ODD = (os.fsdecode(b"caf\xe9"), "$x_$ \u4e2d", "a\nb\x1b", "m" * 245)
SHOWN = ("caf%E9", "$x_$ \u4e2d", "a%0Ab%1B", "m" * 245)


@pytest.fixture
def cli(monkeypatch, tmp_path) -> Callable[..., Result]:
    """The command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, [*arguments])


def fine(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def scans(images: list[str], labels: list[str], masks: list[str] | None = None) -> None:
    """Images, label maps and masks of these paths, one a head."""
    for seed, names in enumerate(zip(images, labels, masks or labels, strict=True)):
        ids = head_labels(seed, SHAPE)
        save(Path(names[0]), head_image(ids, seed))
        save(Path(names[1]), ids)
        if masks:
            save(Path(names[2]), (ids > 0).astype(np.uint8))


def prepared(cli: Callable[..., Result], *arguments: str) -> tuple[Result, tuple[str, ...]]:
    """What `prep` says, and the subjects of the cache."""
    result = fine(cli("prep", *arguments, "--out", "c.h5", "--overwrite", "--jobs", "1", "--no-montage"))
    with Cache("c.h5") as cache:
        return result, cache.subjects


def test_names_that_are_no_text(cli, tmp_path):
    scans(*([f"{folder}/{name}.nii.gz" for name in ODD] for folder in ("images", "labels", "masks")))
    _, subjects = prepared(cli, "nifti", "--images", "images", "--labels", "labels", "--masks", "masks")
    fine(cli("inspect", "c.h5", "--montage", "look.png"))
    assert sorted(subjects) == sorted(SHOWN)
    assert sorted(json.loads((tmp_path / "c.report.json").read_text())["used"]) == sorted(SHOWN)
    (tmp_path / os.fsdecode(b"labels/caf\xe9.nii.gz")).write_bytes(b"broken")
    result, _ = prepared(cli, "labels", "labels")
    assert "Left out: caf%E9: labels/caf\\udce9.nii.gz: is truncated" in result.stderr
    report = json.loads((tmp_path / "c.report.json").read_bytes())
    assert report["left_out"][0]["reason"].startswith(os.fsdecode(b"labels/caf\xe9.nii.gz: is truncated"))
    save_random(tmp_path / "model.pt")
    arguments = ("--masks", "masks", "--qc", "--volumes", "v.csv", "--device", "cpu", "--threads", "1")
    fine(cli("predict", "model.pt", "images", "--out", "out", *arguments))
    assert {path.name for path in Path("out").glob("*.gz")} == {f"{name}.nii.gz" for name in SHOWN}
    assert {path.name for path in Path("out/qc").glob("*.png")} == {f"{name}.png" for name in SHOWN}
    for table in ("v.csv", "out/qc/scores.csv"):
        with Path(table).open(newline="", encoding="utf-8") as file:
            assert sorted(row["name"] for row in csv.DictReader(file)) == sorted(SHOWN)
    result = cli("evaluate", "out", "images", "--out", "t.csv", "--classes", "1")
    assert "Failed: caf%E9: images/caf\\udce9.nii.gz" in result.stderr


def test_an_output_whose_name_is_no_text(cli):
    scans(["i/s0.nii"], ["l/s0.nii"])
    out = os.fsdecode(b"caf\xe9.h5")
    source = ("--source", os.fsdecode(b"by \xe9"))
    result = fine(cli("prep", "labels", "l", "--out", out, "--jobs", "1", *source))
    assert "Cache: caf\\udce9.h5" in result.stdout
    assert "label maps: l; by \\udce9" in fine(cli("inspect", out)).stdout


def test_every_file_packed_and_unpacked(cli, tmp_path):
    scans([f"images/s{i}.nii.gz" for i in range(3)], [f"labels/s{i}.nii.gz" for i in range(3)])
    for path in (*tmp_path.glob("images/*"), *tmp_path.glob("labels/*")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    result, subjects = prepared(cli, "nifti", "--images", "images", "--labels", "labels")
    assert subjects == ("s0", "s1", "s2")
    assert result.stdout.startswith("Subjects: 3 used, 0 left out\n")
    line = "Note: 3 files hold what another of that name holds and count once: s0.nii, s1.nii, s2.nii"
    assert result.stderr.splitlines().count(line) == 2
    save_random(tmp_path / "model.pt")
    predict = (
        "predict",
        "model.pt",
        "images",
        "--masks",
        "labels",
        "--out",
        "out",
        "--device",
        "cpu",
        "--threads",
        "1",
    )
    result = fine(cli(*predict))
    assert "Label maps: out (3 made)" in result.stdout
    assert line in result.stderr
    result = fine(cli("evaluate", "labels", "labels", "--out", "t.csv"))
    assert "Table: t.csv (3 subjects)" in result.stdout
    (tmp_path / "images" / "s1.nii").write_bytes(b"something else")
    result = cli(*predict, "--overwrite")
    assert result.exit_code == 1
    assert "Failed: s1: 2 files have this name: images/s1.nii, images/s1.nii.gz" in result.stderr
    assert "Label maps: out (2 made)" in result.stdout


def test_patterns_of_folders(cli):
    scans([f"d/s{i}/mri/norm.mgz" for i in range(2)], [f"d/s{i}/mri/aseg.mgz" for i in range(2)])
    _, subjects = prepared(cli, "nifti", "--images", "d/*/mri/norm.mgz", "--labels", "d/*/mri/aseg.mgz")
    assert subjects == ("s0", "s1")
    result = fine(cli("evaluate", "d/*/mri/aseg.mgz", "d/*/mri/aseg.mgz", "--out", "t.csv"))
    assert "Table: t.csv (2 subjects)" in result.stdout


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("s0_T1w s1_T1w", "s0_T1w_bet_mask s1_T1w_bet_mask"),
        ("sub-0_T1w sub-1_T1w", "sub-0_desc-brain_mask sub-1_desc-brain_mask"),
        ("sub-1_T1w", "anything"),
    ],
)
def test_masks_by_other_names(cli, tmp_path, images, masks):
    names = [[f"{folder}/{name}.nii.gz" for name in of.split()] for folder, of in (("i", images), ("m", masks))]
    scans(names[0], [f"l/{i}.nii" for i in range(len(names[0]))], names[1])
    save_random(tmp_path / "model.pt")
    predict = ("predict", "model.pt", "i", "--masks", "m", "--out", "o", "--device", "cpu", "--threads", "1")
    assert "Warning" not in fine(cli(*predict)).stderr
    assert f"Table: t.csv ({len(names[0])} subjects)" in fine(cli("evaluate", "o", "m", "--out", "t.csv")).stdout


def test_masks_that_are_unclear_cost_their_scan_alone(cli, tmp_path):
    scans([f"i/s{i}.nii" for i in range(3)], ["m/s0_a_mask.nii", "m/s1_mask.nii", "m/s0_b_mask.nii"])
    save_random(tmp_path / "model.pt")
    result = cli("predict", "model.pt", "i", "--masks", "m", "--out", "o", "--device", "cpu", "--threads", "1")
    assert result.exit_code == 1
    assert "Failed: s0: several masks may belong to it: s0_a_mask, s0_b_mask" in result.stderr
    assert "Warning: no brain mask for 1 of 2 scans (s2)" in result.stderr
    assert sorted(path.name for path in Path("o").glob("*.gz")) == ["s1.nii.gz", "s2.nii.gz"]
    result = cli("evaluate", "i", "m", "--out", "t.csv", "--classes", "1", "--quiet")
    assert "Note: without a partner of their name: i/s2.nii" in result.stderr
    assert "Failed: s0: i/s0.nii: several references may belong to it: s0_a_mask, s0_b_mask" in result.stderr


def test_one_case_of_nnunet(cli):
    scans(["raw/imagesTr/la_003_0000.nii.gz"], ["raw/labelsTr/la_003.nii.gz"])
    for images, labels in (
        ("raw/imagesTr", "raw/labelsTr"),
        ("raw/imagesTr/la_003_0000.nii.gz", "raw/labelsTr/la_003.nii.gz"),
    ):
        assert prepared(cli, "nifti", "--images", images, "--labels", labels)[1] == ("la_003",)
    result = cli("evaluate", "raw/imagesTr", "raw/labelsTr", "--out", "t.csv", "--classes", "1")
    assert "Failed: la_003: raw/imagesTr/la_003_0000.nii.gz" in result.stderr


def test_people_are_said_and_may_be_given(cli):
    names = ["sub-1_ses-1", "sub-1_ses-2", "sub-2_ses-1"]
    scans([f"i/{name}_T1w.nii.gz" for name in names], [f"l/{name}_dseg.nii.gz" for name in names])
    for command in (("labels", "l"), ("nifti", "--images", "i", "--labels", "l")):
        result, subjects = prepared(cli, *command)
        assert subjects == ("sub-1", "sub-2")
        assert result.stdout.startswith("Subjects: 2 used (3 scans), 0 left out\n")
        assert "Note: 3 scans of 2 people, by their names: sub-1 (sub-1_ses-1" in result.stderr
        assert prepared(cli, *command, "--person", "ses-.")[1] == ("ses-1", "ses-2")
    for name in names:
        for what, source in (("norm", f"i/{name}_T1w.nii.gz"), ("aseg", f"l/{name}_dseg.nii.gz")):
            path = Path("fs", name, "mri", f"{what}.nii.gz")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(Path(source).read_bytes())
    freesurfer = ("freesurfer", "fs", "--image-name", "norm.nii.gz", "--seg-name", "aseg.nii.gz")
    assert prepared(cli, *freesurfer)[1] == ("sub-1", "sub-2")
    assert prepared(cli, *freesurfer, "--person", "ses-.")[1] == ("ses-1", "ses-2")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["prep", "labels", "~nobody-of-that-name"], "PATHS ~nobody-of-that-name: there is no such file or folder"),
        (
            ["prep", "labels", "l", "--min-content", "nan"],
            "Invalid value for '--min-content': 'nan' is not a finite number.",
        ),
        (
            ["prep", "labels", "l", "--min-content", "²"],
            "Invalid value for '--min-content': '²' is not a valid float range.",
        ),
        (["prep", "labels", "l", "--every", "nan"], "--every: expected a number of mm above 0, got nan"),
        (["prep", "labels", "l", "--margin", "nan"], "--margin: expected 0 mm or more, got nan"),
        (
            ["prep", "labels", "l", "--spacing", "nan"],
            "--spacing nan: expected one number of mm above 0, or three with commas",
        ),
        (["prep", "labels", "l", "--size", "²,²"], "--size ²,²: expected H,W or D,H,W"),
        (
            ["prep", "labels", "l", "--slices", "²"],
            "--slices ²: expected all, around:N, START:STOP, START:STOP:STEP or I,J,K",
        ),
        (
            ["prep", "labels", "l", "--person", "("],
            "--person (: expected a regular expression: missing ), unterminated subpattern at position 0",
        ),
        (["prep", "labels", "l", "--person", "x"], "--person x: finds nothing in 1 of 1 names: s0"),
        (
            ["prep", "labels", "l", "--mapping", "bad.csv"],
            "--mapping bad.csv, line 1: expected text in UTF-8, got the byte 0xE9; save the file as UTF-8",
        ),
        (["prep", "labels", "a\0b"], "PATHS a%00b: there is no such file or folder"),
        (["prep", "labels", os.fsdecode(b"\xe9")], "PATHS %E9: there is no such file or folder"),
        (["evaluate", "l", "l", "--classes", "²"], "--classes ²: expected numbers, got '²'"),
        (
            ["evaluate", "l", "l", "--classes", "9" * 5000],
            f"--classes {'9' * 40}...{'9' * 20} (5000 characters): expected "
            f"numbers, got '{'9' * 40}...{'9' * 20}' (5000 characters)",
        ),
        (
            ["run", "noise", "--set", f"segmenter.steps={'9' * 5000}"],
            f"segmenter.steps: expected a whole number, got '{'9' * 40}...{'9' * 20}' (5000 characters)",
        ),
        (["run", "noise", "--set", "segmenter.steps=²"], "segmenter.steps: expected a whole number, got '²'"),
        (
            ["run", "noise", "--set", f"segmenter.network_arguments={'[' * 50000}"],
            "segmenter.network_arguments: got "
            f"'{'[' * 40}...{'[' * 20}' (50000 characters): must be a JSON object such as {{\"features\": [8, 16]}}",
        ),
        (
            ["prep", "labels", "l", "--jobs", "9" * 5000],
            f"Invalid value for '--jobs': '{'9' * 39}...{'9' * 19}' (5002 characters) is not a valid integer range.",
        ),
    ],
)
def test_odd_text_is_one_short_line(cli, tmp_path, arguments, line):
    save(tmp_path / "l" / "s0.nii", head_labels(0, SHAPE))
    (tmp_path / "bad.csv").write_bytes(b"1,caf\xe9\n")
    result = cli(*arguments, "--out", "new")
    assert result.exit_code == 2
    (said,) = (text for text in result.stderr.splitlines() if not text.startswith("Run folder: "))
    assert said == f"Error: {line}"
    assert sorted(os.listdir()) == ["bad.csv", "l"]


def test_a_path_with_a_nul_byte(cli):
    result = cli("inspect", "a\0b")
    assert (result.exit_code, result.stderr) == (2, "Error: Invalid value for 'CACHE': 'a\\x00b' holds a NUL byte.\n")
