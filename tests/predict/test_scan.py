import dataclasses

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metasynth.data_prep.mappings import MAPPINGS
from metasynth.data_prep.options import Options
from metasynth.data_prep.prepare import prepare
from metasynth.data_prep.slicing import SliceChoice
from metasynth.data_prep.sources import Scan
from metasynth.data_prep.volumes.volumes import Volume, read_image, read_labels
from support.head_phantom import head_image, head_labels, save
from support.tiny_model import CLASSES, LEVELS, describe, level_model, random_model

from metasynth import sizes
from metasynth.errors import DataError
from metasynth.predict.geometry import turned
from metasynth.predict.scan import make_stack, segment
from metasynth.predict.usable import check_usable, foreground

SPACING = np.diag([1.0, 1.0, 1.0, 1.0])


def blobs(shape=(20, 24, 22), seed=0):
    """(X, Y, Z) classes 0..3 in smooth regions without any symmetry, background around them."""
    rng = np.random.default_rng(seed)
    at = np.moveaxis(np.indices(shape), 0, -1) / np.array(shape)
    classes = np.zeros(shape, dtype=np.uint8)
    radius = np.linalg.norm((at - [0.5, 0.47, 0.52]) / [0.42, 0.4, 0.38], axis=-1)
    classes[radius < 1] = 2
    for k, centre in ((1, rng.uniform(0.35, 0.5, 3)), (3, rng.uniform(0.5, 0.65, 3))):
        classes[(np.linalg.norm(at - centre, axis=-1) < 0.2) & (radius < 0.9)] = k
    return classes


def image_of(classes, affine=SPACING, scale=100.0):
    return Volume((scale * np.array(LEVELS)[classes]).astype(np.float32), affine, "here")


def mask_of(classes, affine=SPACING):
    return Volume((classes > 0).astype(np.int64), affine, "mask")


def everywhere(image):
    """A mask of the whole field, with which intensities keep their levels."""
    return Volume(np.ones(image.data.shape, dtype=np.int64), image.affine, "mask")


def stored(volume, orientation):
    """The same volume with its voxels stored in another orientation."""
    image = nib.Nifti1Image(volume.data, volume.affine)
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(volume.affine), nib.orientations.axcodes2ornt(tuple(orientation))
    )
    image = image.as_reoriented(turn)
    return Volume(np.asarray(image.dataobj), image.affine, volume.where), turn


@pytest.mark.parametrize(
    ("volumes", "spacing"),
    [(False, None), (True, None), (False, (2.0, 1.0, 1.5)), (True, (2.0, 2.0, 1.5))],
)
def test_a_scan_is_treated_as_it_was_for_training(tmp_path, volumes, spacing):
    ids = head_labels()
    place = {"orientation": "PSR", "spacing": (1.0, 1.2, 1.1) if spacing is None else (1.0, 1.0, 1.0)}
    files = {
        "labels": save(tmp_path / "seg.nii", ids, **place),
        "image": save(tmp_path / "t1.nii", head_image(ids), **place),
    }
    options = Options(MAPPINGS["freesurfer-4"], slices=SliceChoice("all"), min_content=0.0, spacing_mm=spacing)
    part = prepare(Scan("s1", **files), dataclasses.replace(options, volumes=volumes))
    image, labels = read_image(files["image"]), read_labels(files["labels"])
    labels.data[labels.data == 507] = 0
    spacing_mm = part.spacing if volumes else part.spacing[1:]
    stack = make_stack(image, labels, describe(3 if volumes else 2, spacing_mm=spacing_mm))
    found = stack.data[None] if volumes else stack.data[part.slice_index]
    np.testing.assert_array_equal(found.astype(np.float16), part.images)


@given(st.sampled_from(["RAS", "LIA", "PSR", "ARI", "SLP", "IPL"]), st.sampled_from([2, 3]))
@settings(max_examples=12)
def test_a_flipped_and_permuted_copy_has_the_same_labels_turned(orientation, ndim):
    model = random_model(ndim)
    plain = image_of(blobs())
    copy, turn = stored(plain, orientation)
    first, second = (segment(model, volume, keep_posteriors=True) for volume in (plain, copy))
    assert len(np.unique(first.labels)) > 2
    assert second.labels.shape == copy.data.shape
    apply = nib.orientations.apply_orientation
    np.testing.assert_array_equal(second.labels, apply(first.labels, turn))
    np.testing.assert_array_equal(second.certainty, apply(first.certainty, turn))
    for k in range(len(CLASSES)):
        np.testing.assert_array_equal(second.posteriors[..., k], apply(first.posteriors[..., k], turn))


@pytest.mark.parametrize("ndim", [2, 3])
def test_posteriors_labels_and_certainty_agree(ndim):
    found = segment(random_model(ndim, spacing=1.4), image_of(blobs()), keep_posteriors=True)
    np.testing.assert_allclose(found.posteriors.sum(-1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(found.posteriors.argmax(-1), found.labels)
    np.testing.assert_array_equal(found.posteriors.max(-1), found.certainty)
    assert found.labels.dtype == np.uint8
    assert segment(random_model(ndim), image_of(blobs())).posteriors is None


def overlap(a, b):
    return min(2 * ((a == k) & (b == k)).sum() / ((a == k).sum() + (b == k).sum()) for k in range(len(CLASSES)))


@pytest.mark.parametrize("ndim", [2, 3])
def test_without_resampling_the_labels_are_exact(ndim):
    classes = blobs()
    image = image_of(classes)
    np.testing.assert_array_equal(segment(level_model(ndim), image, everywhere(image)).labels, classes)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("orientation", ["RAS", "LSP"])
def test_labels_lie_on_the_anatomy_of_anisotropic_voxels(ndim, orientation):
    """Voxels of .8 x 1.5 x 1.1 mm, a rotated and shifted field, and a network for 1 mm."""
    turn = nib.eulerangles.euler2mat(0.1, -0.15, 0.2)
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.8, 1.5, 1.1])
    affine[:3, 3] = (-31.0, 12.5, 40.0)
    classes = blobs((50, 28, 38))
    image, to = stored(image_of(classes, affine), orientation)
    found = segment(level_model(ndim), image, everywhere(image)).labels
    assert found.shape == image.data.shape
    assert overlap(found, nib.orientations.apply_orientation(classes, to)) > 0.85


@pytest.mark.parametrize(("brain_only", "labelled"), [(False, 32 * 32), (True, 6 * 6)])
def test_what_lies_beyond_the_content_is_background(brain_only, labelled):
    """A network that calls everything 'bright' is shown a window about the content and no more.

    One that knows nothing but brain has no say outside of it; a hole in the brain belongs to it.
    """
    model = level_model(brain_only=brain_only)
    classes = np.zeros((70, 9, 70), dtype=np.uint8)
    classes[30:36, 3:6, 30:36] = 3
    image = image_of(classes)
    image.data[32, 3:6, 30:36] = 60.0  # some contrast
    image.data[33:35, 4, 33] = 0.0  # dark as the background
    model.network.forward = lambda images: images.new_tensor([0, 0, 0, 9.0]).reshape(1, 4, 1, 1) + 0 * images
    labels = segment(model, image).labels
    assert np.flatnonzero((labels == 3).any((0, 2))).tolist() == [3, 4, 5]
    assert (labels[:, 4] == 3).sum() == labelled
    assert labels[30:36, 4, 30:36].all()


@pytest.mark.parametrize("background", [0.0, -3.5, np.nan])
def test_the_background_of_a_stripped_image(background):
    classes = blobs()
    data = np.where(classes > 0, np.array(LEVELS)[classes], background).astype(np.float32)
    np.testing.assert_array_equal(foreground(data), classes > 0)
    stripped = segment(level_model(), Volume(data, SPACING, "here"))
    masked = segment(level_model(), image_of(classes), mask_of(classes))
    np.testing.assert_array_equal(stripped.labels, masked.labels)


def test_an_image_without_a_background_value_is_taken_whole():
    noise = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)
    assert foreground(noise).all()


def test_what_is_outside_the_mask_does_not_matter():
    classes = blobs()
    image, mask = image_of(classes), mask_of(classes)
    dirty = image.data.copy()
    dirty[classes == 0] = np.random.default_rng(1).choice([np.nan, np.inf, 1e9], (classes == 0).sum())
    model = random_model()
    again = segment(model, Volume(dirty, SPACING, "here"), mask)
    np.testing.assert_array_equal(again.labels, segment(model, image, mask).labels)


def test_a_model_of_whole_heads_keeps_what_is_outside_the_mask():
    classes = blobs()
    inner = Volume(np.isin(classes, (1, 3)).astype(np.int64), SPACING, "mask")
    whole = make_stack(image_of(classes), inner, describe(brain_only=False)).data
    brain = make_stack(image_of(classes), inner, describe()).data
    inside = turned(inner, "AIR").data > 0
    np.testing.assert_array_equal(whole[inside], brain[inside])
    assert not brain[~inside].any()
    medium = turned(Volume(classes == 2, SPACING, "medium"), "AIR").data
    np.testing.assert_allclose(whole[medium], 0.5, atol=0.02)  # half of the way from dark to bright


def test_a_mask_on_another_grid_is_put_on_the_scans():
    classes = blobs()
    fine = np.repeat(np.repeat(np.repeat(classes, 2, 0), 2, 1), 2, 2)
    affine = np.diag([0.5, 0.5, 0.5, 1.0])
    affine[:3, 3] = -0.25
    model = random_model()
    same = segment(model, image_of(classes), mask_of(fine, affine)).labels
    np.testing.assert_array_equal(same, segment(model, image_of(classes), mask_of(classes)).labels)
    away = affine.copy()
    away[0, 3] = 500.0
    with pytest.raises(DataError, match=r"^mask: no voxel of the mask lies in the field of here$"):
        segment(model, image_of(classes), mask_of(fine, away))


def with_nan(classes):
    image = image_of(classes)
    image.data[10, 11, 10] = np.nan
    return image


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (with_nan, "here: 1 voxels that are needed are NaN or infinite"),
        (lambda classes: image_of(np.full_like(classes, 2)), "here: has no contrast"),
        (lambda classes: image_of(classes, np.diag([1.0, 0.0, 1.0, 1.0])), "here: voxels must have a size above 0"),
    ],
)
def test_scans_that_cannot_be_used(image, message):
    classes = blobs()
    with pytest.raises(DataError, match=message):
        segment(random_model(), image(classes), mask_of(classes))


def test_weights_that_are_not_finite():
    model = random_model()
    next(model.network.parameters()).data[:] = np.nan
    with pytest.raises(DataError, match="the network's output is not finite"):
        segment(model, image_of(blobs()))


def test_models_that_need_something_else():
    check_usable(random_model())
    with pytest.raises(DataError, match=r"scales by the \(0\.5, 99\.5\) %, this version by \(1\.0, 99\.0\)"):
        check_usable(random_model(percentiles=(0.5, 99.5)))
    with pytest.raises(DataError, match="the model's orientation 'XY'"):
        check_usable(random_model(orientation="XY"))


@pytest.mark.parametrize(("keep", "needed"), [(False, "304.0 KiB"), (True, "469.0 KiB")])
def test_posteriors_that_the_memory_cannot_hold_are_refused(monkeypatch, keep, needed):
    image = image_of(blobs())  # 20 x 24 x 22
    monkeypatch.setattr(sizes, "available_memory", lambda: 300_000)
    with pytest.raises(DataError) as error:
        segment(random_model(2), image, keep_posteriors=keep)
    assert str(error.value) == (
        f"here: a posterior of 4 classes for 19 x 32 x 32 voxels takes {needed} of memory; 293.0 KiB can be had"
    )


@pytest.mark.parametrize("orientation", ["LPS", "PIR"])
def test_a_mask_may_be_stored_another_way(orientation):
    image, mask = image_of(blobs()), Volume((blobs() > 1).astype(np.uint8), SPACING, "mask")
    expected = segment(level_model(), image, mask).labels
    np.testing.assert_array_equal(segment(level_model(), image, stored(mask, orientation)[0]).labels, expected)
