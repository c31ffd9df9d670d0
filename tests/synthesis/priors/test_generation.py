"""Images from priors: intensities, textures and scale are those of the scans that priors are from."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.label_maps import seeded
from torch import Tensor

from metasynth.errors import UsageError
from metasynth.synthesis import BatchedGenerator, CornucopiaConfig, Prior, StructurePriors, estimate_priors
from metasynth.synthesis.intensity import gain_undone, lost_gain
from metasynth.synthesis.smoothing import left_of_noise

NAMES, CLASSES = ("background", "white", "grey", "fluid"), ("background", "tissue", "tissue", "fluid")
PRIORS = StructurePriors(
    (
        Prior("background", "background"),
        Prior("white", "tissue", 0.7, 0.03, 0.05),
        Prior("grey", "tissue", 0.5, 0.06, 0.02),
        Prior("fluid", "fluid", 0.3, 0.01, 0.08),
    )
)
STILL = CornucopiaConfig(translations=0, rotation=0, shears=0, zooms=0, elastic=0, gmm_fwhm=0, gamma=0, motion_fwhm=0)


def quarters(n: int, size: int = 48) -> Tensor:
    maps = torch.zeros(n, size, size, dtype=torch.int64)
    half = size // 2
    maps[:, :half, half:], maps[:, half:, :half], maps[:, half:, half:] = 1, 2, 3
    return maps


def medians(images: Tensor, labels: Tensor) -> Tensor:
    """(B, 3) of the labels 1..3."""
    each = zip(images[:, 0], labels, strict=True)
    return torch.stack([torch.stack([image[own == k].median() for k in (1, 2, 3)]) for image, own in each])


@pytest.mark.parametrize("texture", [0.0, 6.0])
def test_priors_are_estimated_again_from_the_images_they_make(texture: float) -> None:
    labels = quarters(60)
    generator = BatchedGenerator(4, replace(STILL, gmm_fwhm=texture), priors=PRIORS)
    images, shown = generator(labels, seeded(0))
    people = [(image.numpy(), own[None].numpy()) for image, own in zip(images, shown, strict=True)]
    found = estimate_priors(people, NAMES, CLASSES).priors
    # Smooth textures have fewer independent voxels: medians, and hence spreads, are less certain.
    textures = np.array(PRIORS.texture)
    assert found.mean == pytest.approx(PRIORS.mean, abs=0.03)
    assert found.texture == pytest.approx(textures, rel=0.02 if not texture else 0.25)
    if not texture:
        assert found.spread[1:] == pytest.approx(PRIORS.spread[1:], rel=3 * 1.17 / math.sqrt(60))


def test_every_image_has_a_person_s_means_of_its_own():
    smooth = StructurePriors(tuple(replace(label, texture=0.0) for label in PRIORS.labels))
    labels = quarters(400, 8)
    images, _ = BatchedGenerator(4, STILL, priors=smooth)(labels, seeded(1))
    found = medians(images, labels)
    mean, spread = torch.tensor(PRIORS.mean[1:]), torch.tensor(PRIORS.spread[1:])
    assert bool(((found.mean(0) - mean).abs() < 3 * spread / 20).all())
    assert torch.allclose(found.std(0), spread, rtol=0.12)
    assert torch.corrcoef(found.T).fill_diagonal_(0).abs().max() < 0.15
    assert bool((images[:, 0][labels == 0] == 0).all())


def test_the_variance_that_smoothing_takes_from_noise_is_known():
    left = left_of_noise(torch.tensor([[0.0, 2.0, 5.0]]), 5.0, 2)
    assert left.shape == (1, 3)
    assert left[0, 0].item() == pytest.approx(1)
    # A Gaussian of standard deviation s, wide against a voxel, leaves 1 / (2 sqrt(pi) s) of it in 2D.
    sd = math.sqrt((5.0 / math.sqrt(8 * math.log(2))) ** 2 + 1 / 6)
    assert left[0, 2].item() == pytest.approx(1 / (2 * math.sqrt(math.pi) * sd), rel=0.01)


def test_a_slice_keeps_the_scale_of_its_scan():
    bright = torch.where(quarters(3) == 3, 1, quarters(3))  # no fluid: its darkest is grey
    images, _ = BatchedGenerator(4, STILL, priors=PRIORS)(bright, seeded(2))
    assert torch.allclose(
        medians(images, torch.where(bright == 0, 3, bright))[:, :2].mean(0), torch.tensor([0.7, 0.5]), atol=0.1
    )
    assert images.min() >= 0
    assert images.max() <= 1


def test_the_background_stays_black_whatever_the_power():
    labels = quarters(20)
    images, _ = BatchedGenerator(4, replace(STILL, gamma=0.6), priors=PRIORS)(labels, seeded(6))
    assert images[:, 0][labels == 0].max() < 0.01
    fluid = StructurePriors(
        (PRIORS.labels[0], *(replace(label, mean=0.05, texture=0.2) for label in PRIORS.labels[1:]))
    )
    images, _ = BatchedGenerator(4, replace(STILL, gamma=0.3), priors=fluid)(labels, seeded(6))
    assert images[:, 0][labels == 0].max() < 0.02


def test_the_gain_of_a_field_is_undone_and_its_slope_is_kept():
    labels = torch.ones(1, 32, 32, dtype=torch.int64)
    labels[0, 0] = 0
    before = torch.linspace(0.2, 0.6, 32).expand(1, 32, 32).contiguous()
    assert torch.allclose(gain_undone(1.7 * before, lost_gain(1.7 * before, before, labels)), before)
    field = torch.linspace(0.5, 1.5, 32)[:, None] * torch.ones(32)
    found = gain_undone(before * field, lost_gain(before * field, before, labels))
    inside = found[0, 1:].flatten()
    assert torch.quantile(inside, 0.99).item() == pytest.approx(
        torch.quantile(before[0, 1:].flatten(), 0.99).item(), rel=0.01
    )
    ratio = found[0, 1:] / (before * field)[0, 1:]
    assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio))


def test_images_without_intensity_or_foreground_have_no_gain():
    labels = quarters(2)
    labels[1] = 0
    black = torch.zeros(2, 48, 48)
    assert torch.equal(gain_undone(black + 0.3, lost_gain(black + 0.3, black, labels)), black + 0.3)
    assert torch.equal(gain_undone(black, lost_gain(black, black + 0.3, labels)), black)


def test_an_image_is_the_same_in_any_batch():
    labels = quarters(4)
    generator = BatchedGenerator(4, CornucopiaConfig(bias=5, snr=10, elastic_nodes=4), priors=PRIORS)
    seeds = generator.draw_seeds(4, seeded(3))
    together, moved = generator.synthesise(labels, seeds)
    alone, own = generator.synthesise(labels[2:3], seeds[2:3])
    assert torch.equal(alone[0], together[2])
    assert torch.equal(own[0], moved[2])
    assert bool(torch.isfinite(together).all())


def test_maps_are_deformed_and_all_else_is_drawn_as_without_priors():
    labels = quarters(2)
    config = CornucopiaConfig(elastic_nodes=4)
    seeds = BatchedGenerator(4).draw_seeds(2, seeded(4))
    _, moved = BatchedGenerator(4, config, priors=PRIORS).synthesise(labels, seeds)
    assert torch.equal(moved, BatchedGenerator(4, config).synthesise(labels, seeds)[1])


def test_images_matched_to_given_ones_have_their_intensities_themselves():
    labels = quarters(3)
    smooth = StructurePriors(tuple(replace(label, texture=0.0) for label in PRIORS.labels))
    given = torch.tensor([0, 0.2, 0.9, 0.4])[labels][:, None]
    generator = BatchedGenerator(4, STILL, priors=smooth)
    found = generator.matched(given, labels, generator.draw_seeds(3, seeded(5)))
    assert torch.allclose(medians(found, labels), torch.tensor([0.2, 0.9, 0.4]).expand(3, 3), atol=1e-5)


def test_priors_of_other_labels_are_refused():
    with pytest.raises(UsageError, match=r"^priors: must be those of 3 labels, got 4$"):
        BatchedGenerator(3, priors=PRIORS)
