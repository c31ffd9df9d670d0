"""What the batched generator promises whoever uses it; its distributions are compared in test_batched_parity.py."""

import copy
import pickle
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.label_maps import batch, patchwork, seeded, shells
from torch import Tensor

from metasynth.errors import DataError, RunError, UsageError
from metasynth.synthesis import intensity
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.config import PAPER, SYNTHSEG, CornucopiaConfig

K = 5
FULL = CornucopiaConfig(order=3, bias=7, resolution=8, snr=10)
NOTHING = CornucopiaConfig(translations=0, rotation=0, shears=0, zooms=0, elastic=0, gmm_fwhm=0, gamma=0, motion_fwhm=0)
CONFIGS = pytest.mark.parametrize("config", [PAPER, FULL, SYNTHSEG, NOTHING], ids=["paper", "full", "synthseg", "none"])


@CONFIGS
@pytest.mark.parametrize("size", [(48, 40), (24, 20, 28)])
def test_shapes_dtypes_and_ranges(size: tuple[int, ...], config: CornucopiaConfig) -> None:
    labels = batch(2, *size)
    kept = labels.clone()
    images, deformed = BatchedGenerator(K, config)(labels, seeded(0))
    assert images.shape == (2, 1, *size)
    assert images.dtype == torch.float32
    assert not images.requires_grad
    assert deformed.shape == labels.shape
    assert deformed.dtype == torch.int64
    assert set(deformed.unique().tolist()) <= set(range(K))
    assert torch.isfinite(images).all()
    assert torch.equal(labels, kept)
    assert torch.equal(deformed, labels) == (config == NOTHING)


def test_image_shows_the_deformed_labels() -> None:
    """Class means explain most of an image's variance, and less so before the deformation."""
    labels = batch(6, 48, 40)
    images, deformed = BatchedGenerator(K)(labels, seeded(0))

    def explained(shown: Tensor) -> float:
        total = within = 0.0
        for image, classes in zip(images[:, 0], shown, strict=True):
            total += (image - image.mean()).square().sum().item()
            for k in classes.unique():
                voxels = image[classes == k]
                within += (voxels - voxels.mean()).square().sum().item()
        return 1 - within / total

    assert explained(deformed) > 0.85
    assert explained(deformed) > explained(labels) + 0.1


@CONFIGS
@pytest.mark.parametrize("size", [(41, 53), (18, 13, 15)])
def test_an_image_is_bit_for_bit_the_same_in_any_batch(size: tuple[int, ...], config: CornucopiaConfig) -> None:
    make, labels = BatchedGenerator(K, config), batch(5, *size)
    labels[3] = 0
    seeds = make.draw_seeds(5, seeded(3))
    images, deformed = make(labels, seeded(3))
    for chosen in ([2], [4, 0], [1, 3, 2], [0, 1, 2, 3, 4, 4, 1]):
        some, shown = make.synthesise(labels[chosen], seeds[chosen])
        assert torch.equal(some, images[chosen])
        assert torch.equal(shown, deformed[chosen])


def test_same_generator_state_same_result_and_others_differ() -> None:
    make, labels = BatchedGenerator(K), batch(3, 48, 40)
    one, same, other = make(labels, seeded(0)), make(labels, seeded(0)), make(labels, seeded(1))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(one[0][0], one[0][1])


def test_successive_calls_move_the_generator() -> None:
    make, labels, generator = BatchedGenerator(K), batch(1, 48, 40), seeded(0)
    assert not torch.equal(make(labels, generator)[0], make(labels, generator)[0])


def test_global_streams_are_neither_used_nor_moved() -> None:
    make, labels = BatchedGenerator(K, FULL), batch(2, 48, 40)
    images, _ = make(labels, seeded(0))
    random.random(), torch.rand(3)
    before = random.getstate(), torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    again, _ = make(labels, seeded(0))
    after = random.getstate(), torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    assert torch.equal(images, again)
    assert before[0] == after[0]
    assert torch.equal(before[1], after[1])
    assert all(np.array_equal(a, b) for a, b in zip(before[2], after[2], strict=True))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("flush", [False, True])
def test_threads_and_denormals_change_nothing_beyond_rounding(threads: int, flush: bool) -> None:
    make, labels = BatchedGenerator(K, FULL), batch(2, 64, 64)
    images, deformed = make(labels, seeded(0))
    torch.set_num_threads(threads)
    torch.set_flush_denormal(flush)
    others, shown = make(labels, seeded(0))
    assert torch.allclose(images, others, atol=1e-4)
    assert torch.equal(deformed, shown)


@pytest.mark.parametrize(
    "off",
    [
        {"gmm_fwhm": 0},
        {"gamma": 0},
        {"motion_fwhm": 0},
        {"bias": False},
        {"resolution": False},
        {"snr": False},
        {"elastic": 0},
        {"rotation": 0, "translations": 0, "shears": 0, "zooms": 0},
    ],
    ids=lambda off: next(iter(off)),
)
def test_every_step_can_be_left_out_and_geometry_stays_with_intensity_steps(off: dict[str, float]) -> None:
    labels = batch(3, 48, 40)
    images, deformed = BatchedGenerator(K, FULL)(labels, seeded(0))
    others, shown = BatchedGenerator(K, replace(FULL, **off))(labels, seeded(0))
    assert torch.isfinite(others).all()
    assert not torch.equal(images, others)
    assert torch.equal(deformed, shown) == (not {"elastic", "rotation"} & set(off))


def test_with_everything_off_classes_are_gaussians_scaled_by_quantiles() -> None:
    labels = patchwork(4, 64, K)
    images, deformed = BatchedGenerator(K, NOTHING, class_sd=0)(labels, seeded(0))
    assert torch.equal(deformed, labels)
    for image, shown in zip(images[:, 0], labels, strict=True):
        assert all(image[shown == k].std() < 1e-6 for k in range(1, K))
        assert image[shown > 0].max() == pytest.approx(1, abs=1e-5)


def test_class_sd_scales_the_noise_of_classes() -> None:
    labels = patchwork(12, 64, K)

    def noise(class_sd: float) -> float:
        images, _ = BatchedGenerator(K, NOTHING, class_sd)(labels, seeded(0))
        return float(
            torch.stack([image[0][shown == 1].std() for image, shown in zip(images, labels, strict=True)]).mean()
        )

    assert noise(0.005) * 8 < noise(0.05) < noise(0.005) * 12


def test_contrast_is_random() -> None:
    labels = shells(K, 48, 40).expand(12, -1, -1)
    images, deformed = BatchedGenerator(K)(labels, seeded(0))
    brighter = [bool(i[0][d == 4].mean() > i[0][d == 2].mean()) for i, d in zip(images, deformed, strict=True)]
    assert 0 < sum(brighter) < 12


@CONFIGS
def test_label_map_without_foreground_gives_zeros(config: CornucopiaConfig) -> None:
    labels = batch(2, 48, 40)
    labels[0] = 0
    images, deformed = BatchedGenerator(K, config)(labels, seeded(0))
    assert not images[0].any()
    assert not deformed[0].any()
    assert images[1].any()


def test_foreground_moved_out_of_view_gives_zeros() -> None:
    labels = torch.zeros(60, 32, 32, dtype=torch.int64)
    labels[:, 0, 0] = 1
    images, deformed = BatchedGenerator(K)(labels, seeded(0))
    gone = ~deformed.flatten(1).any(1)
    assert 0 < gone.sum() < 60
    assert not images[gone].any()


@settings(max_examples=40)
@given(seed=st.integers(0, 2**62), voxels=st.integers(1, 12), label=st.integers(1, K - 1))
def test_tiny_foreground_stays_on_the_scale(seed: int, voxels: int, label: int) -> None:
    """Its quantiles almost meet."""
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    labels[0, 16, 8 : 8 + voxels] = label
    images, _ = BatchedGenerator(K).synthesise(labels, torch.tensor([seed]))
    assert torch.isfinite(images).all()
    assert images.abs().max() <= 10


@settings(max_examples=60)
@given(
    shape=st.lists(st.integers(1, 12), min_size=2, max_size=3),
    seed=st.integers(0, 2**62),
    full=st.booleans(),
    classes=st.integers(2, 300),
)
def test_any_size_of_label_map_works(shape: list[int], seed: int, full: bool, classes: int) -> None:
    labels = torch.randint(classes, (2, *shape), generator=seeded(seed))
    make = BatchedGenerator(classes, FULL if full else PAPER)
    images, deformed = make(labels, seeded(seed))
    assert torch.isfinite(images).all()
    assert set(deformed.unique().tolist()) <= set(labels.unique().tolist())


def test_label_map_without_background_works() -> None:
    images, _ = BatchedGenerator(K)(torch.ones(4, 32, 32, dtype=torch.int64), seeded(0))
    assert torch.isfinite(images).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_other_integer_dtypes_give_the_same(dtype: torch.dtype) -> None:
    make, labels = BatchedGenerator(K), batch(1, 48, 40)
    expected, given_ = make(labels, seeded(0)), make(labels.to(dtype), seeded(0))
    assert all(torch.equal(a, b) for a, b in zip(expected, given_, strict=True))


@pytest.mark.parametrize("size", [(0, 8, 8), (2, 0, 8)])
def test_empty_batch(size: tuple[int, ...]) -> None:
    images, labels = BatchedGenerator(K)(torch.zeros(size, dtype=torch.int64), seeded(0))
    assert images.shape == (size[0], 1, *size[1:])
    assert labels.shape == size


def test_used_generator_can_be_pickled_and_copied() -> None:
    make, labels = BatchedGenerator(K, FULL, class_sd=0.1), batch(1, 48, 40)
    images, _ = make(labels, seeded(0))
    for twin in (pickle.loads(pickle.dumps(make)), copy.deepcopy(make)):
        assert torch.equal(twin(labels, seeded(0))[0], images)
        assert twin.config == make.config


def test_a_spawned_process_changes_nothing() -> None:
    make, labels = BatchedGenerator(K), batch(2, 24, 24)
    seeds = make.draw_seeds(2, seeded(0))
    expected = make.synthesise(labels, seeds)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        got = pool.submit(make.synthesise, labels, seeds).result()
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@CONFIGS
@pytest.mark.parametrize("size", [(48, 40), (24, 20, 28)])
def test_on_a_device_images_are_reproducible_and_of_the_same_kind(
    size: tuple[int, ...], config: CornucopiaConfig, device: str
) -> None:
    """Streams are of the kind of device, and so are images; what a CPU generator draws are the seeds."""
    make, labels = BatchedGenerator(K, config), batch(8, *size)
    there, seeds = labels.to(device), make.draw_seeds(8, seeded(0))
    images, deformed = make(there, seeded(0))
    again, _ = make.synthesise(there, seeds)
    alone, _ = make.synthesise(there[3:4], seeds[3:4])
    assert images.device.type == deformed.device.type == device
    assert torch.allclose(images, again, atol=1e-4)
    assert torch.allclose(images[3:4], alone, atol=1e-3)
    assert torch.equal(make.deformed(there, seeded(0)), deformed)
    on_the_cpu, _ = make.synthesise(labels, seeds)
    assert images.std().item() == pytest.approx(on_the_cpu.std().item(), rel=0.5)
    assert (deformed > 0).float().mean().item() == pytest.approx((labels > 0).float().mean().item(), rel=0.5)


@CONFIGS
def test_on_a_device_images_there_are_already_are_matched_and_augmented(config: CornucopiaConfig, device: str) -> None:
    make, labels = BatchedGenerator(K, config), batch(4, 48, 40).to(device)
    images, shown = make(labels, seeded(0))
    seeds = make.draw_seeds(4, seeded(1))
    matched = make.matched(images, shown, seeds)
    augmented, its_labels = make.augment(images, shown, seeds)
    assert {x.device.type for x in (matched, augmented, its_labels)} == {device}
    assert torch.isfinite(matched).all()
    assert torch.isfinite(augmented).all()
    found = []
    for image, like, classes in zip(images[:, 0], matched[:, 0], shown, strict=True):
        there = [classes == k for k in classes.unique()]
        medians = torch.tensor([[own[k].median() for k in there] for own in (image, like)])
        found.append(torch.corrcoef(medians)[0, 1].item())
    assert np.mean(found) > 0.8


def test_one_class_is_rejected() -> None:
    with pytest.raises(UsageError, match=r"^n_classes: must be at least 2"):
        BatchedGenerator(1)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_class_sd_out_of_range_is_rejected(value: float) -> None:
    with pytest.raises(UsageError, match=r"^class_sd: must be a finite number >= 0, got"):
        BatchedGenerator(K, class_sd=value)


@pytest.mark.parametrize(
    ("message", "labels"),
    [
        (r"^labels: must be in 0\.\.4, got 0\.\.5$", torch.tensor([[[0, 5]]])),
        (r"^labels: must be in 0\.\.4, got -1\.\.0$", torch.tensor([[[0, -1]]])),
        (r"^labels: must be of an integer dtype, got torch\.float32$", torch.zeros(1, 4, 4)),
        (r"^labels: must be of an integer dtype, got torch\.bool$", torch.zeros(1, 4, 4, dtype=torch.bool)),
        (r"^labels: must have shape \(B, \*S\) .* got shape \(4, 4\)$", torch.zeros(4, 4, dtype=torch.int64)),
    ],
)
def test_bad_labels_are_rejected(message: str, labels: Tensor) -> None:
    with pytest.raises(DataError, match=message):
        BatchedGenerator(K)(labels, seeded(0))


def test_voxels_that_are_not_finite_stop_with_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    scaled: Callable[[Tensor, Tensor | None], Tensor] = intensity.scaled

    def broken(images: Tensor, ends: Tensor | None) -> Tensor:
        out = scaled(images, ends)
        out[1, 0, 0] = float("nan")
        return out

    monkeypatch.setattr(intensity, "scaled", broken)
    with pytest.raises(RunError, match=r"not finite \(label map drawn with seed 7\)$"):
        BatchedGenerator(K).synthesise(batch(2, 32, 32), torch.tensor([5, 7]))
