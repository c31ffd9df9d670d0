"""Intensity non-uniformity, held against scipy's interpolation and Eq. 7 written out in numpy."""

import math
import pickle

import numpy as np
import pytest
import torch
from augment.augmenters import seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator
from torch import Tensor

from metasynth.augment.bias_field import BiasField, KnownBias, receive_field

Array = NDArray[np.float64]
SHAPES = {2: (7, 10), 3: (5, 8, 6)}


def interpolated(nodes: Array, shape: tuple[int, ...]) -> Array:
    """Linear between `nodes`, of which the outer lie on the outer voxels."""
    for axis, count in enumerate(nodes.shape):
        nodes = nodes.repeat(2, axis) if count == 1 else nodes
    places = [np.linspace(0, size - 1, count) for size, count in zip(shape, nodes.shape, strict=True)]
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return RegularGridInterpolator(places, nodes)(voxels)


def field_by_hand(draws: tuple[Tensor, ...], exponents: tuple[float, ...], shape: tuple[int, ...]) -> Array:
    """Eqs 6 and 7 for every image, (B, 1, *S)."""
    product = np.ones((len(draws[0]), 1, *shape))
    for nodes, exponent in zip(draws, exponents, strict=True):
        product *= np.stack([interpolated(own[0].numpy(), shape) for own in nodes])[:, None] ** exponent
    return product


@settings(max_examples=40)
@given(data=st.data(), ndim=st.sampled_from([2, 3]), seed=st.integers(0, 1000))
def test_a_field_is_linear_between_its_nodes(data: st.DataObject, ndim: int, seed: int) -> None:
    shape = tuple(data.draw(st.integers(2, 12 if ndim == 2 else 6)) for _ in range(ndim))
    count = data.draw(st.integers(1, 9 if ndim == 2 else 5))
    nodes = 0.5 + torch.rand(2, 1, *[count] * ndim, dtype=torch.float64, generator=seeded(seed))
    found = receive_field((nodes,), torch.ones(1, dtype=torch.float64), shape)
    np.testing.assert_allclose(found.numpy(), field_by_hand((nodes,), (1.0,), shape), rtol=1e-13)


@pytest.mark.parametrize("ndim", [2, 3])
def test_learned_field_is_the_product_of_powers(ndim: int) -> None:
    exponents = (0.2, 0.5, 0.9)
    augmenter = BiasField(exponents, (2, 4, 8), ndim=ndim).double()
    images = torch.rand(3, 2, *SHAPES[ndim], dtype=torch.float64, generator=seeded(0))
    draws = augmenter.draw(images, seeded(1))
    learned = tuple(augmenter.exponents.tolist())
    assert learned == pytest.approx(exponents, rel=1e-6)
    expected = images.numpy() * field_by_hand(draws, learned, SHAPES[ndim])
    np.testing.assert_allclose(augmenter(images, draws).detach().numpy(), expected, rtol=1e-13)


def test_derivative_with_respect_to_an_exponent() -> None:
    """d(x alpha) / dc_k = x alpha log(alpha_k), with c (1 - c) the derivative of the sigmoid."""
    augmenter = BiasField((0.3, 0.6), (2, 3)).double()
    images = torch.rand(2, 1, 5, 6, dtype=torch.float64, generator=seeded(0))
    draws = augmenter.draw(images, seeded(1))
    augmenter(images, draws).sum().backward()
    c = augmenter.exponents.detach().numpy()
    product = images.numpy() * field_by_hand(draws, tuple(c), (5, 6))
    logs = [np.log(field_by_hand((nodes,), (1.0,), (5, 6))) for nodes in draws]
    expected = np.array([(product * log).sum() for log in logs]) * c * (1 - c)
    assert augmenter.raw_exponents.grad is not None
    np.testing.assert_allclose(augmenter.raw_exponents.grad.numpy(), expected, rtol=1e-12)


def test_the_outer_nodes_lie_on_the_outer_voxels() -> None:
    nodes = torch.arange(1.0, 17.0, dtype=torch.float64).reshape(1, 1, 4, 4)
    field = KnownBias((1.0,), (4,)).field((nodes,), (10, 7))[0, 0]
    torch.testing.assert_close(field[::9, ::6], nodes[0, 0, ::3, ::3])
    torch.testing.assert_close(field[::3, ::2], nodes[0, 0])


def test_one_node_gives_a_constant_and_one_voxel_the_first_node() -> None:
    constant = KnownBias((1.0,), (1,)).field((torch.full((1, 1, 1, 1), 1.5),), (4, 5))
    torch.testing.assert_close(constant, torch.full((1, 1, 4, 5), 1.5))
    nodes = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64).reshape(1, 1, 2, 2)
    slab = KnownBias((1.0,), (2,)).field((nodes,), (1, 3))
    torch.testing.assert_close(slab, torch.tensor([[1.0, 1.5, 2.0]], dtype=torch.float64).reshape(1, 1, 1, 3))


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_known_and_learned_are_equal_bit_for_bit(ndim: int, dtype: torch.dtype) -> None:
    augmenter = BiasField((0.15, 0.5, 0.7), ndim=ndim)
    known = KnownBias(tuple(augmenter.exponents.tolist()))
    images = torch.rand(3, 1, *SHAPES[ndim], dtype=dtype, generator=seeded(0))
    draws = augmenter.draw(images, seeded(1))
    assert torch.equal(known.corrupt(images, seeded(1)), augmenter(images, draws))
    assert torch.equal(known.field(draws, SHAPES[ndim]) * images, augmenter(images, draws))
    assert known.corrupt(images, seeded(1)).dtype == dtype


def test_exponents_of_zero_leave_images_as_they_are() -> None:
    images = torch.rand(3, 1, 8, 8, generator=seeded(0))
    assert torch.equal(KnownBias((0.0, 0.0, 0.0)).corrupt(images, seeded(1)), images)
    nearly = BiasField((1e-6, 1e-6, 1e-6))
    torch.testing.assert_close(nearly(images, nearly.draw(images, seeded(1))), images, rtol=1e-5, atol=0.0)


def test_exponents_do_not_move_the_draws() -> None:
    """A field that has no effect is drawn as well."""
    images, one, other = torch.ones(2, 1, 4, 4), seeded(0), seeded(0)
    KnownBias((0.0, 3.0), (2, 4)).corrupt(images, one)
    KnownBias((0.5, 0.0), (2, 4)).corrupt(images, other)
    assert torch.equal(one.get_state(), other.get_state())


def test_channels_share_the_field_of_their_image() -> None:
    fields = KnownBias((0.5, 0.5, 0.5)).corrupt(torch.ones(2, 3, 6, 6), seeded(0))
    assert torch.equal(fields[:, 0], fields[:, 1])
    assert torch.equal(fields[:, 0], fields[:, 2])
    assert not torch.equal(fields[0], fields[1])


def test_node_values_are_uniform_in_their_range() -> None:
    augmenter = BiasField((0.5, 0.5), (2, 3), (0.5, 2.0))
    for nodes, count in zip(augmenter.draw(torch.ones(2000, 1, 4, 4), seeded(0)), (2, 3), strict=True):
        assert nodes.shape == (2000, 1, count, count)
        assert 0.5 <= nodes.min() < 0.505
        assert 1.995 < nodes.max() <= 2.0
        assert nodes.mean().item() == pytest.approx(1.25, abs=0.02)
        assert nodes.std().item() == pytest.approx(1.5 / math.sqrt(12), rel=0.02)


def test_mean_of_the_logarithm_where_nodes_lie() -> None:
    """There it is sum_k c_k E[log beta], E[log U(a, b)] = (b log b - a log a) / (b - a) - 1."""
    fields = KnownBias((0.5, 1.0, 2.0)).corrupt(torch.ones(4000, 1, 8, 8, dtype=torch.float64), seeded(0))
    expected = (2 * math.log(2) - 0.5 * math.log(0.5)) / 1.5 - 1
    corners = fields[..., ::7, ::7].log()
    assert corners.mean().item() == pytest.approx(3.5 * expected, abs=0.03)


@pytest.mark.parametrize(
    ("count", "names"),
    [
        (1, ["c_1"]),
        (2, ["c_1", "c_2"]),
        (3, ["c_low", "c_mid", "c_high"]),
        (4, ["c_1", "c_2", "c_3", "c_4"]),
    ],
)
def test_names_of_the_exponents(count: int, names: list[str]) -> None:
    exponents = [0.2, 0.4, 0.6, 0.8][:count]
    observed = BiasField(exponents, range(2, 2 + count)).observed()
    assert observed == pytest.approx(dict(zip(names, exponents, strict=True)))


def test_no_optimiser_step_leaves_the_interval() -> None:
    augmenter = BiasField((0.5, 0.5, 0.5))
    optimiser = torch.optim.SGD(augmenter.parameters(), lr=100.0)
    for _ in range(20):
        optimiser.zero_grad()
        (augmenter.exponents[0] - augmenter.exponents[1]).backward()
        optimiser.step()
    low, high, mid = augmenter.exponents.tolist()
    assert 0.0 <= low < 0.1
    assert 0.9 < high <= 1.0
    assert mid == 0.5


def test_known_bias_can_be_pickled_and_compared() -> None:
    known = KnownBias((0.5, 1.0, 0.0), (2, 3, 5), (0.8, 1.2))
    assert pickle.loads(pickle.dumps(known)) == known
    assert hash(known) == hash(KnownBias((0.5, 1.0, 0.0), (2, 3, 5), (0.8, 1.2)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exponents": (0.5, 0.5)}, r"^exponents: must be 3 numbers, one for each of nodes, got \(0\.5, 0\.5\)$"),
        ({"exponents": (), "nodes": ()}, r"^nodes: must be one or more whole numbers >= 1, got \(\)$"),
        ({"nodes": (2, 0, 8)}, r"^nodes: must be one or more whole numbers >= 1, got \(2, 0, 8\)$"),
        ({"nodes": (2, 2.5, 8)}, r"^nodes: must be one or more whole numbers >= 1, got \(2, 2\.5, 8\)$"),
        ({"node_range": (0.0, 2.0)}, r"^node_range: must be two finite numbers with 0 < low <= high, got 0, 2$"),
        ({"node_range": (2.0, 1.0)}, r"^node_range: .*, got 2, 1$"),
        ({"node_range": (1.0, math.inf)}, r"^node_range: .*, got 1, inf$"),
    ],
)
def test_fields_out_of_range_are_refused(arguments: dict[str, tuple[float, ...]], message: str) -> None:
    for made in (BiasField, KnownBias):
        with pytest.raises(ValueError, match=message):
            made(**({"exponents": (0.5, 0.5, 0.5)} | arguments))


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_known_exponents_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"^exponents: must be finite numbers >= 0, got"):
        KnownBias((0.5, value, 0.5))


@pytest.mark.parametrize("value", [0.0, 1.0, 1.5])
def test_learned_exponents_out_of_the_bijections_range_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=rf"^exponents: must be greater than 0 and less than 1, got {value:g}$"):
        BiasField((0.5, value, 0.5))


def test_axes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^ndim: must be 2 or 3, got 1$"):
        BiasField((0.5, 0.5, 0.5), ndim=1)
    flat, message = BiasField((0.5, 0.5, 0.5)), r"^images: must have shape \(B, C, \*S\) with 2 voxel axes, got"
    volumes = torch.ones(1, 1, 4, 4, 4)
    with pytest.raises(ValueError, match=message):
        flat.draw(volumes, seeded(0))
    with pytest.raises(ValueError, match=message):
        flat(volumes, flat.draw(volumes[0], seeded(0)))
    with pytest.raises(ValueError, match=r"^images: .* with 2 or 3 voxel axes, got \(1, 1, 4\)$"):
        KnownBias((0.5, 0.5, 0.5)).corrupt(torch.ones(1, 1, 4), seeded(0))
