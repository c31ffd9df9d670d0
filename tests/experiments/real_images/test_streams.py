"""What the steps of a comparison are fed."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from metasynth.experiments.real_images.streams import ComparisonData, RealAugmented, cropped_or_padded, draw_subjects
from support.tiny_comparison import real_cache, rename
from support.tiny_noise import TARGET, make_cache

from metasynth.augment.corruption import Corruptions
from metasynth.augment.noise import GaussianNoise
from metasynth.data.cache import Cache
from metasynth.data.dataset import Batch, SliceDataset
from metasynth.errors import DataError
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.config import PAPER
from metasynth.training.sources import Corrupted, Example, Synthetic
from metasynth.training.streams import stream

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

SMALL = BatchedGenerator(3, replace(PAPER, elastic_nodes=4))


class Marked:
    """Examples that say what they were made of: images of one value, 0 for label maps and 1 for images."""

    def __init__(self, value):
        self.value = value

    def __call__(self, batch, generator):
        if self.value and batch.images is None:
            raise AssertionError("expected real images")
        images = torch.full((len(batch.labels), 1, *batch.labels.shape[1:]), float(self.value))
        return Example(images, batch.labels, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("streams")


@pytest.fixture(scope="module")
def real(folder):
    with Cache(real_cache(folder / "real.h5", subjects=6)) as cache:
        yield SliceDataset(cache, cache.subjects[:5])


@pytest.fixture(scope="module")
def others(folder):
    """Label maps of other people, of another shape."""
    path = rename(make_cache(folder / "others.h5", subjects=4, shape=(12, 20)), lambda index, name: f"other {name}")
    with Cache(path) as cache:
        yield SliceDataset(cache, cache.subjects)


@pytest.fixture
def data(real, others):
    return ComparisonData(others, real, Marked(0), Marked(1), 0.0, seed=2, batch_size=8, outer_batch_size=3)


def subjects_of(dataset, labels):
    every = dataset.read(range(len(dataset)))
    found = [(every.labels == one).flatten(1).all(1).nonzero() for one in labels]
    return {dataset.subjects[int(every.subject[index])] for index in found}


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 0.4, 2 / 3, 1.0])
def test_the_fraction_of_real_images_is_right(data, fraction):
    mixed = replace(data, fraction=fraction)
    counts = [int(mixed[step].inner.images.flatten(1)[:, 0].sum()) for step in range(30)]
    assert sum(counts) == pytest.approx(30 * 8 * fraction, abs=1)
    assert {abs(count - 8 * fraction) < 1 for count in counts} == {True}
    assert all(len(mixed[step].inner.images) == 8 for step in range(3))


@given(st.floats(0, 1), st.integers(1, 20), st.integers(0, 10**6))
def test_no_step_has_more_real_images_than_there_is_room(fraction, batch_size, step):
    data = ComparisonData(None, None, None, None, fraction, seed=0, batch_size=batch_size)
    assert 0 <= data.real_in(step) <= batch_size
    assert abs(data.real_in(step) - batch_size * fraction) < 1 + 1e-6
    assert sum(map(data.real_in, range(50))) == pytest.approx(50 * batch_size * fraction, abs=1)


def test_methods_see_the_same_label_maps_step_by_step(data, real):
    for maps in (data.maps, real):
        for step in (0, 1, 7):
            one = replace(data, maps=maps)[step].inner.labels
            other = replace(data, maps=maps, is_due=lambda step: True)[step]
            assert torch.equal(one, other.inner.labels)
            mixed = replace(data, maps=maps, fraction=0.25)[step].inner.labels
            assert torch.equal(mixed[:6], one[:6])


def test_label_maps_of_another_shape_are_cut_and_padded_about_their_centre(data, others):
    inner = data[0].inner
    assert inner.labels.shape == (8, 16, 16)
    labels = torch.arange(12 * 20).reshape(1, 12, 20)
    moved = cropped_or_padded(Batch(labels, None, torch.zeros(1)), (16, 16)).labels
    assert torch.equal(moved[:, 2:14], labels[:, :, 2:18])
    assert not moved[:, :2].any()
    assert not moved[:, 14:].any()
    odd = cropped_or_padded(Batch(labels, None, torch.zeros(1)), (9, 20)).labels
    assert torch.equal(odd, labels[:, 2:11])


@pytest.mark.parametrize("n", [2, 3, 5])
def test_nobody_is_synthetic_and_real_in_one_step(data, real, n):
    few = SliceDataset(real.cache, real.subjects[:n])
    own = replace(data, maps=few, real=few, is_due=lambda step: True)
    seen = set()
    for step in range(20):
        batch = own[step]
        ours, theirs = (subjects_of(few, part.labels) for part in (batch.inner, batch.outer))
        assert not ours & theirs
        assert torch.equal(batch.reference.labels, batch.outer.labels)
        assert (batch.reference.images == 0).all()
        seen |= theirs
    assert seen == set(few.subjects)


def test_people_who_are_only_in_one_of_the_caches_are_always_drawn_from(real, others):
    everyone = draw_subjects(others, real, torch.Generator())
    assert all(part.all() for part in everyone)
    one = SliceDataset(real.cache, real.subjects[:1])
    two = SliceDataset(real.cache, real.subjects[:2])
    for seed in range(5):
        of_maps, of_real = draw_subjects(two, one, torch.Generator().manual_seed(seed))
        assert (of_maps.tolist(), of_real.tolist()) == ([False, True], [True])
        of_maps, of_real = draw_subjects(one, two, torch.Generator().manual_seed(seed))
        assert (of_maps.tolist(), of_real.tolist()) == ([True], [False, True])


def test_real_images_in_training_keep_to_their_labels(real):
    every = real.read(range(len(real)))
    exact = Batch(every.labels, every.labels[:, None] / 2, every.subject)  # intensities that say the class
    still = BatchedGenerator(3, replace(PAPER, gamma=0, motion_fwhm=0, elastic_nodes=4))
    images, labels, draws, fine = RealAugmented(still)(exact, torch.Generator().manual_seed(0))
    assert draws is None
    assert fine is None
    assert not torch.equal(labels, every.labels)
    alike = ((images[:, 0] * 2).round().long() == labels).float().mean()
    assert alike > 0.9
    again = RealAugmented(still)(exact, torch.Generator().manual_seed(0)).images
    assert torch.equal(again, images)


def test_real_images_in_training_keep_to_their_structures_and_these_to_their_classes(folder):
    with Cache(real_cache(folder / "fine.h5", generation=True)) as cache:
        batch = SliceDataset(cache, cache.subjects).read([0, 3, 5])
    exact = replace(batch, images=batch.structures[:, None] / 4)  # intensities that say the structure
    still = BatchedGenerator(5, replace(PAPER, gamma=0, motion_fwhm=0, elastic_nodes=4))
    found = RealAugmented(still)(exact, torch.Generator().manual_seed(0))
    assert not torch.equal(found.structures, batch.structures)
    assert ((found.images[:, 0] * 4).round().long() == found.structures).float().mean() > 0.9
    assert torch.equal(found.labels, torch.tensor(TARGET)[found.structures])


@pytest.mark.parametrize("shape", [(20, 14), (16, 16), (12, 18)])
def test_structures_are_cut_and_padded_as_their_classes_are(folder, shape):
    with Cache(make_cache(folder / "fine maps.h5", generation=True)) as cache:
        batch = SliceDataset(cache, cache.subjects).read([0, 3, 5])
    moved = cropped_or_padded(batch, shape)
    assert moved.structures.shape == (3, *shape)
    assert torch.equal(moved.labels, torch.tensor(TARGET)[moved.structures])
    assert torch.equal(moved.structures, cropped_or_padded(Batch(batch.structures, None, batch.subject), shape).labels)
    assert moved.images is None


def test_real_images_in_training_need_images(others):
    with pytest.raises(DataError, match="need a cache with images"):
        RealAugmented(SMALL)(others.read([0]), torch.Generator())


def test_workers_and_the_steps_before_change_nothing(real):
    synthetic = Synthetic(SMALL, GaussianNoise(0.1).draw)
    learned = ComparisonData(
        real, real, synthetic, RealAugmented(SMALL), 0.0, seed=0, batch_size=2, outer_batch_size=2, is_due=_odd
    )
    mixed = replace(learned, synthetic=Corrupted(SMALL, Corruptions(())), fraction=0.5, is_due=None)
    for data in (learned, mixed):
        alone, one = (list(stream(data, 0, 4, workers)) for workers in (0, 1))
        for a, b in zip(alone, one, strict=True):
            assert all(torch.equal(x.images, y.images) for x, y in zip(a, b, strict=True) if x is not None)
        assert torch.equal(data[2].inner.images, alone[2].inner.images)


def _odd(step):
    return step % 2 == 1
