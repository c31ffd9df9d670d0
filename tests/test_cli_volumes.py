"""Volumes that are odd or broken, through the commands: a line each, and what is beside them is done."""

import csv
import gzip
import os
from pathlib import Path

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from support.head_phantom import head_image, head_labels, save
from support.tiny_model import CLASSES, save_random

from metasynth.cli.main import main
from metasynth.data.cache import Cache

SHAPE = (18, 22, 20)
IDS = head_labels(0, SHAPE)
IMAGE = head_image(IDS)


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_model(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    save_random(tmp_path / "model.pt")


def run(*arguments):
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def predict(*arguments):
    return run("predict", "model.pt", *arguments, "--out", "out", "--device", "cpu", "--threads", "1", "--quiet")


def lines(result, beginning):
    return [line.removeprefix(beginning) for line in result.stderr.splitlines() if line.startswith(beginning)]


def rows(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def vox_offset_348(path):
    image = nib.Nifti1Image(np.ones(SHAPE, np.int16), np.eye(4)).to_bytes()
    path.write_bytes(image[:108] + np.float32(348).tobytes() + image[112:])


def cifti(path):
    model = nib.cifti2.BrainModelAxis.from_mask(np.ones((2, 2, 2), bool), affine=np.eye(4))
    nib.save(nib.Cifti2Image(np.ones((1, 8), np.float32), (nib.cifti2.ScalarAxis(["x"]), model)), path)


def gifti(path):
    array = nib.gifti.GiftiDataArray(np.zeros((4, 3), np.float32))
    path.write_bytes(nib.gifti.GiftiImage(darrays=[array]).to_bytes())


BROKEN = {
    "header": (vox_offset_348, "is truncated, damaged or no NIfTI or MGH file (vox offset 348 too low"),
    "cifti": (cifti, "expected one volume of 3 dimensions, got shape 1 x 1 x 1 x 1 x 1 x 8"),
    "gifti": (gifti, "is truncated, damaged or no NIfTI or MGH file (it begins like neither)"),
    "pipe": (os.mkfifo, "expected a NIfTI or MGH file, got a pipe"),
    "loop": (lambda path: path.symlink_to(path.name), "cannot be opened: Too many levels of symbolic links"),
    "folder": (os.mkdir, "expected a NIfTI or MGH file, got a folder"),
    "micrometres": (
        lambda path: save(path, IDS, spacing=(1000, 1000, 1000)),
        "expected voxels of 0.05 to 20 mm, got 1000 x 1000 x 1000 mm (its header names no unit, mm is assumed); "
        "--units mm, um or m says what its affine is in",
    ),
}


@pytest.fixture
def folders(tmp_path):
    """Good files of s0 and s2 in three folders, and every kind of broken one beside them."""
    for name, data in (("images", IMAGE), ("labels", IDS), ("masks", (IDS > 0).astype(np.uint8))):
        for scan in ("s0", "s2", *BROKEN):
            path = tmp_path / name / f"{scan}.nii"
            path.parent.mkdir(exist_ok=True)
            if name == "images" or scan not in BROKEN:
                save(path, data)
            else:
                BROKEN[scan][0](path)
    for scan in BROKEN:
        broken = tmp_path / "broken" / f"{scan}.nii"
        broken.parent.mkdir(exist_ok=True)
        BROKEN[scan][0](broken)
    for scan in ("s0", "s2"):
        save(tmp_path / "broken" / f"{scan}.nii", IMAGE)
    return tmp_path


def reasons(found, folder):
    """Every broken file has its line."""
    assert sorted(line.partition(": ")[0] for line in found) == sorted(BROKEN)
    for line in found:
        name, _, reason = line.partition(": ")
        assert reason.startswith(f"{folder}/{name}.nii: {BROKEN[name][1]}")


@pytest.mark.parametrize("arguments", [("broken",), ("images", "--masks", "masks")])
def test_predict_goes_on_past_every_broken_file(folders, arguments):
    result = predict(*arguments)
    assert result.exit_code == 1
    assert result.stdout == "Label maps: out (2 made)\n"
    reasons(lines(result, "Failed: "), arguments[-1])
    assert sorted(path.name for path in Path("out").glob("*.nii.gz")) == ["s0.nii.gz", "s2.nii.gz"]


def test_prep_goes_on_past_every_broken_file(folders):
    for arguments, folder in (
        (("labels", "labels"), "labels"),
        (("nifti", "--images", "images", "--labels", "labels"), "labels"),
        (("nifti", "--images", "broken", "--labels", "labels"), "labels"),
    ):
        result = run("prep", *arguments, "--out", "c.h5", "--overwrite", "--no-montage", "--jobs", "1")
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("Subjects: 2 used, 7 left out\n")
        reasons(lines(result, "Left out: "), folder)
        with Cache("c.h5") as cache:
            assert cache.subjects == ("s0", "s2")
    for scan in BROKEN:
        path = folders / "labels" / f"{scan}.nii"
        path.rmdir() if path.is_dir() else path.unlink()
        save(path, IDS)
    arguments = ("--images", "images", "--labels", "labels", "--masks", "masks")
    result = run("prep", "nifti", *arguments, "--out", "c.h5", "--overwrite", "--no-montage", "--jobs", "1")
    assert result.exit_code == 0, result.output
    reasons(lines(result, "Left out: "), "masks")


@pytest.mark.parametrize("order", [("labels", "full"), ("full", "labels")])
def test_evaluate_goes_on_past_every_broken_file(folders, order):
    for scan in ("s0", "s2", *BROKEN):
        save(folders / "full" / f"{scan}.nii", IDS)
    result = run("evaluate", *order, "--out", "t.csv", "--quiet")
    assert result.exit_code == 1
    assert "Table: t.csv (2 subjects)" in result.stdout
    reasons(lines(result, "Failed: "), "labels")
    assert {(row["subject"], row["dice"]) for row in rows("t.csv")} == {("s0", "1"), ("s2", "1")}


def test_a_label_map_that_was_damaged_does_not_cost_the_volumes_of_others(tmp_path):
    for name in ("s0", "s1"):
        save(tmp_path / "scans" / f"{name}.nii.gz", IMAGE)
    assert predict("scans", "--stripped").exit_code == 0
    made = tmp_path / "out" / "s1.nii.gz"
    made.write_bytes(made.read_bytes()[:200])
    result = predict("scans", "--stripped", "--volumes", "v.csv")
    assert result.exit_code == 1
    assert lines(result, "Failed: s1: out/s1.nii.gz: is truncated, damaged or no NIfTI or MGH file")
    assert [row["name"] for row in rows("v.csv")] == ["s0"]
    save(made, np.full(SHAPE, 2_000_000_000, np.int32))
    result = predict("scans", "--stripped", "--volumes", "v.csv")
    assert lines(result, "Failed: ") == ["s1: out/s1.nii.gz: holds label 2000000000; the classes are 0 to 3"]


BEYOND = "beyond the 3.4e38 that single precision holds"
ODD = {
    "zeros": (np.zeros(SHAPE, np.float32), "shows nothing to segment, every voxel is 0.0"),
    "constant": (np.full(SHAPE, 7, np.int16), "shows nothing to segment, every voxel is 7.0"),
    "nan": (np.full(SHAPE, np.nan, np.float32), "shows nothing to segment, every voxel is nan"),
    "infinite": (np.full(SHAPE, np.inf, np.float32), f"shows nothing to segment, every voxel is inf, or {BEYOND}"),
    "constant_huge": (np.full(SHAPE, 1e300), f"shows nothing to segment, every voxel is inf, or {BEYOND}"),
    "one_voxel": (np.ones((1, 1, 1), np.float32), "shows nothing to segment, every voxel is 1.0"),
    "flat": (IMAGE[:, :, 0], "expected one volume of 3 dimensions, got shape 18 x 22"),
    "huge": (
        np.where(IDS > 0, 1e300, 0),
        f"{int((IDS > 0).sum())} voxels that are needed are NaN or infinite, or {BEYOND}",
    ),
    "blank_but_one": (np.pad([[[1.0]]], 4).astype(np.float32), "has no contrast, its 1 and 99 % quantiles are both 1"),
    "slice": (IMAGE[:, :, 10:11], None),
    "negative": (IMAGE - 1000, None),
    "small": (1e-30 * IMAGE, None),
    "large": (1e35 * IMAGE.astype(np.float64), None),
}


def test_odd_images_have_a_line_and_cost_nobody(tmp_path):
    (tmp_path / "scans").mkdir()
    for name, (data, _) in ODD.items():
        nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "scans" / f"{name}.nii")
    save(tmp_path / "scans" / "z.nii", IMAGE)
    result = predict("scans", "--stripped", "--qc", "--volumes", "v.csv")
    failed = dict(line.split(": ", 1) for line in lines(result, "Failed: "))
    for name, (_, reason) in ODD.items():
        if reason is None:
            assert name not in failed
            assert (tmp_path / "out" / f"{name}.nii.gz").is_file()
        else:
            assert failed[name] == f"scans/{name}.nii: {reason}"
    assert (tmp_path / "out" / "z.nii.gz").is_file()
    found = [np.asanyarray(nib.load(f"out/{name}.nii.gz").dataobj) for name in ("z", "small", "large")]
    for other in found[1:]:
        assert (other != found[0]).mean() < 0.001  # single precision


@pytest.mark.parametrize(("shape", "size"), [((2, 64, 64), (1, 1, 1)), ((4, 4, 60), (0.05, 0.05, 20.0))])
def test_a_narrow_field_has_a_picture(tmp_path, shape, size):
    rng = np.random.default_rng(0)
    save(tmp_path / "a.nii", rng.uniform(1, 100, shape).astype(np.float32), spacing=size)
    result = predict("a.nii", "--stripped", "--qc")
    assert result.exit_code == 0, result.stderr
    height, width = matplotlib.image.imread("out/qc/a.png").shape[:2]
    assert width == 1020
    assert height < 6 * 8 * 170 + 100


def test_a_blank_image_with_a_mask_has_a_line(tmp_path):
    save(tmp_path / "a.nii", np.full(SHAPE, 5.0, np.float32))
    save(tmp_path / "m.nii", (IDS > 0).astype(np.uint8))
    result = predict("a.nii", "--masks", "m.nii")
    assert lines(result, "Failed: ") == ["a: a.nii: has no contrast, its 1 and 99 % quantiles are both 5"]


def in_micrometres(path, data, unit="micron"):
    image = nib.Nifti1Image(data, np.diag([1000.0, 1500.0, 2000.0, 1.0]))
    image.header.set_xyzt_units(unit)
    path.parent.mkdir(exist_ok=True)
    nib.save(image, path)


def test_predict_in_other_units(tmp_path):
    place = np.diag([1.0, 1.5, 2.0, 1.0])
    save(tmp_path / "mm" / "s0.nii", IMAGE, affine=place)
    assert predict("mm", "--stripped", "--volumes", "mm.csv").exit_code == 0
    expected, volumes = np.asanyarray(nib.load("out/s0.nii.gz").dataobj), rows("mm.csv")[0]
    for unit, flag in (("micron", ()), ("unknown", ("--units", "um"))):
        in_micrometres(tmp_path / unit / "s0.nii", IMAGE, unit)
        result = predict(unit, "--stripped", "--volumes", "v.csv", "--overwrite", *flag)
        assert result.exit_code == 0, result.output
        notes = ["affines in micrometres by their headers, brought to mm: s0"]
        assert lines(result, "Note: ") == ([] if flag else notes)
        made = nib.load("out/s0.nii.gz")
        assert made.header.get_xyzt_units()[0] == unit
        np.testing.assert_array_equal(made.affine, nib.load(f"{unit}/s0.nii").affine)
        np.testing.assert_array_equal(np.asanyarray(made.dataobj), expected)
        assert rows("v.csv")[0] == volumes
    assert sum(float(volumes[name]) for name in CLASSES[1:]) == pytest.approx(0.003 * (expected > 0).sum(), rel=1e-4)


def test_evaluate_in_other_units(tmp_path):
    in_micrometres(tmp_path / "p" / "s0.nii", np.roll(IDS, 1, axis=0))
    save(tmp_path / "r" / "s0.nii", IDS, affine=np.diag([1.0, 1.5, 2.0, 1.0]))
    result = run("evaluate", "p", "r", "--out", "t.csv", "--classes", "2")
    assert result.exit_code == 0, result.output
    assert lines(result, "Note: ") == ["affines in micrometres by their headers, brought to mm: s0"]
    row = rows("t.csv")[0]
    assert float(row["reference_ml"]) == pytest.approx(0.003 * (IDS == 2).sum(), rel=1e-4)
    assert float(row["hd95_mm"]) == 1.0
    result = run("evaluate", "p", "r", "--out", "t.csv", "--units", "mm", "--overwrite")
    assert "must have the same voxels" in lines(result, "Failed: ")[0]


def test_prep_in_other_units(tmp_path):
    for name in ("s0", "s1"):
        in_micrometres(tmp_path / "labels" / f"{name}.nii", IDS)
    arguments = ("prep", "labels", "labels", "--no-montage", "--jobs", "1")
    for out, more in (
        ("a.h5", ()),
        ("b.h5", ("--units", "um")),
        ("c.h5", ("--keep-work",)),
        ("c.h5", ("--overwrite",)),
    ):
        result = run(*arguments, "--out", out, *more)
        assert result.exit_code == 0, result.output
        notes = ["affines in micrometres by their headers, brought to mm: s0, s1"]
        assert lines(result, "Note: ") == ([] if "--units" in more else notes)
        with Cache(out) as cache:
            assert cache.info.spacing_mm == (2.0, 1.0)
    result = run(*arguments, "--out", "d.h5", "--units", "mm")
    with Cache("d.h5") as cache:
        assert cache.info.spacing_mm == (2000.0, 1000.0)


def test_two_files_of_a_pair_make_one_label_map(tmp_path):
    save(tmp_path / "s0.nii", IMAGE)
    image = nib.load("s0.nii")
    pair = nib.Nifti1Pair(np.asanyarray(image.dataobj), image.affine)
    pair.set_qform(image.affine, 1)
    pair.header.set_xyzt_units("mm", "sec")
    nib.save(pair, "a.img")
    assert predict("s0.nii", "a.hdr", "--stripped").exit_code == 0
    made, expected = nib.load("out/a.nii.gz"), nib.load("out/s0.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(made.dataobj), np.asanyarray(expected.dataobj))
    np.testing.assert_array_equal(made.affine, image.affine)
    assert made.header.get_xyzt_units() == ("mm", "sec")
    assert int(made.header["qform_code"]) == 1


def test_a_file_that_claims_gigabytes_costs_nobody(tmp_path):
    save(tmp_path / "scans" / "s0.nii.gz", IMAGE)
    made = nib.Nifti1Header()
    made.set_data_dtype(np.float32)
    made.set_data_shape((1024, 1024, 820))
    made["vox_offset"] = 352
    (tmp_path / "scans" / "s1.nii.gz").write_bytes(gzip.compress(made.binaryblock))
    result = predict("scans", "--stripped")
    assert "(1 made)" in result.stdout
    assert "its header claims 1024 x 1024 x 820 voxels of float32, 3.2 GiB" in lines(result, "Failed: ")[0]
