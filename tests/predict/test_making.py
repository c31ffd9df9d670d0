"""Scans side by side, the mean of several models, and the table that ranks scans."""

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from metasynth.data_prep.mappings import MAPPINGS
from predict.test_scan import blobs, image_of
from support.dying import Barred, Dying, nothing
from support.head_phantom import head_image, head_labels, save
from support.tiny_model import CLASSES, describe, random_model, random_unet, save_random

from metasynth import sizes
from metasynth.cli.main import main
from metasynth.errors import RunError
from metasynth.predict import making
from metasynth.predict.qc import expected_dice
from metasynth.predict.scan import Segmentation, segment
from metasynth.predict.shipped import digest_of_models
from metasynth.segment.model_description import TrainedModel
from metasynth.segment.model_file import save_model
from metasynth.segment.unet import UNet

SHAPE = (18, 22, 20)


@pytest.fixture
def cli(monkeypatch, tmp_path):
    """The command line in a folder with three scans and two models."""
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        save(tmp_path / "scans" / f"s{seed}.nii.gz", head_image(head_labels(seed, SHAPE), seed))
    save_random(tmp_path / "a.pt")
    save_random(tmp_path / "b.pt", seed=1, spacing=1.5, axis="axial", orientation="PR")
    return lambda *given: CliRunner().invoke(
        main, ["predict", "scans", "--stripped", "--device", "cpu", "--threads", "1", "--quiet", *map(str, given)]
    )


def fine(result):
    assert result.exit_code == 0, result.output
    return result


def last_line(result, code):
    assert result.exit_code == code, result.output
    return result.stderr.splitlines()[-1]


def made(folder):
    """What a folder holds, but for the record's order of writing."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_side_by_side_the_same_bytes_are_made(cli, tmp_path):
    more = ("--model", "a.pt", "--posteriors", "--qc", "--volumes")
    one = fine(cli(*more, "one.csv", "--out", "one"))
    two = fine(cli(*more, "two.csv", "--out", "two", "--jobs", "2"))
    assert two.stdout == one.stdout.replace("one", "two")
    assert made(tmp_path / "two") == made(tmp_path / "one")
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    again = fine(cli(*more, "two.csv", "--out", "two", "--jobs", "2"))
    assert "(0 made, 3 skipped as they are there already)" in again.stdout


def test_side_by_side_a_scan_that_fails_is_named_and_the_others_are_done(cli, tmp_path):
    (tmp_path / "scans" / "s0.nii.gz").write_bytes(b"\x1f\x8b\x08 no volume")
    save(tmp_path / "scans" / "s1.nii.gz", np.zeros(SHAPE, np.float32))
    result = cli("--model", "a.pt", "--out", "out", "--jobs", "2")
    assert last_line(result, 1) == "Error: 2 of 3 scans failed: s0, s1"
    failed = [line for line in result.stderr.splitlines() if line.startswith("Failed: ")]
    assert failed[0].startswith("Failed: s0: scans/s0.nii.gz: is truncated, damaged or no NIfTI or MGH file")
    assert failed[1] == "Failed: s1: scans/s1.nii.gz: shows nothing to segment, every voxel is 0.0"
    assert [path.name for path in (tmp_path / "out").glob("*.gz")] == ["s2.nii.gz"]


def test_side_by_side_an_error_of_the_folder_is_one_line(cli, tmp_path):
    """What concerns every scan ends the command as it does in one process."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "posteriors").write_text("in the way")
    results = [cli("--model", "a.pt", "--out", "out", "--posteriors", "--jobs", n) for n in (1, 2)]
    lines = [last_line(result, result.exit_code) for result in results]
    assert results[0].exit_code == results[1].exit_code == 2
    assert lines[0] == lines[1]


@pytest.mark.parametrize(
    ("maker", "message"),
    [
        (
            Dying(),
            "a worker process was killed, perhaps for want of memory: try fewer --jobs; run the same command again to "
            "continue",
        ),
        (Barred(), "out/s0.nii.gz: cannot be written: Permission denied"),
    ],
)
def test_an_end_of_all_is_said_in_a_line(maker, message):
    scans = [making.Scan(f"s{i}", None) for i in range(3)]
    with pytest.raises(RunError) as caught:
        list(making.make_all(maker, scans, 2, nothing))
    assert str(caught.value) == message


def test_more_processes_than_could_be_served_are_refused(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(sizes, "cores", lambda: 2)
    result = cli("--model", "a.pt", "--out", "out", "--jobs", 1000)
    line = "Error: --jobs: expected at most 64 processes (32 for each of 2 cores), got 1000"
    assert last_line(result, 2) == line
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_command_that_is_interrupted_leaves_no_process_and_goes_on(cli, tmp_path):
    for seed in range(3, 40):
        save(tmp_path / "scans" / f"s{seed}.nii.gz", head_image(head_labels(seed, SHAPE), seed))
    words = ["predict", "scans", "--stripped", "--model", "a.pt", "--out", "out", "--device", "cpu", "--quiet"]
    command = [sys.executable, "-m", "metasynth", *words, "--jobs", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while not list((tmp_path / "out").glob("s*.nii.gz")):
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate()[1].splitlines()
    assert process.returncode == 128 + signal.SIGINT
    assert said[-3:] == ["What is done is kept; the same command goes on from there.", "", "Interrupted."]
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    result = fine(cli("--model", "a.pt", "--out", "out", "--jobs", "2"))
    assert "skipped as they are there already" in result.stdout
    assert len(list((tmp_path / "out").glob("s*.nii.gz"))) == 40


def test_the_mean_of_two_models_of_other_spacings_and_axes():
    models = [random_model(), TrainedModel(random_unet(3, seed=1).eval(), describe(3, spacing=1.5))]
    image = image_of(blobs())
    alone = [segment(model, image, keep_posteriors=True).posteriors for model in models]
    assert np.abs(alone[0] - alone[1]).max() > 0.1
    for order in (models, models[::-1]):
        found = segment(order, image, keep_posteriors=True)
        np.testing.assert_allclose(found.posteriors, np.mean(alone, axis=0), atol=1e-6)
        np.testing.assert_array_equal(found.labels, found.posteriors.argmax(-1))
    np.testing.assert_array_equal(segment(models[:1], image).labels, alone[0].argmax(-1))


def test_models_that_are_given_one_by_one_are_averaged(cli, tmp_path):
    both = ("--model", "a.pt", "--model", "b.pt")
    result = fine(cli(*both, "--out", "out"))
    said = [line.split(",")[0] for line in result.stderr.splitlines() if line.startswith("Model: ")]
    assert said == ["Model: a.pt", "Model: b.pt"]
    # The order does not matter, and a model counts once; other models are others.
    assert "(0 made, 3 skipped" in fine(cli("--model", "b.pt", *both, "--out", "out")).stdout
    line = "Error: --out out: holds label maps of another model; give another folder or --overwrite"
    assert last_line(cli("--model", "a.pt", "--out", "out"), 2) == line
    fine(cli(*both, "--out", "two", "--jobs", "2"))
    assert (tmp_path / "two" / "s0.nii.gz").read_bytes() == (tmp_path / "out" / "s0.nii.gz").read_bytes()


def test_one_model_has_the_digest_it_ever_had(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert digest_of_models([tmp_path / "a"]) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"class_names": ("background", "dark", "medium", "light")},
            "--model c.pt: expected the classes of a.pt (background, dark, medium, bright), got background, dark, "
            "medium, light",
        ),
        (
            {"brain_only": False, "scaled_by": "head"},
            "--model c.pt: expected a model of brains as a.pt is, got one of heads",
        ),
    ],
)
def test_models_that_have_no_mean_are_told_before_anything_is_made(cli, tmp_path, changed, message):
    save_random(tmp_path / "c.pt", **changed)
    assert last_line(cli("--model", "a.pt", "--model", "c.pt", "--out", "out"), 2) == f"Error: {message}"
    assert not (tmp_path / "out").exists()


def test_the_dice_to_expect_of_known_posteriors():
    """Four voxels; of class 1, two labels with .9 and .6 and .3 beyond, so 2 x 1.5 / (1.8 + 2)."""
    posteriors = np.array([[[[0.1, 0.9, 0.0]], [[0.4, 0.6, 0.0]], [[0.7, 0.3, 0.0]], [[1.0, 0.0, 0.0]]]], np.float32)
    labels, certainty = posteriors.argmax(-1).astype(np.uint8), posteriors.max(-1)
    found = Segmentation(labels, certainty, None, tuple(posteriors.sum((0, 1, 2)).tolist()))
    assert expected_dice(found) == [pytest.approx(3 / 3.8), pytest.approx(3 / 3.8), None]
    nothing = Segmentation(np.zeros_like(labels), np.ones_like(certainty), None, (3.9, 0.1, 0.0))
    assert expected_dice(nothing) == [0.0, 0.0, None]


def test_the_mass_of_a_class_is_the_sum_of_its_posteriors():
    found = segment(random_model(spacing=1.4), image_of(blobs()), keep_posteriors=True)
    np.testing.assert_allclose(found.mass, found.posteriors.sum((0, 1, 2)), rtol=1e-5)


def test_qc_ranks_scans_the_least_expected_dice_first(cli, tmp_path):
    noise = np.random.default_rng(0).normal(0, 60, SHAPE)
    save(tmp_path / "scans" / "noisy.nii.gz", (head_image(head_labels(0, SHAPE)) + noise).astype(np.float32))
    result = fine(cli("--model", "a.pt", "--out", "out", "--qc"))
    note = (
        "Note: scans to look at first: out/qc/qc.tsv (the least expected Dice first; on degraded scans its rank "
        "correlation with Dice was .93)"
    )
    assert note in result.stderr.splitlines()
    with (tmp_path / "out" / "qc" / "qc.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert list(rows[0]) == ["name", "expected_dice", *CLASSES[1:]]
    assert sorted(row["name"] for row in rows) == ["noisy", "s0", "s1", "s2"]
    scores = [float(row["expected_dice"]) for row in rows]
    assert scores == sorted(scores)
    for row in rows:
        each = [float(row[name]) for name in CLASSES[1:] if row[name]]
        assert float(row["expected_dice"]) == pytest.approx(np.mean(each), abs=1e-5)
    fine(cli("--model", "a.pt", "--out", "out", "--qc", "--overwrite", "--jobs", "2"))
    with (tmp_path / "out" / "qc" / "qc.tsv").open(newline="") as file:
        assert list(csv.DictReader(file, delimiter="\t")) == rows


def test_a_table_of_somebody_else_is_left_alone(cli, tmp_path):
    (tmp_path / "out" / "qc").mkdir(parents=True)
    (tmp_path / "out" / "qc" / "qc.tsv").write_text("mine\tyours\n")
    result = cli("--model", "a.pt", "--out", "out", "--qc")
    assert last_line(result, 2).startswith("Error: --out out: out/qc/qc.tsv")
    assert (tmp_path / "out" / "qc" / "qc.tsv").read_text() == "mine\tyours\n"


def test_a_scan_is_too_large_for_the_memory_of_a_gpu(cli, tmp_path, monkeypatch):
    def full(*given, **more):
        raise torch.OutOfMemoryError("Tried to allocate 20.00 GiB")

    monkeypatch.setattr(making, "segment", full)
    result = cli("--model", "a.pt", "--out", "out")
    assert "Failed: s0: scans/s0.nii.gz: is too large for the memory there is" in result.stderr.splitlines()


def test_where_there_is_no_room_for_what_is_made_of_a_scan_the_others_are_done(cli, tmp_path, monkeypatch, full_disk):
    own = making.write_like

    def write(path, data, scan):
        if scan.name != "s1.nii.gz":
            return own(path, data, scan)
        with full_disk():
            return own(path, data, scan)

    monkeypatch.setattr(making, "write_like", write)
    result = cli("--model", "a.pt", "--out", "out")
    assert result.exit_code == 1
    assert "Failed: s1: out/s1.nii.gz: cannot be written: No space left on device" in result.stderr.splitlines()
    assert sorted(path.name for path in (tmp_path / "out").glob("s*.gz")) == ["s0.nii.gz", "s2.nii.gz"]
    monkeypatch.setattr(making, "write_like", own)
    assert (
        "Label maps: out (1 made, 2 skipped as they are there already)"
        in fine(cli("--model", "a.pt", "--out", "out")).stdout
    )


def test_a_class_of_24_that_freesurfer_does_not_know_is_told_before_anything_is_made(cli, tmp_path):
    names = (*MAPPINGS["freesurfer-24"].class_names[:-1], "left tumour")
    save_model(tmp_path / "c.pt", UNet(len(names), ndim=2, widths=(4, 6)), describe(class_names=names))
    assert last_line(cli("--model", "c.pt", "--out", "out", "--ids", "freesurfer"), 2) == (
        "Error: --ids freesurfer: FreeSurfer has no id for 'left tumour'; expected classes that are one structure "
        "each, such as 'left hippocampus' (of freesurfer-24, say); leave --ids out"
    )
    assert not (tmp_path / "out").exists()
