"""A derivative data set: what is where in it, the validators' word on it, and a cache made of it."""

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from support.head_phantom import head_image, head_labels, save
from support.tiny_model import CLASSES, save_random

from metasynth import __version__
from metasynth.cli.main import main
from metasynth.data.cache import Cache
from metasynth.predict.naming.bids import derived_place, person_and_session
from metasynth.predict.naming.names import bids_table, labels_of

SHAPE = (10, 12, 10)
IMAGES = (
    "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz",
    "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz",
    "sub-02/anat/sub-02_run-1_T1w.nii.gz",
)
DERIVED = Path("data/derivatives/metasynth")
VALIDATOR = "bids-validator@1.15.0"


@pytest.fixture
def cli(monkeypatch, tmp_path):
    """`metasynth` in a folder with a BIDS data set of two people, and a model."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(IMAGES):
        save(Path("data") / name, head_image(head_labels(seed, SHAPE), seed))
        Path("data", name.replace(".nii.gz", ".json")).write_text("{}")
    said = {"Name": "Phantoms", "BIDSVersion": "1.9.0", "Authors": ["A", "B"], "License": "CC0"}
    Path("data/dataset_description.json").write_text(json.dumps(said))
    Path("data/README").write_text("Heads that a program drew, to test what is made of them.\n" * 5)
    save_random(tmp_path / "model.pt")
    return lambda *arguments: CliRunner().invoke(main, [*map(str, arguments)])


def predict(cli, *arguments):
    options = ("--bids", "--stripped", "--device", "cpu", "--threads", "1", "--quiet")
    return cli("predict", "model.pt", *arguments, *options)


def fine(result):
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(result):
    assert result.exit_code == 2, result.output
    return result.stderr.splitlines()[-1].removeprefix("Error: ")


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_names_of_what_is_derived():
    for name, place in (
        ("sub-1_T1w.nii", "sub-1/anat/sub-1_dseg.tsv"),
        ("sub-1_ses-2_acq-x_run-01_T1w.nii.gz", "sub-1/ses-2/anat/sub-1_ses-2_acq-x_run-01_dseg.tsv"),
    ):
        assert derived_place(Path("anywhere") / name, "dseg.tsv") == Path(place)
    assert person_and_session(Path("sub-1_ses-2_T1w.nii")) == ("sub-1", "ses-2")
    assert person_and_session(Path("sub-1_T1w.nii")) == ("sub-1", "n/a")


def test_a_derivative_data_set(cli):
    assert fine(predict(cli, "data", "--posteriors")) == f"Label maps: {DERIVED} (3 made)\n"
    stems = ("sub-01/ses-1/anat/sub-01_ses-1", "sub-01/ses-2/anat/sub-01_ses-2", "sub-02/anat/sub-02_run-1")
    endings = ("dseg.nii.gz", "dseg.tsv", "probseg.nii.gz", "probseg.json")
    tables = ("dseg.tsv", "freesurfer-lut.txt", "itksnap-labels.txt", "slicer-colors.ctbl")
    own = ("dataset_description.json", ".bidsignore", "segmentation.json", *tables)
    assert files(DERIVED) == {*own, *(f"{stem}_{ending}" for stem in stems for ending in endings)}
    for name, stem in zip(IMAGES, stems, strict=True):
        image, labels = nib.load(Path("data") / name), nib.load(DERIVED / f"{stem}_dseg.nii.gz")
        np.testing.assert_array_equal(labels.affine, image.affine)
        assert (DERIVED / f"{stem}_dseg.tsv").read_text() == bids_table(labels_of(CLASSES))
        assert json.loads((DERIVED / f"{stem}_probseg.json").read_text()) == {"LabelMap": list(CLASSES)}
        shares = np.asanyarray(nib.load(DERIVED / f"{stem}_probseg.nii.gz").dataobj)
        np.testing.assert_array_equal(shares.argmax(-1), np.asanyarray(labels.dataobj))
    said = json.loads((DERIVED / "dataset_description.json").read_text())
    digest = json.loads((DERIVED / "segmentation.json").read_text())["sha256"]
    assert (said["DatasetType"], said["BIDSVersion"]) == ("derivative", "1.9.0")
    assert said["GeneratedBy"] == [
        {
            "Name": "metasynth",
            "Version": __version__,
            "Description": f"predict, with the model of SHA-256 {digest}",
        }
    ]
    again = fine(predict(cli, "data", "--posteriors"))
    assert again == f"Label maps: {DERIVED} (0 made, 3 skipped as they are there already)\n"


def test_volumes_say_who_and_when(cli):
    fine(predict(cli, "data", "--volumes", "v.tsv", "--out", "out"))
    with Path("v.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [(row["participant_id"], row["session_id"], row["name"]) for row in rows] == [
        ("sub-01", "ses-1", "sub-01_ses-1_T1w"),
        ("sub-01", "ses-2", "sub-01_ses-2_T1w"),
        ("sub-02", "n/a", "sub-02_run-1_T1w"),
    ]
    labels = np.asanyarray(nib.load("out/sub-02/anat/sub-02_run-1_dseg.nii.gz").dataobj)
    assert float(rows[2]["brain_ml"]) == pytest.approx(0.001 * (labels > 0).sum(), rel=1e-5)


def test_masks_and_another_contrast(cli):
    for name in IMAGES:
        mask = name.replace("_T1w", "_desc-brain_mask")
        save(Path("masks") / Path(mask).name, np.ones(SHAPE, np.uint8))
    result = predict(cli, "data", "--out", "out", "--masks", "masks")
    fine(result)
    record = json.loads(Path("out/segmentation.json").read_text())
    made = record["outputs"]["sub-02/anat/sub-02_run-1_dseg.nii.gz"]
    assert made["mask"] is not None
    save(Path("data/sub-02/anat/sub-02_FLAIR.nii.gz"), head_image(head_labels(0, SHAPE)))
    fine(predict(cli, "data", "--out", "flair", "--image-suffix", "FLAIR"))
    assert Path("flair/sub-02/anat/sub-02_dseg.nii.gz").exists()
    assert len(list(Path("flair").rglob("*.nii.gz"))) == 1


def test_label_maps_of_a_data_set_are_scored_by_their_classes(cli):
    fine(predict(cli, "data", "--out", "out"))
    maps = "out/sub-01/ses-*/anat/*_dseg.nii.gz"
    fine(cli("evaluate", maps, maps, "--out", "t.csv", "--quiet"))
    with Path("t.csv").open(newline="") as file:
        assert {row["class"] for row in csv.DictReader(file)} == set(CLASSES[1:])
    one = ("predict", "model.pt", f"data/{IMAGES[0]}", "--out", "sub-9", "--stripped", "--quiet")  # no data set
    fine(cli(*one))
    fine(cli("evaluate", "sub-9", "sub-9", "--out", "u.csv", "--quiet"))
    with Path("u.csv").open(newline="") as file:
        assert {row["class"] for row in csv.DictReader(file)} == set(CLASSES[1:])


def test_what_is_no_bids_data_set_is_refused_in_a_line(cli):
    Path("scans").mkdir()
    shutil.copy(Path("data") / IMAGES[0], "scans/s.nii.gz")
    for given, line in (
        (("scans",), "scans: holds no image called sub-*_T1w.nii.gz in an anat folder"),
        (("nowhere",), "nowhere: there is no such folder"),
        (("scans/s.nii.gz",), "scans/s.nii.gz: there is no such folder"),
        (("data", "scans"), "--bids: expected one INPUT, the folder of a BIDS data set; got 2"),
        (("data", "--image-suffix", "T1/w"), "--image-suffix T1/w: expected letters and digits, such as T1w"),
        (("data", "--image-suffix", "T2w"), "data: holds no image called sub-*_T2w.nii.gz in an anat folder"),
    ):
        assert refused(predict(cli, *given)) == line
    line = refused(predict(cli, "data", "--out", "data"))
    assert line == f"--out data: is where the input data/{IMAGES[0]} lies; give another folder"
    assert not DERIVED.exists()


def test_options_of_data_sets_go_with_them_alone(cli):
    one = ("predict", "model.pt", f"data/{IMAGES[0]}", "--stripped", "--quiet")
    assert refused(cli(*one, "--out", "o", "--image-suffix", "T2w")) == "--image-suffix T2w: expected --bids too"
    assert refused(cli(*one)) == "Missing option '--out'."


def test_a_description_of_somebody_else_stays(cli):
    Path("out").mkdir()
    Path("out/dataset_description.json").write_text("{}")
    assert refused(predict(cli, "data", "--out", "out")) == (
        "--out out: out/dataset_description.json is there and is no description of label maps that metasynth wrote; "
        "give another name"
    )


def test_a_cache_of_what_was_predicted(cli):
    fine(predict(cli, "data"))
    given = ("--desc", "none", "--mapping", DERIVED / "dseg.tsv", "--no-montage", "--out", "c.h5", "--quiet")
    result = cli("prep", "bids", "data", *given, "--3d")
    assert result.exit_code == 0, result.output
    with Cache("c.h5") as cache:
        assert cache.class_names == CLASSES
        assert cache.subjects == ("sub-01", "sub-02")
        labels = np.unique(cache.read_labels([0]))
    assert set(labels) == set(
        np.unique(np.asanyarray(nib.load(next(DERIVED.rglob("sub-01_ses-1_dseg.nii.gz"))).dataobj))
    )


@pytest.fixture(scope="module")
def npm_validator() -> Iterator[Path]:
    """The official validator's npm package."""
    found, npm = shutil.which("bids-validator"), shutil.which("npm")
    if found is not None:
        yield Path(found)
        return
    if npm is None:
        pytest.skip("there is neither bids-validator nor npm")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "package.json").write_text('{"private": true}')
        command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional", VALIDATOR]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            pytest.skip(f"npm cannot install {VALIDATOR}")
        yield Path(folder, "node_modules", ".bin", "bids-validator")


def errors_of(*command: str | Path) -> set[str]:
    """What the npm package finds wrong; it knows no names of derivatives, which it says in two ways."""
    done = subprocess.run([*map(str, command), "--json"], capture_output=True, text=True, timeout=120)
    return {each["key"] for each in json.loads(done.stdout)["issues"]["errors"]}


@pytest.mark.slow
def test_the_npm_validator_finds_no_error(cli, npm_validator):
    fine(predict(cli, "data", "--posteriors", "--qc", "--volumes", DERIVED / "volumes.tsv"))
    assert errors_of(npm_validator, "data") == set()
    # Of the derivative data set by itself it checks all but the names: description, tables, headers.
    assert errors_of(npm_validator, DERIVED) == {"NOT_INCLUDED", "NO_VALID_DATA_FOUND_FOR_SUBJECT"}
    Path(DERIVED, "dataset_description.json").write_text("{}")
    assert "JSON_SCHEMA_VALIDATION_ERROR" in errors_of(npm_validator, DERIVED)


def test_the_validator_that_knows_derivatives_finds_no_error(cli):
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    validator = shutil.which("bids-validator-deno", path=folders)
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    fine(predict(cli, "data", "--posteriors", "--qc", "--volumes", DERIVED / "volumes.tsv"))
    done = subprocess.run([validator, DERIVED, "--json"], capture_output=True, text=True, timeout=120)
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
