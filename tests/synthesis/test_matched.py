"""Images in the contrast of given ones: what the reference of a hypergradient is made of."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.label_maps import batch, seeded
from torch import Tensor

from metasynth.errors import DataError
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.config import PAPER, CornucopiaConfig
from metasynth.synthesis.intensity import placed_as

K = 5
SHARP = CornucopiaConfig(translations=0, rotation=0, shears=0, zooms=0, elastic=0, gmm_fwhm=0, gamma=1.0, motion_fwhm=0)


def places(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Medians of the classes 1..4 of images that have all, the least and the largest at 0 and 1, and their spread."""
    medians = torch.stack(
        [torch.stack([i[c == k].median() for k in range(1, K)]) for i, c in zip(images[:, 0], labels, strict=True)]
    )
    least, most = medians.amin(1, keepdim=True), medians.amax(1, keepdim=True)
    return (medians - least) / (most - least), (most - least)[:, 0]


def matched(generator: BatchedGenerator, images: Tensor, labels: Tensor, seed: int) -> Tensor:
    return generator.matched(images, labels, generator.draw_seeds(len(labels), seeded(seed)))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), gain=st.floats(0.2, 5.0))
def test_classes_lie_as_in_the_given_images_whatever_their_scale(seed: int, gain: float) -> None:
    labels = batch(3, 48, 40)
    generator = BatchedGenerator(K, SHARP, class_sd=0.0)
    images, _ = generator(labels, seeded(seed))
    theirs, _ = places(images, labels)
    mine, _ = places(matched(generator, gain * images, labels, seed + 1), labels)
    assert torch.allclose(mine, theirs, atol=0.01)


def test_given_images_of_the_same_kind_matched_ones_are_of_that_kind_too() -> None:
    """Textures are as strong, over many images: the means are spread as they are where they are drawn freely."""
    labels = batch(1, 48, 40).expand(400, -1, -1)
    generator = BatchedGenerator(K, CornucopiaConfig(**{**vars(SHARP), "gamma": 0.3}), class_sd=0.1)
    images, _ = generator(labels, seeded(0))
    own = matched(generator, images, labels, 1)

    def texture(shown: Tensor) -> Tensor:
        return torch.stack([shown[:, 0][:, labels[0] == k].std(1) for k in range(1, K)], 1).mean(1).log()

    theirs, mine = texture(images), texture(own)
    error = (theirs.var() / len(theirs) + mine.var() / len(mine)).sqrt()
    assert abs(theirs.mean() - mine.mean()) < 3 * error
    assert 0.8 < mine.std() / theirs.std() < 1.25
    assert error < 0.1 * theirs.std()


def test_all_but_the_contrast_is_drawn_anew() -> None:
    labels = batch(2, 48, 40)
    generator = BatchedGenerator(K, PAPER)
    images, _ = generator(labels, seeded(0))
    one, two = (matched(generator, images, labels, seed) for seed in (1, 2))
    assert (one - two).abs().mean() > 0.01
    assert torch.equal(one, matched(generator, images, labels, 1))
    assert torch.equal(one[1:], generator.matched(images[1:], labels[1:], generator.draw_seeds(2, seeded(1))[1:]))


def test_placed_as_by_hand() -> None:
    images = torch.tensor([[1.0, 2.0, 9.0, 4.0, 10.0], [5.0, 5.0, 7.0, 0.0, 0.0]])
    labels = torch.tensor([[1, 1, 1, 2, 3], [2, 2, 2, 0, 0]])
    means = torch.tensor([[0.2, 0.5, 0.4], [0.1, 0.7, 0.9]])
    found = placed_as(means, images, labels, torch.tensor([0.5, 2.0]))
    # The medians 2, 4, 10 are at 0, 1/4 and 1. There is no background, so that a power of 1/2 is between 0.2 and 0.5,
    # and the middle one is at 1/16 before it.
    assert torch.allclose(found[0], torch.tensor([0.2, 0.2 + 0.3 / 16, 0.5]))
    assert torch.allclose(found[1], means[1])  # one class alone, and classes that are not there, are as drawn
    background = torch.cat([labels[:1], torch.zeros(1, 1, dtype=torch.int64)], 1)
    brighter = placed_as(means[:1], torch.cat([images[:1], torch.zeros(1, 1)], 1), background, torch.tensor([2.0]))
    squares = brighter[0].square()  # raised between 0 and the largest
    assert torch.allclose((squares[1] - squares[0]) / (squares[2] - squares[0]), torch.tensor(0.25))


def test_volumes_and_no_images_at_all() -> None:
    labels = batch(1, 24, 20, 28)
    images, deformed = BatchedGenerator(K)(labels, seeded(0))
    assert matched(BatchedGenerator(K), images, deformed, 1).shape == images.shape
    assert matched(BatchedGenerator(K), images[:0], deformed[:0], 1).shape == (0, *images.shape[1:])


def test_images_of_another_shape_are_refused_in_one_line() -> None:
    labels = batch(2, 16, 16)
    with pytest.raises(DataError, match=r"images: must have shape \(2, 1, 16, 16\), as the labels, got \(2, 16, 16\)"):
        matched(BatchedGenerator(K), torch.zeros(2, 16, 16), labels, 0)
