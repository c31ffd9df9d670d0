"""What an augmenter says of its parameters and of its parts."""

import pytest
import torch

from metasynth.augment.bias_field import BiasField
from metasynth.augment.class_intensity import ClassIntensities
from metasynth.augment.compose import Compose
from metasynth.augment.label_generator import LabelGenerator
from metasynth.augment.noise import GaussianNoise
from metasynth.augment.residual import ResidualNetwork
from tests.augment.augmenters import AUGMENTERS, network, seeded


@pytest.mark.parametrize("name", AUGMENTERS)
def test_every_parameter_is_in_one_group(name: str) -> None:
    augmenter = AUGMENTERS[name](2)
    grouped = [id(p) for group in augmenter.parameter_groups().values() for p in group]
    assert sorted(grouped) == sorted(id(p) for p in augmenter.parameters())


def test_weights_are_those_of_networks_in_the_order_of_the_parts() -> None:
    own, noise, field = ResidualNetwork(network(2)), GaussianNoise(0.1), BiasField((0.3,), (2,))
    groups = Compose(noise, Compose(own, field)).parameter_groups()
    assert list(map(id, groups["values"])) == [id(noise.raw_sigma), id(field.raw_exponents)]
    assert list(map(id, groups["weights"])) == list(map(id, own.parameters()))


def test_a_part_applied_twice_has_its_parameters_once() -> None:
    noise = GaussianNoise(0.1)
    assert Compose(noise, noise).parameter_groups() == {"values": [noise.raw_sigma]}


def test_a_generator_has_the_values_of_its_contrast_first() -> None:
    contrast, noise = ClassIntensities(3), GaussianNoise(0.1)
    groups = LabelGenerator(contrast, noise).parameter_groups()
    assert list(map(id, groups["values"])) == list(map(id, [*contrast.parameters(), noise.raw_sigma]))


def test_what_is_shown_takes_an_image_to_what_it_becomes() -> None:
    augmenter = Compose(BiasField((0.3, 0.6), (2, 3)), ResidualNetwork(network(2)), GaussianNoise(0.2))
    images = torch.rand(2, 1, 8, 8, generator=seeded(0))
    draws = augmenter.draw(images, seeded(1))
    shown = augmenter.shown(images, draws)
    assert list(shown) == ["field", "network", "noise"]
    expected = augmenter(images, draws)
    torch.testing.assert_close(images * shown["field"] + shown["network"] + shown["noise"], expected)
