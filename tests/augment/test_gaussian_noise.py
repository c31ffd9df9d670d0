import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from metasynth.augment.bijections import Exp, Sigmoid
from metasynth.augment.noise import GaussianNoise, NoiseLevel, add_noise


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("bijection", [None, Exp(), Sigmoid(0.0, 2.0)])
@pytest.mark.parametrize("start", [1e-3, 0.1, 1.5])
def test_sigma_starts_where_asked(bijection: Exp | Sigmoid | None, start: float) -> None:
    assert GaussianNoise(start, bijection).sigma.item() == pytest.approx(start, rel=1e-5)


def test_forward_adds_sigma_times_the_draws() -> None:
    augmenter = GaussianNoise(0.25)
    images, draws = torch.ones(2, 1, 4, 4), torch.full((2, 1, 4, 4), 2.0)
    torch.testing.assert_close(augmenter(images, draws), torch.full((2, 1, 4, 4), 1.5))


def test_noise_has_the_standard_deviation_sigma() -> None:
    augmenter = GaussianNoise(0.1)
    images = torch.zeros(4, 1, 64, 64)
    noisy = augmenter(images, augmenter.draw(images, seeded(0)))
    assert noisy.std().item() == pytest.approx(0.1, rel=0.02)
    assert noisy.mean().item() == pytest.approx(0.0, abs=0.003)


def test_draws_follow_the_generator_and_the_images() -> None:
    augmenter = GaussianNoise(0.1)
    images = torch.zeros(2, 1, 3, 4, 5, dtype=torch.float64)
    first = augmenter.draw(images, seeded(3))
    assert first.shape == images.shape
    assert first.dtype == torch.float64
    assert torch.equal(first, augmenter.draw(images, seeded(3)))
    assert not torch.equal(first, augmenter.draw(images, seeded(4)))


def test_drawing_leaves_the_global_stream_alone() -> None:
    before = torch.get_rng_state()
    GaussianNoise(0.1).draw(torch.zeros(1, 1, 4, 4), seeded(0))
    NoiseLevel(0.0, 1.0).draw(3, seeded(0))
    assert torch.equal(before, torch.get_rng_state())


def test_sigma_is_twice_differentiable() -> None:
    augmenter = GaussianNoise(0.1).double()
    images = torch.rand(1, 1, 2, 2, dtype=torch.float64, generator=seeded(0))
    draws = augmenter.draw(images, seeded(1))

    def noisy(raw: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(augmenter, {"raw_sigma": raw}, (images, draws))

    raw = augmenter.raw_sigma.detach().clone().requires_grad_()
    assert gradcheck(noisy, raw)
    assert gradgradcheck(noisy, raw)


def test_no_optimiser_step_makes_sigma_negative() -> None:
    augmenter = GaussianNoise(0.05)
    optimiser = torch.optim.SGD(augmenter.parameters(), lr=10.0)
    for _ in range(20):
        optimiser.zero_grad()
        augmenter.sigma.backward()
        optimiser.step()
    assert 0.0 <= augmenter.sigma.item() < 0.05


def test_state_dict_holds_the_one_parameter() -> None:
    learned = GaussianNoise(0.3)
    other = GaussianNoise(0.1)
    other.load_state_dict(learned.state_dict())
    assert list(learned.state_dict()) == ["raw_sigma"]
    assert torch.equal(other.sigma, learned.sigma)


@pytest.mark.parametrize("start", [0, -0.1, math.nan, math.inf])
def test_start_outside_the_bijection_names_the_smallest_allowed(start: float) -> None:
    with pytest.raises(ValueError, match=r"^start: must be finite and at least 1\.18e-38 .*got"):
        GaussianNoise(start)


def test_draws_of_another_shape_are_rejected() -> None:
    message = r"^draws: must have the shape of the images, \(2, 1, 4, 4\), got \(1, 1, 4, 4\)$"
    with pytest.raises(ValueError, match=message):
        GaussianNoise(0.1)(torch.zeros(2, 1, 4, 4), torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match=message):
        add_noise(torch.zeros(2, 1, 4, 4), 0.1, torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("shape", [(3, 1, 4, 4), (3, 2, 2, 3, 4)])
def test_known_noise_takes_one_sigma_per_image(shape: tuple[int, ...]) -> None:
    images, eps = torch.ones(shape), torch.ones(shape)
    noisy = add_noise(images, torch.tensor([0.0, 0.5, 2.0]), eps)
    assert [image.unique().tolist() for image in noisy] == [[1.0], [1.5], [3.0]]
    assert torch.equal(add_noise(images, 0.5, eps), torch.full(shape, 1.5))


def test_known_noise_rejects_a_sigma_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"^sigma: must have shape \(2,\), got \(2, 1\)$"):
        add_noise(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1), torch.zeros(2, 1, 4, 4))


def test_fixed_level_gives_every_image_the_same_sigma() -> None:
    assert NoiseLevel(0.05, 0.05).draw(4, seeded(0)).tolist() == pytest.approx([0.05] * 4)
    assert NoiseLevel(0.0, 0.0).draw(2, seeded(0)).tolist() == [0.0, 0.0]


def test_range_is_uniform_between_its_ends() -> None:
    drawn = NoiseLevel(0.025, 0.2).draw(4000, seeded(0))
    assert drawn.shape == (4000,)
    assert drawn.min() >= 0.025
    assert drawn.max() <= 0.2
    assert drawn.mean().item() == pytest.approx((0.025 + 0.2) / 2, abs=0.003)
    assert drawn.std().item() == pytest.approx(0.175 / math.sqrt(12), rel=0.03)


def test_fixed_and_range_move_the_generator_equally() -> None:
    one, other = seeded(0), seeded(0)
    NoiseLevel(0.1, 0.1).draw(5, one)
    NoiseLevel(0.1, 0.3).draw(5, other)
    assert torch.equal(one.get_state(), other.get_state())


@pytest.mark.parametrize(
    ("text", "level", "label"),
    [
        ("0", NoiseLevel(0.0, 0.0), "0"),
        ("0.05", NoiseLevel(0.05, 0.05), "0.05"),
        ("0.025:0.2", NoiseLevel(0.025, 0.2), "U[0.025, 0.2]"),
        ("0.1:0.1", NoiseLevel(0.1, 0.1), "0.1"),
    ],
)
def test_parse_and_label(text: str, level: NoiseLevel, label: str) -> None:
    assert NoiseLevel.parse(text) == level
    assert level.label == label


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_json_keeps_the_level(one: float, other: float) -> None:
    for level in (NoiseLevel(min(one, other), max(one, other)), NoiseLevel(one, one)):
        assert NoiseLevel.from_json(json.loads(json.dumps(level.to_json()))) == level


def test_json_form() -> None:
    assert NoiseLevel(0.05, 0.05).to_json() == 0.05
    assert NoiseLevel(0.025, 0.2).to_json() == [0.025, 0.2]


@pytest.mark.parametrize("text", ["", "abc", "0.1:", "0.1:0.2:0.3", "0,1"])
def test_parse_rejects_other_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"^sigma: must be a number such as 0\.05 or a range"):
        NoiseLevel.parse(text)


@pytest.mark.parametrize("value", [None, "0.1", True, [], [0.1, None], [0.1, 0.2, 0.3], {"low": 0.1}])
def test_json_of_another_form_is_rejected(value: object) -> None:
    with pytest.raises(ValueError, match=r"^sigma: must be a number such as 0\.05 or a pair"):
        NoiseLevel.from_json(value)


@pytest.mark.parametrize("text", ["-0.1", "0.2:0.1", "nan", "inf", "0:inf", "-1:1"])
def test_impossible_levels_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"^sigma: must be a finite number >= 0 or a range with 0 <= low <= high"):
        NoiseLevel.parse(text)
