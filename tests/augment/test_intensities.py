"""Steps on intensities that are differentiated: scaling by quantiles, and blur."""

import numpy as np
import pytest
import torch
from augment.augmenters import seeded
from metasynth.data_prep.scaling import scale
from scipy.ndimage import correlate1d
from torch.autograd import gradcheck, gradgradcheck

from metasynth.augment.intensities import blurred, rescaled


def inside_of(images):
    return torch.rand(images.shape, generator=seeded(9)) < 0.7


def test_images_are_scaled_as_scans_are_prepared():
    images = torch.randn(3, 1, 20, 30, dtype=torch.float64, generator=seeded(0))
    inside = inside_of(images)
    for image, own, found in zip(images, inside, rescaled(images, inside), strict=True):
        expected = scale(image[0].float().numpy(), own[0].numpy(), "here")
        np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_voxels_inside_give_finite_values_and_derivatives(count):
    images = torch.rand(1, 1, 3, 3, generator=seeded(0)).requires_grad_()
    inside = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    inside.view(-1)[:count] = True
    found = rescaled(images, inside)
    assert ((found >= 0) & (found <= 1)).all()
    assert not found[~inside].any()
    (gradient,) = torch.autograd.grad(found.sum(), images)
    assert gradient.isfinite().all()
    assert not gradient[~inside].any()


def test_scale_and_offset_are_lost_and_so_are_their_derivatives():
    images = torch.randn(2, 1, 9, 9, dtype=torch.float64, generator=seeded(0))
    inside, weights = inside_of(images), torch.randn(2, 1, 9, 9, dtype=torch.float64, generator=seeded(1))
    factor, offset = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (3.0, -2.0))
    moved = rescaled(factor * images + offset, inside)
    torch.testing.assert_close(moved, rescaled(images, inside), rtol=0, atol=1e-14)
    for gradient in torch.autograd.grad((weights * moved).sum(), (factor, offset)):
        assert gradient.abs() < 1e-14
    assert (weights * moved).sum().abs() > 0.1


def test_quantiles_are_differentiated_too():
    images = torch.randn(2, 1, 5, 6, dtype=torch.float64, generator=seeded(0), requires_grad=True)
    inside = inside_of(images)
    assert gradcheck(lambda x: rescaled(x, inside), images)
    assert gradgradcheck(lambda x: rescaled(x, inside), images)


@pytest.mark.parametrize("shape", [(7, 5), (6, 4, 5)])
def test_blur_is_a_cut_gaussian_along_every_axis_within_the_mask(shape):
    images = torch.rand(2, 1, *shape, dtype=torch.float64, generator=seeded(0))
    inside = inside_of(images)
    weights = np.exp(-0.5 * (np.arange(-2, 3) / 0.8) ** 2)
    sums, shares = (inside * images).numpy(), inside.double().numpy()
    for axis in range(2, images.ndim):
        sums, shares = (correlate1d(each, weights, axis, mode="constant") for each in (sums, shares))
    width = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    found = blurred(images, inside, width, 2).detach()
    np.testing.assert_allclose(found[inside].numpy(), (sums / shares)[inside.numpy()], atol=1e-14)
    assert not found[~inside].any()
    assert gradcheck(lambda w: blurred(images, inside, w, 2), width)
    each = torch.full((2, len(shape)), 0.8, dtype=torch.float64)
    torch.testing.assert_close(blurred(images, inside, each, 2), found)
    constant = blurred(torch.full_like(images, 0.7), inside, width, 2)
    torch.testing.assert_close(constant, 0.7 * inside.double())


def test_every_image_and_axis_has_a_width_of_its_own_and_channels_are_blurred_alike():
    images = torch.rand(2, 3, 7, 5, dtype=torch.float64, generator=seeded(0))
    inside = inside_of(images[:, :1])
    widths = torch.tensor([[0.5, 1e-3], [1e-3, 0.9]], dtype=torch.float64, requires_grad=True)
    found = blurred(images, inside, widths, 2)
    for channel in range(3):
        own = blurred(images[:, channel : channel + 1], inside, widths, 2)
        torch.testing.assert_close(found[:, channel : channel + 1], own)
    for image, mask, axis, width, own in zip(images, inside, (0, 1), (0.5, 0.9), found, strict=True):
        weights = np.exp(-0.5 * (np.arange(-2, 3) / width) ** 2)
        sums = correlate1d((mask * image).numpy(), weights, axis + 1, mode="constant")
        shares = correlate1d(mask.double().numpy(), weights, axis + 1, mode="constant")
        expected = np.where(mask.numpy(), sums / np.where(mask.numpy(), shares, 1), 0)
        np.testing.assert_allclose(own.detach().numpy(), expected, atol=1e-14)
    assert gradcheck(lambda w: blurred(images, inside, w, 2), widths.detach().clamp(min=0.3).requires_grad_())
