"""Each stage of the batched generator against cornucopia's own, with the same parameters."""

import random
from collections.abc import Iterator

import cornucopia
import pytest
import torch
from cornucopia.utils.conv import smoothnd
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metasynth.synthesis import intensity
from metasynth.synthesis.acquisition import chi_noise
from metasynth.synthesis.deformation import affine_matrices, mapped, warped
from metasynth.synthesis.draws import normal, uniforms, whole
from metasynth.synthesis.mixture import mixture
from metasynth.synthesis.smoothing import along_axes, kernels, smooth_noise, smoothing_matrix
from metasynth.synthesis.splines import spline_field


@pytest.fixture(autouse=True)
def _global_streams() -> Iterator[None]:
    """Cornucopia draws from them."""
    state, torch_state = random.getstate(), torch.get_rng_state()
    random.seed(3)
    torch.manual_seed(3)
    yield
    random.setstate(state)
    torch.set_rng_state(torch_state)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=25)
@given(fwhm=st.floats(0, 30), shape=st.lists(st.integers(1, 24), min_size=2, max_size=3), seed=st.integers(0, 2**31))
def test_smoothing_is_cornucopias_up_to_the_edge(fwhm: float, shape: list[int], seed: int) -> None:
    image = torch.rand(shape, generator=seeded(seed))
    weights = kernels(torch.tensor([fwhm]), fwhm)[0]
    ours = along_axes(image, [smoothing_matrix(weights, size) for size in shape])
    assert torch.allclose(ours, smoothnd(image[None], fwhm=[fwhm] * len(shape))[0], atol=5e-5)


def test_kernel_has_the_stated_variance_and_no_denormals() -> None:
    fwhm = torch.tensor([0.0, 1.5, 3.0, 10.0])
    weights = kernels(fwhm, 10.0).double()
    at = torch.arange(weights.shape[1])
    assert torch.allclose(weights[:, 0] + 2 * weights[:, 1:].sum(1), torch.ones(4).double(), atol=1e-4)
    variance = 2 * (weights * at**2).sum(1)
    expected = (fwhm / 2.3548).double() ** 2 + 1 / 6
    assert variance[0] < 1e-6
    assert torch.allclose(variance[1:], expected[1:], rtol=0.01)
    assert not ((weights > 0) & (weights < torch.finfo(torch.float32).tiny)).any()


@pytest.mark.parametrize("fwhm", [0.0, 1.0, 2.5, 6.0])
@pytest.mark.parametrize("window", [(slice(0, 40), slice(0, 32)), (slice(12, 20), slice(0, 9))], ids=["whole", "part"])
def test_smooth_noise_has_the_covariance_of_smoothed_white_noise(fwhm: float, window: tuple[slice, slice]) -> None:
    """At the edges too: element for element, over many draws, against the product of smoothing matrices."""
    shape, n = (40, 32), 3000
    weights = kernels(torch.tensor([fwhm]), fwhm)[0]
    matrices = [smoothing_matrix(weights, size) for size in shape]
    expected = [(m @ m.T)[part, part] for m, part in zip(matrices, window, strict=True)]
    generator, out = seeded(), torch.empty(shape)
    draws = torch.empty(n, *(part.stop - part.start for part in window))
    for draw in draws:
        smooth_noise(weights, fwhm, 2.0, window, shape, generator, out)
        draw.copy_(out[window])
    draws /= 2
    # Along each axis, averaged over the other: n draws of many voxels.
    rows = torch.einsum("nik,njk->ij", draws, draws) / (n * expected[1].diagonal().sum())
    columns = torch.einsum("nki,nkj->ij", draws, draws) / (n * expected[0].diagonal().sum())
    scale = expected[0].diagonal().max()
    assert (rows - expected[0]).abs().max() < 0.05 * scale
    assert (columns - expected[1]).abs().max() < 0.05 * scale
    assert abs(draws.mean()) < 0.05


@pytest.mark.parametrize("shape", [(20, 31), (9, 12, 7)])
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_spline_field_is_cornucopias(shape: tuple[int, ...], order: int) -> None:
    field = cornucopia.MulFieldTransform(4, 0, 1, order=order)
    points = torch.rand([3] * len(shape), generator=seeded())
    expected = field.upsample_field(points[None], shape)[0]
    assert torch.allclose(spline_field(points, shape, order, repeat_edge=True), expected, atol=1e-5)


def test_a_field_has_no_more_points_than_voxels() -> None:
    controls = torch.rand(1, 6, 6, generator=seeded())
    field = intensity.smooth_fields(controls, torch.tensor([[6, 5]]), (3, 8), 1)
    assert torch.equal(field[0], spline_field(controls[0, :3, :5], (3, 8), 1, repeat_edge=True))


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("shape", [(36, 44), (14, 12, 17)])
def test_deformation_is_cornucopias(shape: tuple[int, ...], order: int) -> None:
    """The same labels, but where a coordinate lies near the middle between two voxels."""
    ndim = len(shape)
    labels = torch.randint(5, (1, *shape), generator=seeded())
    linear_shears = [0.01] * (ndim * (ndim - 1) // 2) if ndim == 2 else [0.0] * 3
    rotations = [8.0, -5.0, 11.0][: len(linear_shears)]
    translations, zooms = [0.05, -0.02, 0.03][:ndim], [0.1, -0.07, 0.02][:ndim]
    nodes = [4, 7, 3][:ndim]
    theirs = cornucopia.AffineElasticTransform(
        dmax=0.05,
        shape=nodes,
        translations=translations,
        rotations=rotations,
        shears=linear_shears,
        zooms=zooms,
        order=order,
        nearest_if_label=True,
    ).final(labels)
    row = [torch.tensor([x]) for x in (translations, rotations, linear_shears, zooms)]
    linear, offset = affine_matrices(*row, shape)
    assert torch.allclose(torch.cat([linear[0], offset[0, :, None]], 1), theirs.affine[:ndim], atol=1e-4)
    # More room than control points, filled with what must not matter.
    controls = torch.full((1, ndim, *[8] * ndim), 1e3)
    controls[(slice(None), slice(None), *(slice(n) for n in nodes))] = theirs.controls
    ours = warped(labels, linear, offset, controls, torch.tensor([nodes]), order)
    position = theirs.flow.clone()[0]
    # Ours of higher order is linear between voxels, which shows at control points this close to each other.
    centre = (position - position.round()).abs().amax(0) < (0.48 if order == 1 else 0.37)
    # Cornucopia's spline of higher order ends sharply one voxel before ours.
    size = torch.tensor(shape).reshape(-1, *[1] * ndim)
    affine = torch.stack([mapped(linear[:, d], offset[:, d], shape)[0] for d in range(ndim)])
    within = ((affine >= 0) & (affine <= size - 1)).all(0) | ((affine < -1) | (affine > size)).any(0)
    kept = centre & within
    assert kept.float().mean() > (0.3 if ndim == 3 else 0.5)
    assert torch.equal(ours[0][kept], theirs(labels)[0][kept])
    assert not torch.equal(ours, labels)


def test_shears_in_3d_agree_to_first_order() -> None:
    shears = [0.012, -0.009, 0.011]
    x = torch.zeros(1, 8, 9, 10)
    theirs = cornucopia.AffineTransform(shears=shears).final(x, flow=False).matrix[:3, :3]
    linear, _ = affine_matrices(
        torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([shears]), torch.zeros(1, 3), (8, 9, 10)
    )
    assert (linear[0] - theirs).abs().max() < 3e-4


@pytest.mark.parametrize("exponent", [0.3, 1.0, 2.5])
def test_gamma_is_cornucopias(exponent: float) -> None:
    images = torch.rand(2, 20, 24, generator=seeded()) - 0.1
    images[0, :4] = images[0].min()
    expected = torch.stack([cornucopia.GammaTransform(exponent)(image[None])[0] for image in images])
    assert torch.allclose(intensity.raised(images, torch.tensor([exponent] * 2)), expected, atol=2e-5)


@pytest.mark.parametrize("zeros", [0, 300])
def test_quantile_scaling_is_cornucopias(zeros: int) -> None:
    images = torch.randn(3, 40, 50, generator=seeded())
    images.flatten(1)[:, :zeros] = 0
    expected = torch.stack([cornucopia.QuantileTransform()(image[None])[0] for image in images])
    assert torch.allclose(intensity.scaled(images), expected, atol=1e-5)


def test_quantiles_of_a_large_image_are_near_those_of_all_voxels() -> None:
    image = torch.randn(1, 300, 301, generator=seeded())
    low, high = torch.quantile(intensity.scaled(image).flatten(), torch.tensor([0.01, 0.99]))
    assert abs(low) < 0.02
    assert abs(high - 1) < 0.02


@pytest.mark.parametrize("voxels", [0, 1, 2, 3])
def test_quantile_scaling_of_hardly_any_voxels_is_finite(voxels: int) -> None:
    image = torch.zeros(1, 10, 10)
    image[0, 0, :voxels] = torch.tensor([0.5, 0.7, 0.6])[:voxels]
    assert torch.isfinite(intensity.scaled(image)).all()


@pytest.mark.parametrize("shape", [(30, 41), (12, 9, 16)])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_lower_resolution_is_cornucopias(shape: tuple[int, ...], axis: int | None) -> None:
    image = torch.rand(shape, generator=seeded())
    if axis is None:
        expected = cornucopia.LowResTransform(3.3)(image[None])[0]
        low = intensity.lowered(image, [3.3] * len(shape), [3.3] * len(shape), least=1)
    else:
        expected = cornucopia.LowResSliceTransform(3.3, thickness=0.6, axis=axis)(image[None])[0]
        width = [3.3 * 0.6 if d == axis else 0.0 for d in range(len(shape))]
        low = intensity.lowered(image, width, [3.3 if d == axis else 1.0 for d in range(len(shape))], least=2)
    assert low.numel() < image.numel()
    assert torch.allclose(intensity.restored(low, shape), expected, atol=1e-5)


@pytest.mark.parametrize("channels", [2, 8])
def test_chi_noise_is_cornucopias_in_mean_and_deviation(channels: int) -> None:
    shape = (200, 200)
    ours = chi_noise(shape, 0.1, channels, seeded())
    noise = cornucopia.ChiNoiseTransform(0.1, channels, returns="noise")(torch.zeros(1, *shape))
    assert ours.std() == pytest.approx(0.1, rel=0.02)
    assert ours.mean() == pytest.approx(float(noise.mean()), rel=0.01)
    assert noise.std() == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize(("fwhm", "widest"), [(0.0, 0.0), (0.0, 3.0), (3.0, 3.0)])
def test_mixture_has_the_means_and_deviations_of_its_classes(fwhm: float, widest: float) -> None:
    labels = torch.zeros(2, 60, 60, dtype=torch.int64)
    labels[:, 5:55, 5:30] = 1
    labels[0, 5:55, 30:55] = 3
    means, sds = torch.tensor([[0.2, 0.5, 0.9], [0.7, 0.1, 0.3]]), torch.tensor([[0.05, 0.0, 0.02], [0.1, 0.3, 0.3]])
    images = mixture(labels, means, sds, torch.full((2, 3), fwhm), widest, [seeded(1), seeded(2)])
    weights = kernels(torch.tensor([fwhm]), widest)[0]
    kept = float(weights[0] ** 2 + 2 * (weights[1:] ** 2).sum())  # of the variance along one axis
    for index, k in ((0, 1), (0, 3), (1, 1)):
        voxels = images[index][labels[index] == k]
        sd = sds[index, k - 1] * kept
        assert voxels.mean() == pytest.approx(float(means[index, k - 1]), abs=0.2 * float(sds[index, k - 1]))
        assert voxels.std() == pytest.approx(float(sd), rel=0.2)
    assert not images[labels == 0].any()


def test_mixture_takes_each_voxel_from_its_own_class() -> None:
    labels = torch.randint(40, (3, 17, 19), generator=seeded())
    means = torch.rand(3, 39, generator=seeded(1))
    images = mixture(labels, means, torch.zeros(3, 39), torch.ones(3, 39), 1.0, [seeded(i) for i in range(3)])
    expected = torch.nn.functional.pad(means, (1, 0)).gather(1, labels.flatten(1)).reshape(labels.shape)
    assert torch.allclose(images, expected, atol=1e-6)


def test_draws_have_their_distributions() -> None:
    draws = uniforms({"a": (20_000,), "b": (20_000,)}, [seeded()])
    counts = whole(draws["a"][0], 2, 5).bincount()
    assert counts[:2].sum() == 0
    assert len(counts) == 6
    assert (counts[2:] / 20_000 - 0.25).abs().max() < 0.015
    gauss = normal(draws["b"])
    assert abs(gauss.mean()) < 0.03
    assert gauss.std() == pytest.approx(1, rel=0.02)
    assert torch.isfinite(normal(torch.tensor([0.0, 1 - 2**-24]))).all()


def test_extremes_of_a_draw_stay_in_range() -> None:
    ends = torch.tensor([0.0, 1 - 2**-24])
    assert whole(ends, 2, 10).tolist() == [2, 10]


def test_a_draw_depends_on_its_own_generator_and_not_on_later_names() -> None:
    first = uniforms({"a": (2, 3), "b": ()}, [seeded(5)])
    both = uniforms({"a": (2, 3), "b": (4,)}, [seeded(4), seeded(5)])
    assert torch.equal(first["a"][0], both["a"][1])
    assert first["b"].shape == (1,)


def _spread(images: Tensor) -> Tensor:
    return images.flatten(1).std(1)


def test_blur_smooths_each_image_by_its_own_width() -> None:
    images = torch.rand(3, 40, 40, generator=seeded())
    blurred = intensity.blurred(images, torch.tensor([0.0, 1.0, 3.0]), 3.0)
    assert torch.allclose(blurred[0], images[0], atol=1e-6)
    spread = _spread(blurred)
    assert spread[2] < spread[1] < spread[0]
    assert torch.allclose(blurred[2], smoothnd(images[2:], fwhm=[3.0, 3.0])[0], atol=1e-5)
