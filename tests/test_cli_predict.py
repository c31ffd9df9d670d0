import csv
import json
import os
import shutil
import signal

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from support.head_phantom import as_muse, head_image, head_labels, save
from support.tiny_model import CLASSES, save_random

from metasynth.cli.main import main
from metasynth.predict import evaluate
from metasynth.predict.making import Maker
from metasynth.predict.naming.names import TABLES
from metasynth.segment.model_file import model_path

SHAPE = (18, 22, 20)
PLACES = {
    "s0.nii.gz": {"orientation": "RAS"},
    "s1.mgz": {"orientation": "LIA", "spacing": (1.0, 2.0, 1.5)},
    "s2.nii": {"orientation": "PSR", "spacing": (1.2, 0.9, 2.4)},
}


@pytest.fixture
def cli(monkeypatch, tmp_path):
    """The command line in a folder with three scans, their masks and a model."""
    monkeypatch.chdir(tmp_path)
    for seed, (name, place) in enumerate(PLACES.items()):
        ids = head_labels(seed, SHAPE)
        save(tmp_path / "scans" / name, head_image(ids, seed), **place)
        save(tmp_path / "masks" / name, ((ids > 0) & (ids != 507)).astype(np.uint8), **place)
    save_random(tmp_path / "model.pt")
    return lambda *arguments: CliRunner().invoke(main, [*map(str, arguments)])


def predict(cli, *arguments):
    result = cli("predict", *arguments, "--device", "cpu", "--threads", "1", "--quiet")
    assert "Traceback" not in result.output
    return result


def fine(result):
    assert result.exit_code == 0, result.output
    return result


def refused(result, code=2):
    assert result.exit_code == code, result.output
    return result.stderr.splitlines()[-1].removeprefix("Error: ")


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_label_maps_have_the_geometry_of_their_scans(cli, tmp_path):
    result = fine(predict(cli, "model.pt", "scans", "--out", "out", "--masks", "masks"))
    assert result.stdout == "Label maps: out (3 made)\n"
    assert "Model: model.pt, trained on coronal slices of 32 x 32 voxels of 1 x 1 mm" in result.stderr
    assert "Warning" not in result.stderr
    made = {"s0.nii.gz": "s0.nii.gz", "s1.mgz": "s1.mgz", "s2.nii": "s2.nii.gz"}
    for scan, name in made.items():
        image, labels = nib.load(tmp_path / "scans" / scan), nib.load(tmp_path / "out" / name)
        assert labels.shape == image.shape
        np.testing.assert_array_equal(labels.affine, image.affine)
        assert labels.get_data_dtype() == np.uint8
        assert len(np.unique(np.asanyarray(labels.dataobj))) > 1
    record = json.loads((tmp_path / "out" / "segmentation.json").read_text())
    assert record["classes"] == list(CLASSES)
    assert record["model"]["spacing_mm"] == [1.0, 1.0]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*made.values(), "segmentation.json", *TABLES}


def test_a_broken_file_does_not_stop_the_others(cli, tmp_path):
    (tmp_path / "scans" / "s1.mgz").write_bytes(b"\x1f\x8b\x08 no volume")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 3), np.float32), np.eye(4)), tmp_path / "scans" / "series.nii")
    (tmp_path / "list.txt").write_text("scans/s0.nii.gz\nscans/gone.nii.gz  # moved\n")
    result = predict(cli, "model.pt", "scans", "list.txt", "--out", "out", "--volumes", "v.csv")
    assert refused(result, 1) == "3 of 5 scans failed: gone, s1, series"
    assert "Label maps: out (2 made)" in result.stdout
    failed = [line for line in result.stderr.splitlines() if line.startswith("Failed: ")]
    assert failed[0] == "Failed: gone: scans/gone.nii.gz: the file is missing"
    assert failed[1].startswith("Failed: s1: scans/s1.mgz: is truncated, damaged or no NIfTI or MGH file")
    assert failed[2].startswith("Failed: series: scans/series.nii: expected one volume of 3 dimensions")
    assert [row["name"] for row in rows(tmp_path / "v.csv")] == ["s0", "s2"]
    assert {p.name for p in (tmp_path / "out").glob("*.gz")} == {"s0.nii.gz", "s2.nii.gz"}


def test_what_is_there_is_skipped(cli, tmp_path):
    fine(predict(cli, "model.pt", "scans/s0.nii.gz", "--out", "out", "--stripped"))
    made = tmp_path / "out" / "s0.nii.gz"
    made.write_bytes(before := made.read_bytes() + b"\x00")
    result = fine(predict(cli, "model.pt", "scans", "--out", "out", "--stripped", "--volumes", "v.csv"))
    assert "Label maps: out (2 made, 1 skipped as they are there already)" in result.stdout
    assert made.read_bytes() == before
    assert len(rows(tmp_path / "v.csv")) == 3
    fine(predict(cli, "model.pt", "scans", "--out", "out", "--stripped", "--overwrite"))
    assert made.read_bytes() == before[:-1]
    # A picture that was not made before is no reason to skip.
    result = fine(predict(cli, "model.pt", "scans/s0.nii.gz", "--out", "out", "--stripped", "--qc"))
    assert "(1 made)" in result.stdout


def test_label_maps_of_two_models_do_not_mix(cli, tmp_path):
    save_random(tmp_path / "other.pt", seed=1)
    fine(predict(cli, "model.pt", "scans/s0.nii.gz", "--out", "out", "--stripped"))
    line = refused(predict(cli, "other.pt", "scans", "--out", "out", "--stripped"))
    assert line == "--out out: holds label maps of another model; give another folder or --overwrite"
    fine(predict(cli, "other.pt", "scans", "--out", "out", "--stripped", "--overwrite"))
    line = refused(predict(cli, "model.pt", "scans", "--out", "scans", "--stripped"))
    assert line == "--out scans: is where the input scans/s0.nii.gz lies; give another folder"


def test_posteriors_volumes_and_pictures(cli, tmp_path):
    extra = ("--posteriors", "--qc", "--volumes", "deep/v.csv")
    fine(predict(cli, "model.pt", "scans", "--out", "out", "--masks", "masks", *extra))
    for name in ("s0.nii.gz", "s1.mgz", "s2.nii.gz"):
        labels, posteriors = (nib.load(tmp_path / "out" / folder / name) for folder in ("", "posteriors"))
        shares = np.asanyarray(posteriors.dataobj)
        found = np.asanyarray(labels.dataobj)
        np.testing.assert_array_equal(shares.argmax(-1), found)
        np.testing.assert_array_equal(posteriors.affine, labels.affine)
        volume = next(row for row in rows(tmp_path / "deep" / "v.csv") if name.startswith(row["name"]))
        voxel = abs(np.linalg.det(labels.affine[:3, :3])) / 1000
        score = next(row for row in rows(tmp_path / "out" / "qc" / "scores.csv") if name.startswith(row["name"]))
        assert float(score["all"]) == pytest.approx(shares.max(-1)[found > 0].mean(), rel=1e-5)
        for k, class_name in enumerate(CLASSES[1:], 1):
            assert float(volume[class_name]) == pytest.approx(voxel * (found == k).sum(), rel=1e-5)
    pixels = matplotlib.image.imread(tmp_path / "out" / "qc" / "s1.png")[..., :3]
    assert min(pixels.shape[:2]) > 300
    assert np.ptp(pixels, axis=-1).max() > 0.2  # colours


def test_missing_preprocessing_is_said_in_a_line(cli, tmp_path):
    (tmp_path / "masks" / "s1.mgz").unlink()
    result = fine(predict(cli, "model.pt", "scans", "--out", "out", "--masks", "masks"))
    warnings = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
    assert len(warnings) == 1
    assert warnings[0].startswith(
        "Warning: no brain mask for 1 of 3 scans (s1), and the model needs an image that shows the brain alone"
    )
    fine(predict(cli, "model.pt", "scans/s1.mgz", "--out", "alone", "--masks", "masks/s0.nii.gz"))  # whatever its name
    line = refused(predict(cli, "model.pt", "scans/s1.mgz", "scans/s2.nii", "--out", "o", "--masks", "masks/s0.nii.gz"))
    assert line == (
        "--masks: none of the 1 files given has the name of an input; they are called s0, the inputs s1, s2"
    )


def test_the_segmenter_of_a_run(cli, tmp_path):
    (tmp_path / "run").mkdir()
    arguments = ("run", "scans/s0.nii.gz", "--stripped", "--out", "out")
    assert refused(predict(cli, *arguments)) == "run: holds no trained segmenter (models/*.pt)"
    for seed, stage in enumerate(("sigma=0.1/learn", "sigma=0.1/naive")):
        save_random(model_path(tmp_path / "run", stage), seed=seed, provenance={"stage": stage, "seed": 0})
    line = "run: holds 2 segmenters; choose one with --stage: sigma=0.1-learn, sigma=0.1-naive"
    assert refused(predict(cli, *arguments)) == line
    result = fine(predict(cli, *arguments, "--stage", "sigma=0.1/naive"))
    assert "Model: run/models/sigma=0.1-naive.pt (stage sigma=0.1/naive, seed 0), trained on" in result.stderr
    assert refused(predict(cli, "absent.pt", "scans", "--out", "o")).startswith("absent.pt: there is no such model")
    shutil.copy("scans/s0.nii.gz", "wrong.pt")
    line = refused(predict(cli, "wrong.pt", "scans", "--out", "o"), 1)
    assert line.startswith("wrong.pt: the model is damaged or no metasynth-model file")


def test_volumes_in_3d(cli, tmp_path):
    save_random(tmp_path / "three.pt", ndim=3)
    fine(predict(cli, "three.pt", "scans", "--out", "out", "--masks", "masks"))
    assert nib.load(tmp_path / "out" / "s2.nii.gz").shape == nib.load(tmp_path / "scans" / "s2.nii").shape


@pytest.fixture
def maps(cli, tmp_path):
    """Two label maps of FreeSurfer's ids beside MUSE's, the second shifted by a voxel, and one that is broken."""
    for seed in range(2):
        ids = head_labels(seed, SHAPE)
        save(tmp_path / "p" / f"s{seed}.nii.gz", np.roll(ids, seed, axis=0))
        save(tmp_path / "r" / f"s{seed}.nii.gz", as_muse(ids))
    return cli


def test_a_table_of_scores(maps, tmp_path):
    scored = fine(maps("evaluate", "p", "p", "--out", "t.csv", "--classes", "2,3", "--quiet"))
    assert scored.stdout.splitlines()[0].split()[1::2][:3] == ["class", "subjects", "Dice"]
    assert "Table: t.csv (2 subjects)" in scored.stdout
    table = rows(tmp_path / "t.csv")
    assert [(row["subject"], row["class"], row["dice"], row["hd95_mm"]) for row in table] == [
        (subject, name, "1", "0") for subject in ("s0", "s1") for name in ("2", "3")
    ]
    assert refused(maps("evaluate", "p", "p", "--out", "t.csv")) == (
        "--out t.csv: exists already; give another name or --overwrite"
    )
    fine(maps("evaluate", "p/s1.nii.gz", "p/s0.nii.gz", "--out", "t.csv", "--overwrite"))
    found = {row["class"]: row for row in rows(tmp_path / "t.csv")}
    assert 0 < float(found["2"]["dice"]) < 1
    assert float(found["2"]["hd95_mm"]) > 0


def test_evaluation_with_a_mapping_and_broken_files(maps, tmp_path):
    from metasynth.data_prep.mappings import MAPPINGS

    for seed in range(2):
        save(tmp_path / "four" / f"s{seed}.nii.gz", MAPPINGS["freesurfer-4"].apply(head_labels(seed, SHAPE)))
    for folder in ("four", "r"):
        save(tmp_path / folder / "s2.nii.gz", np.ones((3, 4, 5)) * (81 if folder == "r" else 1))
    save(tmp_path / "four" / "odd.nii.gz", np.ones((3, 4, 5)))
    (tmp_path / "r" / "s1.nii.gz").write_bytes(b"broken")
    result = maps("evaluate", "four", "r", "--out", "t.csv", "--mapping", "muse-4", "--quiet")
    assert refused(result, 1) == "1 of 3 subjects failed: s1"
    assert "Failed: s1: r/s1.nii.gz: is truncated, damaged or no NIfTI or MGH file" in result.stderr
    assert "Note: without a partner of their name: four/odd.nii.gz" in result.stderr
    table = rows(tmp_path / "t.csv")
    assert len(table) == 8
    assert [row["dice"] for row in table] == ["1"] * 5 + [""] * 3
    assert table[5]["hd95_mm"] == table[5]["volume_error_percent"] == ""


def test_what_predict_makes_can_be_evaluated(cli, tmp_path):
    fine(predict(cli, "model.pt", "scans", "--out", "out", "--masks", "masks", "--qc", "--posteriors"))
    result = fine(cli("evaluate", "out", "out", "--out", "t.csv", "--classes", "bright,dark"))
    assert {row["class"] for row in rows(tmp_path / "t.csv")} == {"bright", "dark"}
    assert "| bright |" in result.stdout
    line = refused(cli("evaluate", "out", "out", "--out", "u.csv", "--mapping", "muse-4"))
    assert line.startswith("--mapping muse-4: has the classes background, white matter")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_prediction_that_is_asked_to_end_keeps_what_is_done(cli, tmp_path, monkeypatch, number):
    whole = Maker._make

    def asked(*arguments):
        units = whole(*arguments)
        os.kill(os.getpid(), number)
        return units

    monkeypatch.setattr(Maker, "_make", asked)
    stopped = predict(cli, "model.pt", "scans", "--out", "out", "--stripped")
    told = ["What is done is kept; the same command goes on from there.", "", "Interrupted."]
    assert (stopped.exit_code, stopped.stderr.splitlines()[-3:]) == (128 + number, told)
    monkeypatch.setattr(Maker, "_make", whole)
    again = fine(predict(cli, "model.pt", "scans", "--out", "out", "--stripped"))
    assert again.stdout == "Label maps: out (2 made, 1 skipped as they are there already)\n"


def test_scoring_that_is_asked_to_end_writes_no_table(cli, tmp_path, monkeypatch):
    fine(predict(cli, "model.pt", "scans", "--out", "out", "--stripped"))
    distance = evaluate.hausdorff_distance

    def asked(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return distance(*arguments)

    monkeypatch.setattr(evaluate, "hausdorff_distance", asked)
    stopped = cli("evaluate", "out", "out", "--out", "scores.csv", "--quiet")
    assert (stopped.exit_code, stopped.stderr.splitlines()) == (143, ["", "Interrupted."])
    assert not (tmp_path / "scores.csv").exists()
