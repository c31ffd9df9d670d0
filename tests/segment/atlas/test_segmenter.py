import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.atlas_phantom import MEANS, SPACING, atlas, brain, dice, image, labels

from metasynth.segment.atlas.segmenter import Atlas, AtlasSegmenter, AtlasSettings, Level, Stiffness, brain_mask, fit

DOUBLE = AtlasSettings(dtype=torch.float64, bias_cutoff_mm=60.0, bias_stiffness=1e-3)
FLAT = replace(DOUBLE, bias_cutoff_mm=1e3)
# The image is as sharp as the unsmoothed atlas.
LINEAR = replace(FLAT, levels=(*FLAT.up_to("affine").levels, Level("affine", 0.0, 10)))
SHAPES = [(40, 36), (22, 20, 18)]
LARGE = (56, 52)


def gains(course, level: int) -> np.ndarray:
    return np.diff([step.log_likelihood for step in course if step.level == level])


@pytest.mark.parametrize("shape", SHAPES)
def test_no_step_at_one_atlas_lowers_the_likelihood(shape: tuple[int, ...]) -> None:
    truth = labels(shape, lambda p: 1.05 * p + 2.0)
    slope = np.linspace(-0.2, 0.2, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    found = fit(atlas(shape), image(truth, slope), settings=DOUBLE)
    assert {step.kind for step in found.course} == {"start", "em", "rigid", "affine", "deformable"}
    for level in range(len(DOUBLE.levels)):
        assert (gains(found.course, level) >= -1e-8).all()
        assert gains(found.course, level).sum() >= 0
    assert found.log_likelihood == found.course[-1].log_likelihood
    assert dice(found.labels, truth) > 0.9
    np.testing.assert_allclose(found.posteriors.sum(0), 1.0, atol=1e-9)
    assert torch.equal(found.posteriors.argmax(0), found.labels)


def test_means_and_field_are_recovered_where_the_atlas_lies_right() -> None:
    truth = labels(LARGE)
    x = np.linspace(0, np.pi, LARGE[1])
    settings = replace(DOUBLE.up_to(None), offset=1e-4)  # with more of it, dark voxels show less of the field
    log_bias = 0.25 * np.cos(x) * np.ones((LARGE[0], 1))
    found = fit(atlas(LARGE), image(truth, log_bias), settings=settings)
    assert dice(found.labels, truth) > 0.95
    log_field = found.bias.log().numpy()
    assert np.abs((log_field - log_field.mean()) - log_bias).max() < 0.05
    scaled = np.log(np.array(MEANS) / found.scale + settings.offset)
    np.testing.assert_allclose(found.mixture.means - found.mixture.means[1], scaled - scaled[1], atol=0.06)


def test_a_known_shift_and_turn_is_recovered() -> None:
    turn = np.deg2rad(12.0)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shift = np.array([6.0, -5.0])
    truth = labels(LARGE, lambda p: np.einsum("ab,b...->a...", rotation, p) + shift[:, None, None])
    prior, picture = atlas(LARGE), image(truth)
    still, moved = (fit(prior, picture, settings=FLAT.up_to(kind)) for kind in (None, "rigid"))
    np.testing.assert_allclose(moved.affine[:, :2], rotation, atol=0.03)
    np.testing.assert_allclose(moved.affine[:, 2], shift, atol=1.0)
    assert torch.linalg.det(moved.affine[:, :2]) == pytest.approx(1.0, abs=1e-9)
    assert dice(moved.labels, truth) > dice(still.labels, truth) + 0.1


def test_a_known_affine_map_is_recovered() -> None:
    matrix = np.array([[1.12, 0.08], [-0.05, 0.9]])
    truth = labels(LARGE, lambda p: np.einsum("ab,b...->a...", matrix, p))
    found = fit(atlas(LARGE), image(truth), settings=LINEAR)
    np.testing.assert_allclose(found.affine[:, :2], matrix, atol=0.04)
    assert not found.displacement.any()


def test_a_known_warp_is_recovered() -> None:
    def bent(p: np.ndarray) -> np.ndarray:
        waves = np.stack([np.sin(2 * np.pi * p[1] / 80), np.cos(2 * np.pi * p[0] / 90)])
        return p + 8.0 * waves

    truth = labels(LARGE, bent)
    prior, picture = atlas(LARGE), image(truth, sd=0.25)  # so noisy that the atlas matters
    settings = replace(FLAT, stiffness=Stiffness(0.1, 10.0))
    affine, bent_too = (fit(prior, picture, settings=settings.up_to(kind)) for kind in ("affine", "deformable"))
    assert dice(bent_too.labels, truth) > dice(affine.labels, truth) + 0.065
    mask = torch.from_numpy(truth > 0)
    points = SPACING * (mask.nonzero().double() - (torch.tensor(LARGE) - 1) / 2)
    expected = torch.from_numpy(bent(points.T.numpy())).T

    def error(found) -> float:
        place = points @ found.affine[:, :2].T + found.affine[:, 2] + found.displacement[:, mask].T
        return float((place - expected).norm(dim=1).mean())

    assert error(bent_too) < 0.7 * error(affine)


def test_a_stiffer_deformation_moves_less() -> None:
    truth = labels(LARGE, lambda p: p + 6.0 * np.sin(2 * np.pi * p[::-1] / 80))
    soft, stiff = (
        fit(atlas(LARGE), image(truth), settings=replace(FLAT, stiffness=cost)).displacement.diff(dim=1)
        for cost in (Stiffness(0.1, 10.0), Stiffness(100.0, 1e4))
    )
    assert stiff.square().sum() < 0.1 * soft.square().sum()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_inverted_contrast_gives_the_same_labels(shape: tuple[int, ...]) -> None:
    truth, mask = (make(shape, lambda p: 0.96 * p + 1.0) for make in (labels, brain))
    prior = atlas(shape)
    plain, inverted = (fit(prior, picture, mask, AtlasSettings()) for picture in (image(truth), 1.2 - image(truth)))
    assert dice(plain.labels, truth) > 0.9
    assert dice(inverted.labels, plain.labels.numpy()) > 0.95
    assert not plain.labels[~mask].any()
    assert plain.posteriors.dtype == torch.float32


def test_the_order_of_classes_does_not_matter() -> None:
    truth = labels(LARGE, lambda p: p + 2.0)
    prior, order = atlas(LARGE, gaussians=(1, 2, 1, 1, 1)), [0, 3, 1, 4, 2]
    other = Atlas(prior.probabilities[order], prior.spacing, tuple(prior.gaussians[k] for k in order))
    first, second = (fit(each, image(truth), settings=DOUBLE.up_to("affine")) for each in (prior, other))
    assert (torch.tensor(order)[second.labels] == first.labels).double().mean() > 0.999
    assert second.log_likelihood == pytest.approx(first.log_likelihood, rel=1e-6)


def test_the_same_image_gives_the_same_bits() -> None:
    picture = image(labels(SHAPES[0]))
    first, second = (fit(atlas(SHAPES[0]), picture) for _ in range(2))
    assert torch.equal(first.posteriors, second.posteriors)
    assert first.course == second.course


def test_an_image_of_another_grid_is_fitted_in_mm() -> None:
    truth = labels((48, 40))
    fine = truth.repeat(2, axis=0).repeat(2, axis=1)
    found = fit(atlas((48, 40)), image(fine), settings=LINEAR, spacing=(SPACING / 2,) * 2)
    np.testing.assert_allclose(found.affine, np.eye(2, 3), atol=0.1)
    assert dice(found.labels, fine) > 0.95


def test_segmenter_takes_batches_strips_and_finds_the_plane() -> None:
    small = atlas(LARGE)
    other = Atlas(small.probabilities[[0, 2, 1, 4, 3]].roll(6, dims=1), small.spacing, small.gaussians)
    truth = labels(LARGE)
    stripped = image(truth).float() * brain(LARGE)
    hole = (np.argwhere(truth == 4).mean(0) + 0.5).astype(int)
    stripped[tuple(hole)] = 0.0
    images = torch.stack([stripped, torch.zeros(LARGE)])
    found = AtlasSegmenter((other, small)).segment(images[:, None])
    assert found.shape == images.shape
    assert found.dtype == torch.int64
    assert torch.equal(found, AtlasSegmenter([small]).segment(images))
    assert dice(found[0], truth) > 0.95
    assert found[0][tuple(hole)] == 4
    assert not found[1].any()
    assert torch.equal(brain_mask(stripped), brain(LARGE))


PRIOR = atlas((12, 10))
GOOD = torch.rand(12, 10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit(PRIOR, GOOD[0]), "image: must have 2 axes, as the atlas, got shape (10,)"),
        (lambda: fit(PRIOR, GOOD / 0), "image: must be finite where it is used, got NaN or infinity"),
        (lambda: fit(PRIOR, -GOOD), "image: must be above 0 in more than 1 % of the voxels used, got 0"),
        (lambda: fit(PRIOR, GOOD, GOOD > 2), "mask: must hold a voxel, got none"),
        (lambda: fit(PRIOR, GOOD, GOOD), "mask: must be of the image's shape (12, 10) and bool"),
        (lambda: fit(PRIOR, GOOD, spacing=(1.0,)), "spacing: must be 2 numbers of mm above 0, got (1.0,)"),
        (lambda: AtlasSegmenter([]), "atlases: must hold at least one, got none"),
        (lambda: AtlasSegmenter([PRIOR, atlas((6, 6, 6))]), "atlases: must have the same number of classes and axes"),
        (lambda: AtlasSegmenter(PRIOR).segment(GOOD), "images: must be (B, *S) or (B, 1, *S) with 2 voxel axes"),
        (lambda: AtlasSettings(control_mm=0.0), "control_mm: must be a number above 0, got 0.0"),
        (lambda: AtlasSettings(em_iterations=0), "em_iterations: must be a number of at least 1, got 0"),
        (lambda: AtlasSettings(dtype=torch.float16), "dtype: must be torch.float32 or torch.float64"),
        (lambda: Level("elastic", 1.0, 1), "kind: must be one of rigid, affine, deformable, got 'elastic'"),
        (lambda: Stiffness(membrane=-1.0), "membrane: must be a number of at least 0, got -1.0"),
    ],
)
def test_errors_name_the_parameter_in_one_line(call, message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)) as caught:
        call()
    assert "\n" not in str(caught.value)
