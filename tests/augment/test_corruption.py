import dataclasses
import pickle
from typing import Any

import pytest
import torch
from augment.augmenters import seeded

from metasynth.augment.bias_field import BiasField, KnownBias
from metasynth.augment.compose import Compose
from metasynth.augment.corruption import Corruption, Corruptions
from metasynth.augment.noise import GaussianNoise, NoiseLevel, standard_normal

NOISE, FIELD = NoiseLevel(0.05, 0.2), KnownBias((0.5, 0.5, 0.5))


def images() -> torch.Tensor:
    return torch.rand(3, 1, 4, 6, generator=seeded(0))


@pytest.mark.parametrize("corruption", [NOISE, FIELD, Corruptions((FIELD, NOISE))])
def test_corruptions_have_one_interface(corruption: Corruption) -> None:
    assert isinstance(corruption, Corruption)
    corrupted = corruption.corrupt(images(), seeded(1))
    assert corrupted.shape == images().shape
    assert not torch.equal(corrupted, images())
    assert torch.equal(corruption.corrupt(images(), seeded(1)), corrupted)
    assert not torch.equal(corruption.corrupt(images(), seeded(2)), corrupted)
    assert torch.equal(pickle.loads(pickle.dumps(corruption)).corrupt(images(), seeded(1)), corrupted)
    assert corruption.corrupt(images().to("meta"), seeded(1)).device.type == "meta"


def test_known_corruptions_share_their_draws_with_the_learned_ones() -> None:
    """From one state of a generator; so what is learned and what is known can be compared image by image."""
    noise = NoiseLevel(0.1, 0.1)
    learned = Compose(BiasField(FIELD.exponents), GaussianNoise(0.1))
    expected = learned(images(), learned.draw(images(), seeded(1)))
    torch.testing.assert_close(Corruptions((FIELD, noise)).corrupt(images(), seeded(1)), expected)
    assert torch.equal(noise.corrupt(images(), seeded(1)), images() + 0.1 * standard_normal(images(), seeded(1)))


def test_a_noise_level_keeps_the_type_of_the_images() -> None:
    assert NOISE.corrupt(images().double(), seeded(1)).dtype == torch.float64


def test_parts_follow_each_other() -> None:
    source = seeded(1)
    expected = NOISE.corrupt(FIELD.corrupt(images(), source), source)
    assert torch.equal(Corruptions((FIELD, NOISE)).corrupt(images(), seeded(1)), expected)
    assert not torch.equal(Corruptions((NOISE, FIELD)).corrupt(images(), seeded(1)), expected)


def test_no_part_leaves_images_as_they_are() -> None:
    assert torch.equal(Corruptions(()).corrupt(images(), seeded(1)), images())


def test_corruptions_are_values() -> None:
    both = Corruptions((FIELD, NOISE))
    assert both == Corruptions((KnownBias((0.5, 0.5, 0.5)), NoiseLevel(0.05, 0.2)))
    assert hash(both) == hash(Corruptions((FIELD, NOISE)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        both.parts = ()  # type: ignore[misc]


@pytest.mark.parametrize("part", [0.1, "noise", torch.zeros(1)])
def test_a_part_that_is_no_corruption_is_refused(part: Any) -> None:
    with pytest.raises(ValueError, match=r"^parts: must all have a method corrupt\(images, generator\), got"):
        Corruptions((NOISE, part))
