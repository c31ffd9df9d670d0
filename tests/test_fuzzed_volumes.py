"""Whatever a file of a volume holds, a command ends with results or a line, and files beside it are not affected."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.head_phantom import head_image, head_labels, save
from support.odd_volumes import odd_files
from support.tiny_model import save_random

from metasynth import sizes
from metasynth.cli.main import main
from metasynth.data.cache import Cache

SHAPE = (12, 14, 13)
IDS = head_labels(0, SHAPE)
few = settings(max_examples=25, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
many = settings(few, max_examples=250)


flags = st.sampled_from(((), ("--units", "mm")))


def run(*arguments):
    """The end of a command: an exit status of 0 or 1, and what went wrong in lines."""
    result = CliRunner().invoke(main, [*map(str, arguments)])
    torch.set_flush_denormal(False)  # hypothesis insists
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.output
    assert result.exit_code in (0, 1), result.output
    assert (result.exit_code == 0) or result.stderr.splitlines()[-1].startswith("Error: ")
    return result


def reason(result, beginning):
    """Why the odd file was not used, in one line that names a file of it; None where it was."""
    found = [line for line in result.stderr.splitlines() if line.startswith(beginning)]
    assert len(found) <= 1, result.stderr
    if found:
        assert found[0].startswith(f"{beginning}odd: ")
        assert "/odd." in found[0] or "its voxels are" in found[0]  # others than most, of a cache
    return found[0] if found else None


PREDICT = ("--device", "cpu", "--threads", "1", "--quiet", "--posteriors")
PREP = ("--unknown", "background", "--no-montage", "--jobs", "1", "--quiet", "--slices", "all", "--min-content", "0")


def predict(folder, out, *inputs):
    table = out.with_suffix(".csv")
    return run("predict", folder / "model.pt", *inputs, "--out", out, "--volumes", table, *PREDICT)


def made(folder, name="good"):
    """All files made of a scan, by their place."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob(f"{name}.*"))}


def subject(cache, name):
    """What a cache holds of a subject, without what the others decide: the size of slices."""
    if name not in cache.subjects:
        return None
    at = np.flatnonzero(cache.subject_index == cache.subjects.index(name))
    images = cache.read_images(at).sum(dtype=np.float64) if cache.has_images else None
    return np.bincount(cache.read_labels(at).ravel(), minlength=cache.n_classes)[1:].tolist(), images


@pytest.fixture(scope="module")
def good():
    """A folder with a model, good files, and what they give alone; on a machine with little memory."""
    patch = pytest.MonkeyPatch()
    patch.setattr(sizes, "available_memory", lambda: 20_000_000)
    folder = Path(tempfile.mkdtemp())
    save_random(folder / "model.pt")
    save(folder / "image" / "good.nii.gz", head_image(IDS), "LIA")
    save(folder / "labels" / "good.nii.gz", IDS, "LIA")
    save(folder / "mask" / "good.nii.gz", (IDS > 0).astype(np.uint8), "LIA")
    assert predict(folder, folder / "alone", folder / "image" / "good.nii.gz", "--stripped").exit_code == 0
    masked = (folder / "image" / "good.nii.gz", "--masks", folder / "mask" / "good.nii.gz")
    assert predict(folder, folder / "masked", *masked).exit_code == 0
    run("prep", "labels", folder / "labels" / "good.nii.gz", "--out", folder / "labels.h5", *PREP)
    pair = ("--images", folder / "image" / "good.nii.gz", "--labels", folder / "labels" / "good.nii.gz")
    run("prep", "nifti", *pair, "--out", folder / "nifti.h5", *PREP)
    yield folder
    shutil.rmtree(folder)
    patch.undo()


def odd_among_good(good, role, odd, folder):
    """The good files and the odd one, which is the image, label map or mask of a second subject."""
    paths = {}
    for name in ("image", "labels", "mask"):
        shutil.copytree(good / name, folder / name)
        paths[name] = [folder / name / "good.nii.gz"]
        if name == role:
            paths[name].append(odd.write(folder / name, "odd"))
        else:
            shutil.copy(folder / name / "good.nii.gz", folder / name / "odd.nii.gz")
            paths[name].append(folder / name / "odd.nii.gz")
    return paths


def check_predict(good, odd, *more):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = odd_among_good(good, "image", odd, folder)["image"]
        result = predict(good, folder / "out", *paths, "--stripped", *more)
        assert {name: content for name, content in made(folder / "out").items() if name[:2] != "qc"} == made(
            good / "alone"
        )
        assert (reason(result, "Failed: ") is None) == (len(made(folder / "out", "odd")) == len(made(folder / "out")))


def check_mask(good, odd, *more):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = odd_among_good(good, "mask", odd, folder)
        masks = [argument for path in paths["mask"] for argument in ("--masks", path)]
        result = predict(good, folder / "out", *paths["image"], *masks, *more)
        assert made(folder / "out") == made(good / "masked")
        assert (reason(result, "Failed: ") is None) == (len(made(folder / "out", "odd")) == 2)


def check_evaluate(good, odd, *more):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        odd_among_good(good, "labels", odd, folder)
        for order in (("labels", "truth"), ("truth", "labels")):
            shutil.copytree(folder / "labels", folder / "truth", dirs_exist_ok=True)
            (folder / "truth" / f"odd{odd.ending}").unlink()
            save(folder / "truth" / "odd.nii.gz", IDS)
            lists = []
            for part in order:
                (folder / f"{part}.txt").write_text("\n".join(map(str, listed(folder / part))))
                lists.append(folder / f"{part}.txt")
            result = run("evaluate", *lists, "--out", folder / "t.csv", "--overwrite", "--quiet", *more)
            rows = (folder / "t.csv").read_text().splitlines()
            assert [row.split(",")[2:4] for row in rows if row.startswith("good")] == [["1", "0"]] * 11
            failed = reason(result, "Failed: ")
            assert (failed is None) or not any(row.startswith("odd") for row in rows)


def listed(folder):
    return sorted(path for path in folder.iterdir() if path.suffix != ".img")


def check_prep_labels(good, odd, *more):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = odd_among_good(good, "labels", odd, folder)["labels"]
        result = run("prep", "labels", *paths, "--out", folder / "c.h5", *PREP, *more)
        check_cache(result, good / "labels.h5", folder / "c.h5")


def check_prep_nifti(good, odd, *more):
    for role in ("image", "labels", "mask"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            paths = odd_among_good(good, role, odd, folder)
            pairs = [argument for path in paths["image"] for argument in ("--images", path)]
            pairs += [argument for path in paths["labels"] for argument in ("--labels", path)]
            if role == "mask":
                pairs += [argument for path in paths["mask"] for argument in ("--masks", path)]
            result = run("prep", "nifti", *pairs, "--out", folder / "c.h5", *PREP, *more)
            check_cache(result, None if role == "mask" else good / "nifti.h5", folder / "c.h5")


def check_cache(result, alone, path):
    left_out = reason(result, "Left out: ")
    assert result.exit_code == 0, result.output
    with Cache(path) as cache:
        assert "good" in cache.subjects
        assert ("odd" in cache.subjects) == (left_out is None)
        if alone is not None:
            with Cache(alone) as other:
                assert subject(cache, "good") == subject(other, "good")
    report = json.loads(path.with_suffix(".report.json").read_text())
    assert [entry["name"] for entry in report["left_out"]] == ([] if left_out is None else ["odd"])


def check_resampled(good, odd, *more):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for role in ("image", "labels"):
            paths = odd_among_good(good, role, odd, folder / role)
            pairs = [argument for path in paths["image"] for argument in ("--images", path)]
            pairs += [argument for path in paths["labels"] for argument in ("--labels", path)]
            changed = ("--resample-labels", "--spacing", "1.5,1,2", "--3d")
            result = run("prep", "nifti", *pairs, "--out", folder / role / "c.h5", *PREP, *changed, *more)
            check_cache(result, None, folder / role / "c.h5")


def check_pictures(good, odd, *more):
    check_predict(good, odd, "--qc", *more)


CHECKS = (check_predict, check_mask, check_evaluate, check_prep_labels, check_prep_nifti)


@pytest.mark.parametrize("check", CHECKS)
def test_any_file(good, check):
    few(given(odd_files)(lambda odd: check(good, odd)))()


@pytest.mark.slow
@pytest.mark.parametrize("check", [*CHECKS, check_resampled, check_pictures])
def test_any_of_many_files(good, check):
    many(given(odd_files)(lambda odd: check(good, odd)))()
