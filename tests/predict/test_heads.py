"""Segmentation of whole heads, as they come; and what is refused of scans in a line while the others are done."""

import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from metasynth.data_prep.scaling import scale_head
from metasynth.data_prep.volumes.volumes import Volume
from support.tiny_model import LEVELS, describe, level_model, random_model, save_random

from metasynth.cli.main import main
from metasynth.errors import DataError
from metasynth.predict.geometry import turned
from metasynth.predict.scan import make_stack, segment
from metasynth.predict.usable import coarse

HEAD = {"brain_only": False, "scaled_by": "head"}
AFFINE = np.eye(4)


def classes_of(shape=(20, 24, 22)):
    """(X, Y, Z) a ball of 'medium' with a 'bright' core, 'dark' in a corner of it, background around."""
    at = np.moveaxis(np.indices(shape), 0, -1) / np.array(shape)
    radius = np.linalg.norm((at - [0.5, 0.47, 0.52]) / [0.42, 0.4, 0.38], axis=-1)
    classes = np.where(radius < 1, 2, 0)
    classes[radius < 0.6] = 3
    classes[(np.linalg.norm(at - [0.35, 0.4, 0.5], axis=-1) < 0.15)] = 1
    return classes.astype(np.uint8)


def head(classes, scale=100.0, offset=0.0, noise=0.0):
    data = scale * np.array(LEVELS)[classes] + offset + np.random.default_rng(0).normal(0, 1, classes.shape) * noise
    return Volume(data.astype(np.float32), AFFINE, "t1.nii")


def mask_of(inside, where="mask.nii"):
    return Volume(inside.astype(np.int64), AFFINE, where)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(("scale", "offset"), [(100.0, 0.0), (0.02, -5.0)])
def test_a_head_is_labelled_without_a_mask(ndim, scale, offset):
    classes = classes_of()
    np.testing.assert_array_equal(segment(level_model(ndim, **HEAD), head(classes, scale, offset)).labels, classes)


def test_scans_are_scaled_as_those_that_were_learned_from():
    image = head(classes_of(), noise=3.0)
    stack = make_stack(image, None, describe(**HEAD))
    np.testing.assert_array_equal(stack.data, turned(Volume(scale_head(image.data, "t1.nii"), AFFINE, ""), "AIR").data)
    assert stack.brain is None


def test_a_mask_decides_where_labels_may_be_and_not_how_a_head_is_scaled():
    classes = classes_of()
    inside = np.indices(classes.shape)[2] >= 10
    found = segment(level_model(**HEAD), head(classes), mask_of(inside)).labels
    np.testing.assert_array_equal(found, np.where(inside, classes, 0))
    with_mask, without = (make_stack(head(classes), mask, describe(**HEAD)) for mask in (mask_of(inside), None))
    np.testing.assert_array_equal(with_mask.data, without.data)


def test_the_window_is_about_the_head_and_not_about_its_noisy_air():
    classes = np.zeros((70, 9, 70), dtype=np.uint8)
    classes[20:50, 2:7, 20:50] = 3
    stack = make_stack(head(classes, noise=1.0), None, describe(**HEAD))
    np.testing.assert_array_equal(stack.content, turned(Volume(classes > 0, AFFINE, ""), "AIR").data)


def test_nan_around_a_head_is_air():
    classes = classes_of()
    image = head(classes)
    image.data[classes == 0] = np.nan
    np.testing.assert_array_equal(segment(level_model(**HEAD), image).labels, classes)
    image = head(classes)
    image.data[10, 11, 11] = np.nan
    with pytest.raises(DataError, match=r"^t1\.nii: 1 voxels that are needed are NaN or infinite"):
        segment(level_model(**HEAD), image)


def test_models_of_whole_images_from_before_still_scale_by_the_mask():
    classes = classes_of()
    inner = mask_of(np.isin(classes, (1, 3)))
    stack = make_stack(head(classes), inner, describe(brain_only=False))
    medium = turned(Volume(classes == 2, AFFINE, ""), "AIR").data
    np.testing.assert_allclose(stack.data[medium], 0.5, atol=0.02)  # half of the way from dark to bright


def in_hounsfield_units(classes):
    return Volume(np.array([-1000, 20, 40, 300], np.float32)[classes], AFFINE, "ct.nii")


def noise(classes):
    return Volume(np.random.default_rng(0).rayleigh(10, classes.shape).astype(np.float32), AFFINE, "air.nii")


@pytest.mark.parametrize(
    ("image", "line"),
    [
        (
            in_hounsfield_units,
            "ct.nii: looks like CT (73% of its voxels are within 50 of -1000, as air in Hounsfield units); expected an "
            "MR scan",
        ),
        (
            noise,
            "air.nii: shows nothing but air or noise, as neighbouring voxels have nothing in common (correlation "
            "0.02); expected a head",
        ),
        (lambda classes: head(classes * 0), "t1.nii: shows nothing to segment, every voxel is 0.0"),
        (lambda classes: head(classes * 0, offset=3.0), "t1.nii: shows nothing to segment, every voxel is 3.0"),
    ],
)
def test_what_is_no_scan_of_a_head(image, line):
    with pytest.raises(DataError) as error:
        segment(random_model(**HEAD), image(classes_of()))
    assert str(error.value) == line


def test_a_model_of_brains_takes_no_ct_either():
    image = in_hounsfield_units(classes_of())
    with pytest.raises(DataError, match=r"^ct\.nii: looks like CT"):
        segment(random_model(), image, mask_of(image.data > -500))


@pytest.mark.parametrize(("share", "found"), [(0.0, 0), (0.3, 0), (0.3, 40)])
def test_a_head_without_a_brain(share, found):
    """What a network calls brain in spite of all counts for nothing, if it is less than a tenth of the usual."""
    classes = np.where(classes_of() > 0, 2, 0)
    model = level_model(**HEAD, brain_share=share)
    classes[8 : 8 + found // 20, 8:12, 8:13] = 3
    image, total = head(classes), np.count_nonzero(classes)
    bright = 0.9 if found else 9.0  # one shade alone would be the brightest
    model.network.forward = lambda images: torch.cat([bright - images, 0 * images, 0 * images, images - bright], 1)
    with pytest.raises(DataError) as error:
        segment(model, image)
    assert str(error.value) == (
        f"t1.nii: no brain is found in it ({found / total:.2%} of the head, {share:.0%} in those that the model has "
        "seen); expected a head with one"
    )
    if found:
        assert np.count_nonzero(segment(level_model(**HEAD, brain_share=0.05), image).labels == 3) == found


def test_a_mask_of_another_head():
    classes = classes_of()
    edge = (classes == 2) & (np.indices(classes.shape)[0] < 6)
    with pytest.raises(DataError) as error:
        segment(level_model(**HEAD), head(classes), mask_of(edge))
    share = np.count_nonzero(edge) / np.count_nonzero(classes)
    assert str(error.value) == (
        f"mask.nii: {share:.0%} of the brain that is found in t1.nii lies in the mask; is it of another scan?"
    )
    away = (classes == 0) & (np.indices(classes.shape)[0] < 2)
    for model in (level_model(**HEAD), level_model()):
        with pytest.raises(DataError) as error:
            segment(model, head(classes), mask_of(away))
        assert str(error.value) == "mask.nii: most of the mask lies where t1.nii is background; is it of another scan?"


def test_thick_and_few_planes():
    description = describe(spacing=2.0)
    said = "where the model has seen voxels of 2 mm: expect errors"
    volume = Volume(np.zeros((60, 60, 10), np.float32), np.diag([2.0, 2.0, 5.0, 1.0]), "")
    assert coarse(volume, description) == f"10 planes of 5 mm along z, {said}"
    thick = Volume(np.zeros((60, 60, 24), np.float32), np.diag([2.0, 2.0, 6.0, 1.0]), "")
    assert coarse(thick, description) == f"24 planes of 6 mm along z, {said}"
    fine = Volume(np.zeros((60, 60, 24), np.float32), np.diag([1.0, 1.0, 5.0, 1.0]), "")
    assert coarse(fine, description) == ""


@pytest.fixture
def cli(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_random(tmp_path / "head.pt", **HEAD)
    save_random(tmp_path / "brain.pt")

    def save(name, volume):
        (tmp_path / "scans").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(volume.data, volume.affine), tmp_path / "scans" / name)

    classes = classes_of()
    save("good.nii.gz", head(classes, noise=2.0))
    save("ct.nii.gz", in_hounsfield_units(classes))
    save("air.nii.gz", noise(classes))
    save("empty.nii.gz", head(classes * 0))
    save("ten.nii.gz", head(classes[:, :, 6:16], noise=2.0))
    return lambda *arguments: CliRunner().invoke(main, ["predict", *arguments, "--device", "cpu", "--quiet"])


def test_the_other_scans_are_done(cli, tmp_path):
    result = cli("head.pt", "scans", "--out", "out")
    lines = result.stderr.splitlines()
    assert result.exit_code == 1
    assert lines[-1] == "Error: 3 of 5 scans failed: air, ct, empty"
    assert not [line for line in lines if "no brain mask" in line]
    assert "Warning: ten: 10 planes of 1 mm along z, where the model has seen voxels of 1 mm: expect errors" in lines
    assert [line.split(":")[1].strip() for line in lines if line.startswith("Failed: ")] == ["air", "ct", "empty"]
    made = {path.name for path in (tmp_path / "out").glob("*.gz")}
    assert made == {"good.nii.gz", "ten.nii.gz"}


def test_a_model_of_brains_still_warns_of_a_head(cli):
    result = cli("brain.pt", "scans/good.nii.gz", "--out", "out")
    assert result.exit_code == 0
    assert "Warning: no brain mask for 1 of 1 scans (good), and the model needs an image" in result.stderr


def test_a_model_of_another_version_is_told_before_anything_is_made(cli, tmp_path):
    content = torch.load(tmp_path / "head.pt", weights_only=True)
    assert content["version"] == 2  # which earlier versions of the program refuse: they would scale heads otherwise
    torch.save({**content, "version": 4}, tmp_path / "later.pt")
    result = cli("later.pt", "scans", "--out", "out")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "Error: later.pt: format versions 1 to 3 are supported, got 4"
    assert not (tmp_path / "out").exists()
    assert torch.load(tmp_path / "brain.pt", weights_only=True)["version"] == 1


def test_the_model_says_what_it_takes(cli):
    result = cli("head.pt", "scans/good.nii.gz", "--out", "out")
    said = "the whole head, air and the 99 % quantile of the rest scaled to 0 and 1"
    assert result.stderr.splitlines()[0].endswith(said)
