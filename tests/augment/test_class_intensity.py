"""Learned intensities of classes: what an image is made of, its derivatives, and generators that begin with it."""

import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metasynth.augment.class_intensity import ClassIntensities
from metasynth.augment.compose import Compose
from metasynth.augment.label_generator import LabelGenerator
from metasynth.augment.noise import GaussianNoise
from metasynth.errors import UsageError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def label_maps(n=2, shape=(9, 8), classes=3):
    return torch.randint(classes, (n, *shape), generator=seeded(1))


def in_double(contrast, blur):
    """With parameters of their own in float64; a blur of 1e-3 voxels is none."""
    contrast = contrast.double()
    with torch.no_grad():
        contrast.means.copy_(torch.linspace(0.2, 0.9, len(contrast.means)))
        contrast.raw_spreads.add_(torch.linspace(0, 1, len(contrast.means)))
        contrast.raw_blur.fill_(math.log(math.expm1(blur)))
    return contrast


@pytest.mark.parametrize("shape", [(9, 8), (6, 5, 4)])
def test_an_image_is_what_the_formula_says(shape):
    labels = label_maps(shape=shape)
    contrast = in_double(ClassIntensities(3, len(shape)), blur=1e-3)
    z, n = contrast.draw(torch.empty(2, 1, *shape, dtype=torch.float64), seeded())
    image = contrast(labels, (z, n))
    found = contrast.observed()
    for b in range(2):
        for k in (1, 2):
            here = labels[b] == k
            level = found[f"mean_{k}"] + found[f"spread_{k}"] * z[b, k - 1]
            torch.testing.assert_close(image[b, 0][here], level + found[f"texture_{k}"] * n[b, 0][here])
    assert not image[:, 0][labels == 0].any()


def test_the_blur_is_a_gaussian_that_keeps_the_sum():
    labels = torch.zeros(1, 11, 11, dtype=torch.int64)
    labels[0, 5, 5] = 1
    contrast = ClassIntensities(2, mean=1.0, spread=1e-6, texture=1e-6, blur=0.7).double()
    image = contrast(labels, contrast.draw(torch.empty(1, 1, 11, 11, dtype=torch.float64), seeded()))[0, 0]
    assert image.sum().item() == pytest.approx(1, abs=1e-4)
    assert (image[5, 6] / image[5, 5]).item() == pytest.approx(math.exp(-0.5 / 0.7**2))
    torch.testing.assert_close(image, image.T)


@settings(max_examples=8, deadline=None)
@given(grain=st.integers(1, 6), n=st.integers(1, 12))
def test_the_texture_has_unit_variance_at_every_voxel(grain, n):
    contrast = ClassIntensities(2, grain=grain)
    _, texture = contrast.draw(torch.empty(4000, 1, n, 5), seeded())
    assert texture.shape == (4000, 1, n, 5)
    assert (texture.var(0) - 1).abs().max().item() < 6 * math.sqrt(2 / 4000)


def test_first_and_second_derivatives():
    labels = label_maps(1, (5, 4))
    contrast = in_double(ClassIntensities(3), blur=0.6)
    draws = contrast.draw(torch.empty(1, 1, 5, 4, dtype=torch.float64), seeded())
    names = [name for name, _ in contrast.named_parameters()]

    def image(*values):
        return torch.func.functional_call(contrast, dict(zip(names, values, strict=True)), (labels, draws))

    values = [p.detach().clone().requires_grad_() for p in contrast.parameters()]
    assert torch.autograd.gradcheck(image, values)
    assert torch.autograd.gradgradcheck(image, values)


def test_draws_do_not_depend_on_parameters_or_values_and_it_can_be_pickled():
    contrast = ClassIntensities(3)
    images = torch.rand(2, 1, 9, 8)
    again = pickle.loads(pickle.dumps(in_double(ClassIntensities(3), 0.5).float()))
    for a, b in zip(contrast.draw(images, seeded()), again.draw(0 * images, seeded()), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_classes": 1}, "n_classes and grain: must be at least 2 and 1, got 1 and 3"),
        ({"grain": 0}, "got 2 and 0"),
        ({"ndim": 4}, "ndim: must be 2 or 3, got 4"),
        ({"mean": math.nan}, "mean: must be finite, got nan"),
        ({"spread": 0.0}, "spread: must be finite and at least"),
        ({"blur": -1.0}, "blur: must be finite"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        ClassIntensities(**{"n_classes": 2, **arguments})


def test_draws_of_other_shapes_are_refused():
    contrast = ClassIntensities(3)
    with pytest.raises(ValueError, match="draws: must have shapes"):
        contrast(label_maps(), contrast.draw(torch.empty(3, 1, 9, 8), seeded()))


def test_a_generator_begins_with_a_learned_contrast_or_with_images_there_are():
    labels, images = label_maps(), torch.rand(2, 1, 9, 8)
    noise = GaussianNoise(0.1)
    learned, given_ = LabelGenerator(ClassIntensities(3), Compose(noise)), LabelGenerator(None, Compose(noise))
    draws = given_.draw(images, seeded())
    inside = labels[:, None] > 0
    torch.testing.assert_close(given_(labels, draws), images + 0.1 * inside * draws[1][0])
    assert given_.flat(labels, draws) is images
    assert set(learned.observed()) == set(learned.contrast.observed()) | {"sigma"}
    assert not torch.equal(learned(labels, learned.draw(images, seeded())), images)
