import math

import pytest
import torch
from augment.augmenters import seeded

from metasynth.augment.bijections import Bijection, Exp, Sigmoid
from metasynth.augment.noise import GaussianNoise, NoiseLevel
from metasynth.augment.varying_noise import NoiseRange, RandomAmplitudeNoise

BIJECTIONS: list[Bijection | None] = [None, Exp(), Sigmoid(0.0, 2.0)]


@pytest.mark.parametrize("bijection", BIJECTIONS)
def test_values_start_where_asked(bijection: Bijection | None) -> None:
    assert RandomAmplitudeNoise(0.3, bijection).observed() == pytest.approx({"sigma": 0.3}, rel=1e-5)
    found = NoiseRange(0.05, 0.3, bijection).observed()
    assert found == pytest.approx({"sigma_low": 0.05, "sigma_high": 0.3}, rel=1e-5)


def test_random_amplitude_is_sigma_times_s_times_eps() -> None:
    augmenter, images, eps = RandomAmplitudeNoise(0.25), torch.ones(3, 1, 2, 2), torch.full((3, 1, 2, 2), 2.0)
    noisy = augmenter(images, (torch.tensor([0.0, 1.0, -3.0]), eps))
    expected = torch.tensor([1.0, 1.5, -0.5]).reshape(3, 1, 1, 1).expand_as(images)
    torch.testing.assert_close(noisy, expected)


def test_random_amplitude_noise_has_the_moments_of_a_product_of_normals() -> None:
    """E[(s eps)^2] = 1 and E[(s eps)^4] = 9; plain noise of the same sigma has 3."""
    augmenter, images = RandomAmplitudeNoise(0.1).double(), torch.zeros(200_000, 1, 1, 1, dtype=torch.float64)
    noise = augmenter(images, augmenter.draw(images, seeded(0))) / 0.1
    assert noise.mean().item() == pytest.approx(0.0, abs=0.01)
    assert noise.square().mean().item() == pytest.approx(1.0, rel=0.03)
    assert noise.pow(4).mean().item() == pytest.approx(9.0, rel=0.15)


def test_an_images_own_level_is_its_amplitude_times_sigma() -> None:
    augmenter, images = RandomAmplitudeNoise(0.1), torch.zeros(6, 1, 64, 64)
    amplitudes, eps = augmenter.draw(images, seeded(0))
    levels = augmenter(images, (amplitudes, eps)).flatten(1).std(1)
    torch.testing.assert_close(levels, 0.1 * amplitudes.abs(), rtol=0.05, atol=0.0)


def test_range_does_what_a_known_range_does() -> None:
    images = torch.rand(5, 1, 4, 4, generator=seeded(0))
    augmenter = NoiseRange(0.05, 0.3)
    learned = augmenter(images, augmenter.draw(images, seeded(1)))
    torch.testing.assert_close(learned, NoiseLevel(0.05, 0.3).corrupt(images, seeded(1)))


def test_all_noise_shares_its_normal_draws() -> None:
    images = torch.zeros(5, 1, 4, 4)
    eps = GaussianNoise(0.1).draw(images, seeded(1))
    for augmenter in (RandomAmplitudeNoise(0.1), NoiseRange(0.1, 0.2)):
        assert torch.equal(augmenter.draw(images, seeded(1))[1], eps)


def test_levels_of_a_range_are_uniform_between_its_ends() -> None:
    augmenter, images = NoiseRange(0.1, 0.3).double(), torch.zeros(4000, 1, 1, 1, dtype=torch.float64)
    uniform, _ = augmenter.draw(images, seeded(0))
    levels = augmenter(images, (uniform, torch.ones_like(images))).flatten()
    assert 0.1 <= levels.min() < 0.101
    assert 0.299 < levels.max() <= 0.3 + 1e-7
    assert levels.mean().item() == pytest.approx(0.2, abs=0.003)
    assert levels.std().item() == pytest.approx(0.2 / math.sqrt(12), rel=0.03)


@pytest.mark.parametrize("end", ["low", "high"])
@pytest.mark.parametrize("sign", [1, -1])
def test_no_optimiser_step_makes_the_ends_cross(end: str, sign: int) -> None:
    augmenter = NoiseRange(0.1, 0.11)
    optimiser = torch.optim.SGD(augmenter.parameters(), lr=10.0)
    for _ in range(20):
        optimiser.zero_grad()
        (sign * getattr(augmenter, end)).backward()
        optimiser.step()
        assert 0.0 <= augmenter.low.item() <= augmenter.high.item()


@pytest.mark.parametrize("start", [0, -0.1, math.nan, math.inf])
def test_random_amplitude_refuses_what_no_sigma_is(start: float) -> None:
    with pytest.raises(ValueError, match=r"^start: must be finite and at least 1\.18e-38 .*, got"):
        RandomAmplitudeNoise(start)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (0.2, 0.1, r"^high: must be greater than low = 0\.2, got 0\.1$"),
        (0.1, 0.1, r"^high: must be greater than low = 0\.1, got 0\.1$"),
        (0.1, math.nan, r"^high: must be greater than low = 0\.1, got nan$"),
        (0.0, 0.1, r"^low: must be finite and at least .*, got 0$"),
        (0.1, math.inf, r"^high - low: must be finite .*, got inf$"),
    ],
)
def test_impossible_ranges_are_refused(low: float, high: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoiseRange(low, high)
