import copy
import pickle
import random
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import cornucopia
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from metasynth.synthesis.cornucopia import CornucopiaGenerator

K = 5


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shells(*size: int) -> Tensor:
    """Nested ellipsoids of labels 1..4 in background, (*size)."""
    axes = [torch.linspace(-1, 1, n) for n in size]
    radius = torch.stack(torch.meshgrid(*axes, indexing="ij")).norm(dim=0)
    return (6 * (1 - radius)).long().clamp(0, K - 1)


def batch(n: int = 3, *size: int) -> Tensor:
    labels = shells(*(size or (48, 40)))
    return torch.stack([labels.roll(2 * i, dims=0) for i in range(n)])


@pytest.mark.parametrize("size", [(48, 40), (24, 20, 28)])
def test_shapes_dtypes_and_ranges(size: tuple[int, ...]) -> None:
    labels = batch(2, *size)
    kept = labels.clone()
    images, deformed = CornucopiaGenerator(K)(labels, seeded(0))
    assert images.shape == (2, 1, *size)
    assert images.dtype == torch.float32
    assert deformed.shape == labels.shape
    assert deformed.dtype == torch.int64
    assert set(deformed.unique().tolist()) <= set(range(K))
    assert torch.isfinite(images).all()
    assert torch.equal(labels, kept)
    assert not torch.equal(deformed, labels)


def test_image_shows_the_deformed_labels() -> None:
    """Class means explain most of an image's variance, and less so before the deformation."""
    labels = batch(6)
    images, deformed = CornucopiaGenerator(K)(labels, seeded(0))

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


@pytest.mark.parametrize("size", [(48, 40), (16, 20, 24)])
def test_is_the_papers_transform(size: tuple[int, ...]) -> None:
    labels = shells(*size)
    state, torch_state = random.getstate(), torch.get_rng_state()
    try:
        random.seed(11)
        torch.manual_seed(11)
        transform = cornucopia.SynthFromLabelTransform(
            order=1, resolution=False, snr=False, bias=False, returns=["image", "label"]
        )
        image, deformed = transform(labels[None])
    finally:
        random.setstate(state)
        torch.set_rng_state(torch_state)
    images, ours = CornucopiaGenerator(K).synthesise(labels[None], torch.tensor([11]))
    assert torch.equal(images[0], image)
    assert torch.equal(ours, deformed)


def test_intensities_are_scaled_by_quantiles_and_not_clamped() -> None:
    images, _ = CornucopiaGenerator(K)(batch(8), seeded(0))
    highest = images.flatten(1).amax(1)
    assert (highest > 1).any()
    assert (highest < 3).all()
    assert (images.flatten(1).amin(1) > -1).all()


def test_contrast_is_random() -> None:
    labels = shells(48, 40).expand(12, -1, -1)
    images, deformed = CornucopiaGenerator(K)(labels, seeded(0))
    brighter = [bool(i[0][d == 4].mean() > i[0][d == 2].mean()) for i, d in zip(images, deformed, strict=True)]
    assert 0 < sum(brighter) < 12


def test_same_generator_state_same_result_and_others_differ() -> None:
    make, labels = CornucopiaGenerator(K), batch()
    one, same, other = make(labels, seeded(0)), make(labels, seeded(0)), make(labels, seeded(1))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(one[0][0], one[0][1])


def test_successive_calls_move_the_generator() -> None:
    make, labels, generator = CornucopiaGenerator(K), batch(1), seeded(0)
    assert not torch.equal(make(labels, generator)[0], make(labels, generator)[0])


def test_result_does_not_depend_on_the_global_streams_and_leaves_them_alone() -> None:
    make, labels = CornucopiaGenerator(K), batch(1)
    images, _ = make(labels, seeded(0))
    random.random(), torch.rand(3)
    before = random.getstate(), torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    again, _ = make(labels, seeded(0))
    after = random.getstate(), torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    assert torch.equal(images, again)
    assert before[0] == after[0]
    assert torch.equal(before[1], after[1])
    assert all(np.array_equal(a, b) for a, b in zip(before[2], after[2], strict=True))


def test_global_streams_come_back_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    make = CornucopiaGenerator(K)
    before = random.getstate(), torch.get_rng_state()

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(make, "_one", fail)
    with pytest.raises(RuntimeError, match="broken"):
        make(batch(1), seeded(0))
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_a_batch_is_its_samples_each_from_its_own_seed() -> None:
    make, labels = CornucopiaGenerator(K), batch(4)
    seeds = make.draw_seeds(4, seeded(3))
    images, deformed = make(labels, seeded(3))
    for i in (2, 0, 3, 1):
        image, label = make.synthesise(labels[i : i + 1], seeds[i : i + 1])
        assert torch.equal(image[0], images[i])
        assert torch.equal(label[0], deformed[i])


def test_a_sample_does_not_depend_on_the_others() -> None:
    make, labels = CornucopiaGenerator(K), batch(3)
    changed = labels.clone()
    changed[0] = 0
    changed[1] = changed[1].flip(0)
    one, other = make(labels, seeded(0)), make(changed, seeded(0))
    assert torch.equal(one[0][2], other[0][2])
    assert torch.equal(one[1][2], other[1][2])


def test_label_map_without_foreground_gives_zeros() -> None:
    labels = batch(2)
    labels[0] = 0
    images, deformed = CornucopiaGenerator(K)(labels, seeded(0))
    assert not images[0].any()
    assert not deformed[0].any()
    assert images[1].any()


def test_foreground_moved_out_of_view_gives_zeros() -> None:
    labels = torch.zeros(60, 32, 32, dtype=torch.int64)
    labels[:, 0, 0] = 1
    images, deformed = CornucopiaGenerator(K)(labels, seeded(0))
    gone = ~deformed.flatten(1).any(1)
    assert 0 < gone.sum() < 60
    assert not images[gone].any()


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**62), voxels=st.integers(1, 12), label=st.integers(1, K - 1))
def test_tiny_foreground_stays_on_the_scale(seed: int, voxels: int, label: int) -> None:
    """Its quantiles almost meet; cornucopia alone gives voxels of up to 1e16."""
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    labels[0, 16, 8 : 8 + voxels] = label
    images, _ = CornucopiaGenerator(K).synthesise(labels, torch.tensor([seed]))
    assert torch.isfinite(images).all()
    assert images.abs().max() <= 10


def test_label_map_without_background_works() -> None:
    images, _ = CornucopiaGenerator(K)(torch.ones(4, 32, 32, dtype=torch.int64), seeded(0))
    assert torch.isfinite(images).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_other_integer_dtypes_give_the_same(dtype: torch.dtype) -> None:
    make, labels = CornucopiaGenerator(K), batch(1)
    expected, given_ = make(labels, seeded(0)), make(labels.to(dtype), seeded(0))
    assert all(torch.equal(a, b) for a, b in zip(expected, given_, strict=True))


def test_empty_batch() -> None:
    images, labels = CornucopiaGenerator(K)(torch.zeros(0, 8, 8, dtype=torch.int64), seeded(0))
    assert images.shape == (0, 1, 8, 8)
    assert labels.shape == (0, 8, 8)


def test_used_generator_can_be_pickled_and_copied() -> None:
    make, labels = CornucopiaGenerator(K), batch(1)
    images, _ = make(labels, seeded(0))
    for twin in (pickle.loads(pickle.dumps(make)), copy.deepcopy(make)):
        assert torch.equal(twin(labels, seeded(0))[0], images)
        assert twin.config == make.config


class Synthetic(Dataset):
    """Item i is synthesised in the worker from the seed i."""

    def __init__(self, make: CornucopiaGenerator) -> None:
        self.make = make
        self.labels = shells(24, 24)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return self.make(self.labels[None], seeded(index))[0][0]


def test_workers_change_nothing() -> None:
    items = Synthetic(CornucopiaGenerator(K))
    expected = torch.stack([items[i] for i in range(4)])
    loader = DataLoader(items, batch_size=2, num_workers=2, multiprocessing_context="fork")
    assert torch.equal(torch.cat(list(loader)), expected)


def test_a_spawned_process_changes_nothing() -> None:
    make, labels = CornucopiaGenerator(K), batch(2, 24, 24)
    seeds = make.draw_seeds(2, seeded(0))
    expected = make.synthesise(labels, seeds)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        got = pool.submit(make.synthesise, labels, seeds).result()
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
