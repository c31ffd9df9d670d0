from typing import Any

import pytest
import torch
from augment.augmenters import network, seeded

from metasynth.augment.bias_field import BiasField
from metasynth.augment.compose import Compose, nonparametric
from metasynth.augment.noise import GaussianNoise
from metasynth.augment.residual import ResidualNetwork
from metasynth.augment.varying_noise import RandomAmplitudeNoise


def images() -> torch.Tensor:
    return torch.rand(2, 1, 4, 6, generator=seeded(0))


def test_parts_are_applied_in_order_each_with_its_own_draws() -> None:
    field, noise, source = BiasField((0.3, 0.5, 0.7)), GaussianNoise(0.2), seeded(1)
    draws = (field.draw(images(), source), noise.draw(images(), source))
    both = Compose(field, noise)
    expected = noise(field(images(), draws[0]), draws[1])
    assert torch.equal(both(images(), both.draw(images(), seeded(1))), expected)
    assert not torch.equal(Compose(noise, field)(images(), draws[::-1]), expected)


def test_one_part_does_what_it_does_alone() -> None:
    noise = GaussianNoise(0.2)
    alone = noise(images(), noise.draw(images(), seeded(1)))
    assert torch.equal(Compose(noise)(images(), Compose(noise).draw(images(), seeded(1))), alone)


def test_parts_are_learned_together() -> None:
    both = Compose(BiasField((0.3, 0.5, 0.7)), GaussianNoise(0.2))
    assert [name for name, _ in both.named_parameters()] == ["parts.0.raw_exponents", "parts.1.raw_sigma"]


def test_observed_is_the_union() -> None:
    both = Compose(BiasField((0.3, 0.5, 0.7)), GaussianNoise(0.2))
    assert list(both.observed()) == ["c_low", "c_mid", "c_high", "sigma"]
    assert both.observed() == pytest.approx({"c_low": 0.3, "c_mid": 0.5, "c_high": 0.7, "sigma": 0.2})


def test_names_that_clash_are_numbered() -> None:
    one, two, three, four = (GaussianNoise(sigma) for sigma in (0.1, 0.2, 0.3, 0.4))
    assert Compose(one, two).observed() == pytest.approx({"sigma_1": 0.1, "sigma_2": 0.2})
    nested = Compose(Compose(one, two), three)
    assert nested.observed() == pytest.approx({"sigma_1": 0.1, "sigma_2": 0.2, "sigma": 0.3})
    # Numbers that are taken are passed over, so that no value is lost.
    crowded = Compose(Compose(one, two), three, four)
    assert crowded.observed() == pytest.approx({"sigma_1": 0.1, "sigma_2": 0.2, "sigma_3": 0.3, "sigma_4": 0.4})


def test_what_is_shown_of_two_of_a_kind_is_numbered() -> None:
    one, two = GaussianNoise(0.1), GaussianNoise(0.2)
    both = Compose(one, two)
    first, second = both.draw(images(), seeded(0))
    shown = both.shown(images(), (first, second))
    assert list(shown) == ["noise_1", "noise_2"]
    assert torch.equal(shown["noise_1"], one.shown(images(), first)["noise"])
    assert torch.equal(shown["noise_2"], two.shown(one(images(), first), second)["noise"])


def test_the_nonparametric_model() -> None:
    made = network(2)
    model = nonparametric(made, 0.3)
    residual, noise = model
    assert isinstance(residual, ResidualNetwork)
    assert isinstance(noise, RandomAmplitudeNoise)
    assert residual.network is made
    assert model.observed() == pytest.approx({"sigma": 0.3})


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((), "^parts: must be one or more augmenters, got none$"),
        ((GaussianNoise(0.1), torch.nn.Identity()), "^parts: must be augmenters, got Identity$"),
    ],
)
def test_parts_that_are_no_augmenters_are_refused(parts: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Compose(*parts)


def test_a_wrong_number_of_draws_is_refused() -> None:
    both = Compose(GaussianNoise(0.1), GaussianNoise(0.2))
    with pytest.raises(ValueError, match=r"^draws: must be a tuple of 2, one for each part, got one of 1$"):
        both(images(), both.draw(images(), seeded(0))[:1])
    with pytest.raises(ValueError, match=r"^draws: must be a tuple of 2, one for each part, got Tensor$"):
        both(images(), images())
