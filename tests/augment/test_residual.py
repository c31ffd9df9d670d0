import pytest
import torch
from augment.augmenters import network, seeded
from torch import nn

from metasynth.augment.residual import ResidualNetwork, residual_unet


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("channels", [1, 2])
def test_residual_is_added_and_has_one_channel_of_noise(ndim: int, channels: int) -> None:
    made = network(ndim, channels)
    augmenter, images = ResidualNetwork(made), torch.rand(2, channels, *[4] * ndim, generator=seeded(2))
    draws = augmenter.draw(images, seeded(3))
    assert draws.shape == (2, 1, *[4] * ndim)
    assert torch.equal(augmenter(images, draws), images + made(torch.cat([images, draws], dim=1)))


@pytest.mark.parametrize("ndim", [2, 3])
def test_starts_as_fields_that_are_weaker_the_finer_they_are(ndim: int) -> None:
    augmenter = ResidualNetwork(residual_unet(2, ndim, (2, 3, 4), seeded(0)))
    images = torch.rand(2, 2, *[8] * ndim, generator=seeded(1))
    draws = augmenter.draw(images, seeded(2))
    pool = {2: nn.functional.avg_pool2d, 3: nn.functional.avg_pool3d}[ndim]
    doubled = {"scale_factor": 2, "mode": {2: "bilinear", 3: "trilinear"}[ndim]}
    half = 2 ** (ndim / 2) * pool(draws, 2)
    quarter = 2 ** (ndim / 2) * pool(half, 2)
    field = nn.functional.interpolate(0.1 * quarter, **doubled)
    field = nn.functional.interpolate(field + 0.05 * half, **doubled) + 0.025 * draws
    assert torch.allclose(augmenter(images, draws), images * (1 + field), atol=1e-5)


def test_noise_changes_the_residual() -> None:
    augmenter, images = ResidualNetwork(network(2)), torch.rand(1, 1, 8, 8, generator=seeded(0))
    one, other = (augmenter(images, augmenter.draw(images, seeded(seed))) for seed in (1, 2))
    assert (one - other).abs().max() > 1e-3


def test_the_channel_of_noise_is_standard_normal() -> None:
    drawn = ResidualNetwork(nn.Identity()).draw(torch.zeros(8, 3, 50, 50), seeded(0))
    assert drawn.mean().item() == pytest.approx(0.0, abs=0.03)
    assert drawn.std().item() == pytest.approx(1.0, abs=0.03)


def test_any_network_will_do() -> None:
    average = nn.Conv2d(2, 1, 1, bias=False)
    nn.init.constant_(average.weight, 0.5)
    augmented = ResidualNetwork(average)(torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 3.0))
    assert augmented.flatten().tolist() == [3.0] * 4


@pytest.mark.parametrize("widths", [(4,), (4, 6), (3, 5, 7, 9)])
def test_number_of_levels(widths: tuple[int, ...]) -> None:
    made = residual_unet(widths=widths, generator=seeded(0))
    assert made(torch.rand(1, 2, 8, 16)).shape == (1, 1, 8, 16)
    pools = [module for module in made.modules() if isinstance(module, nn.AvgPool2d)]
    assert len(pools) == len(widths) - 1


def test_initial_features_neither_vanish_nor_explode() -> None:
    made = residual_unet(widths=(64, 64, 64), generator=seeded(0))
    deepest = made.levels.coarser.coarser.before
    assert deepest.second.weight.var().item() == pytest.approx(2 / (64 * 9), rel=0.02)
    images = torch.rand(1, 1, 32, 32, generator=seeded(1))
    noise = torch.randn(1, 1, 32, 32, generator=seeded(2))
    features, _ = made.levels(images, noise)
    assert 0.1 < features.std().item() < 2.0


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_residual_has_no_checkerboard(ndim: int) -> None:
    made = network(ndim, widths=(3, 4))
    residual = made(torch.full((1, 2, *[28] * ndim), 0.5))
    inner = residual[(..., *[slice(12, -12)] * ndim)]  # where borders are not seen
    assert inner.std() < 1e-5 * residual.std()


@pytest.mark.parametrize(("size", "mode"), [((3, 5), "bilinear"), ((2, 3, 4), "trilinear")])
def test_the_way_up_is_linear_interpolation(size: tuple[int, ...], mode: str) -> None:
    made = residual_unet(ndim=len(size), widths=(2, 3), generator=seeded(0))
    features = torch.randn(2, 3, *size, dtype=torch.float64, generator=seeded(1))
    expected = nn.functional.interpolate(features, scale_factor=2, mode=mode)
    assert torch.allclose(made.levels.doubled(features), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("ndim", [2, 3])
def test_every_level_has_the_noise_at_unit_variance(ndim: int) -> None:
    made = residual_unet(ndim=ndim, widths=(2, 2, 2), generator=seeded(0))
    given: list[torch.Tensor] = []
    for level in (made.levels, made.levels.coarser, made.levels.coarser.coarser):
        level.register_forward_pre_hook(lambda _, arguments: given.append(arguments[1]))
    noise = torch.randn(8, 1, *[32] * ndim, generator=seeded(1))
    made(torch.cat([torch.zeros_like(noise), noise], dim=1))
    assert [tuple(one.shape[2:]) for one in given] == [(size,) * ndim for size in (32, 16, 8)]
    for one in given:
        assert one.std().item() == pytest.approx(1.0, abs=4 / one.numel() ** 0.5)
    mean = torch.nn.functional.adaptive_avg_pool3d if ndim == 3 else torch.nn.functional.adaptive_avg_pool2d
    assert torch.allclose(given[2], 4 ** (ndim / 2) * mean(noise, 8), atol=1e-5)


def test_weights_follow_the_generator_and_leave_the_global_stream_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (residual_unet(generator=seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.levels.before.first.weight, other.levels.before.first.weight)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((1, 1, 8, 6), r"^images of 8 x 6 cannot be halved 2 times; expected sizes divisible by 4 for an augmenting "),
        ((1, 2, 8, 8), r"^images: must have 1 channels and 2 voxel axes for this network, got 2 and 2$"),
        ((1, 1, 8, 8, 8), r"^images: must have 1 channels and 2 voxel axes for this network, got 1 and 3$"),
    ],
)
def test_images_that_do_not_fit_the_network_are_refused(size: tuple[int, ...], message: str) -> None:
    augmenter, images = ResidualNetwork(residual_unet()), torch.zeros(size)
    with pytest.raises(ValueError, match=message):
        augmenter(images, augmenter.draw(images, seeded(0)))


def test_a_network_that_gives_another_shape_is_refused() -> None:
    augmenter, images = ResidualNetwork(nn.Identity()), torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"^network: must map .*, \(1, 1, 4, 4\), got \(1, 2, 4, 4\)$"):
        augmenter(images, augmenter.draw(images, seeded(0)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0}, "^channels: must be at least 1, got 0$"),
        ({"ndim": 1}, "^ndim: must be 2 or 3, got 1$"),
        ({"widths": ()}, r"^widths: must be one or more numbers >= 1, got \(\)$"),
        ({"widths": (4, 0)}, r"^widths: must be one or more numbers >= 1, got \(4, 0\)$"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        residual_unet(**arguments)
