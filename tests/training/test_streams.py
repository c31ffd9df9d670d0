from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_noise import make_cache

from metasynth.augment.noise import NoiseLevel
from metasynth.data.cache import Cache
from metasynth.data.dataset import Batch, SliceDataset, draw_disjoint
from metasynth.errors import DataError, RunError, UsageError
from metasynth.running.seeding import generator_for
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.cornucopia import CornucopiaConfig, CornucopiaGenerator
from metasynth.synthesis.generator import ImageGenerator
from metasynth.training.settings import OuterSettings
from metasynth.training.sources import Corrupted, Example, Real, Synthetic
from metasynth.training.streams import StepData, stream

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

CORNUCOPIA = CornucopiaGenerator(3, CornucopiaConfig(elastic_nodes=4))


class Marked(ImageGenerator):
    """Images that show which label map they came from, each with a number of their own; nothing is deformed."""

    def __call__(self, labels, generator):
        own = torch.rand(len(labels), 1, 1, 1, generator=generator)
        return labels[:, None].float() + own, labels


class Shown:
    """Examples that say whom they show, (B,), in place of images."""

    def __call__(self, batch, generator):
        return Example(batch.subject, batch.labels, None)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    with Cache(make_cache(tmp_path_factory.mktemp("streams") / "c.h5", subjects=7, per_subject=3)) as cache:
        yield SliceDataset(cache, cache.subjects[:5])


@pytest.fixture
def data(dataset):
    return StepData(
        dataset=dataset,
        inner=Synthetic(Marked()),
        outer=Corrupted(Marked(), NoiseLevel(0.1, 0.1)),
        seed=3,
        batch_size=4,
        outer_batch_size=2,
        is_due=lambda step: step % 2 == 1,
    )


def tensors(batch):
    return [t for part in batch if part is not None for t in part if t is not None]


def equal(a, b):
    return len(tensors(a)) == len(tensors(b)) and all(map(torch.equal, tensors(a), tensors(b)))


def subjects_of(dataset, labels):
    """The subjects whose label maps these are."""
    every = dataset.read(range(len(dataset)))
    found = [(every.labels == one).flatten(1).all(1).nonzero() for one in labels]
    assert all(len(index) == 1 for index in found)
    return {int(every.subject[index]) for index in found}


def test_a_step_sees_the_same_data_whatever_was_drawn_before(data):
    whole = list(stream(data, 0, 8, workers=0))
    assert all(equal(data[step], whole[step]) for step in (7, 2, 5, 2))
    torch.rand(3)
    assert all(equal(a, b) for a, b in zip(stream(data, 5, 8, workers=0), whole[5:], strict=True))
    assert not equal(whole[1], whole[3])
    assert not equal(whole[1], replace(data, seed=4)[1])


def test_workers_change_nothing(dataset):
    real = Corrupted(CORNUCOPIA, NoiseLevel(0.025, 0.2))
    data = StepData(dataset, Synthetic(CORNUCOPIA), real, seed=0, batch_size=2, is_due=_always)
    state = torch.get_rng_state()
    alone, one, two = (list(stream(data, 3, 8, workers)) for workers in (0, 1, 2))
    assert len(alone) == len(one) == len(two) == 5
    assert all(equal(a, b) and equal(a, c) for a, b, c in zip(alone, one, two, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def _always(step):
    return True


def test_outer_and_reference_examples_come_only_where_a_hypergradient_is_due(data):
    assert [batch.outer is not None for batch in stream(data, 0, 4, 0)] == [False, True, False, True]
    assert [batch.reference is not None for batch in stream(data, 0, 4, 0)] == [False, True, False, True]
    assert replace(data, reference="none")[1].reference is None
    assert replace(data, outer=None)[1].outer is None
    assert replace(data, is_due=None)[1].outer is None
    assert equal((data[1].inner,), (replace(data, is_due=None)[1].inner,))


def test_the_two_halves_share_no_subject(data):
    halves = []
    for step in range(1, 41, 2):
        batch = data[step]
        assert len(batch.inner.labels) == 4
        assert len(batch.outer.labels) == 2
        ours, theirs = (subjects_of(data.dataset, part.labels) for part in (batch.inner, batch.outer))
        assert not ours & theirs
        halves.append(frozenset(theirs))
    assert set().union(*halves) == set(range(5))  # every subject is real at some step


@given(
    warmup=st.integers(0, 3),
    horizon=st.integers(1, 4),
    gap=st.integers(0, 2),
    n=st.integers(2, 5),
    seed=st.integers(0, 1000),
)
def test_nobody_is_inner_in_a_window_and_outer_at_its_end(dataset, warmup, horizon, gap, n, seed):
    few = SliceDataset(dataset.cache, dataset.cache.subjects[:n])
    outer = OuterSettings(warmup=warmup, every=horizon + gap, horizon=horizon)
    data = StepData(
        few,
        Shown(),
        Shown(),
        seed=seed,
        batch_size=9,
        outer_batch_size=9,
        is_due=outer.is_due,
        window_end=outer.window_end,
        reference="none",
    )
    for begin in (warmup, warmup + outer.every):
        *before, last = (data[step] for step in range(begin, begin + horizon))
        ours = {int(one) for batch in [*before, last] for one in batch.inner.images}
        theirs = {int(one) for one in last.outer.images}
        assert all(batch.outer is None for batch in before)
        assert not ours & theirs
        assert ours | theirs == set(range(n))
        assert len(ours) == (n + 1) // 2


def test_longer_windows_change_the_people_of_their_first_steps_alone(data):
    alone = replace(data, window_end=OuterSettings(warmup=0, every=1).window_end)
    later = replace(data, window_end=OuterSettings(warmup=4, every=3, horizon=3).window_end)
    assert all(equal(data[step], alone[step]) for step in range(8))
    same = [equal((data[step].inner,), (later[step].inner,)) for step in range(10)]
    assert same == [True] * 4 + [False, False, True] + [False, False, True]
    assert not any(equal((later[a].inner,), (later[b].inner,)) for a, b in ((4, 5), (4, 6), (5, 6)))


def test_the_reference_shows_the_anatomy_of_the_real_examples_in_images_of_its_own(data):
    batch = data[1]
    assert torch.equal(batch.reference.labels, batch.outer.labels)
    own, real = (part.images - part.labels[:, None] for part in (batch.reference, batch.outer))
    assert (own.mean((1, 2, 3)) - real.mean((1, 2, 3))).abs().min() > 1e-3
    assert batch.reference.draws is not None
    assert batch.outer.draws is None


def brighter_class(example):
    """Whether class 2 is brighter than class 1, by image."""
    pairs = zip(example.images[:, 0], example.labels, strict=True)
    return torch.tensor([bool(image[labels == 2].median() > image[labels == 1].median()) for image, labels in pairs])


def test_a_matched_reference_has_the_contrast_of_the_real_examples(dataset):
    sharp = CornucopiaConfig(elastic_nodes=4, gmm_fwhm=0, motion_fwhm=0)
    generator = BatchedGenerator(dataset.cache.n_classes, sharp, class_sd=0.0)
    real = Corrupted(generator, NoiseLevel(0.0, 0.0))
    data = StepData(
        dataset,
        Synthetic(generator),
        real,
        seed=0,
        batch_size=2,
        outer_batch_size=8,
        is_due=_always,
        reference="matched",
    )
    batch = data[1]
    assert torch.equal(batch.reference.labels, batch.outer.labels)
    random = replace(data, reference="random")[1].reference
    brighter = [brighter_class(part) for part in (batch.outer, batch.reference, random)]
    assert torch.equal(brighter[0], brighter[1])
    assert not torch.equal(brighter[0], brighter[2])
    assert equal((data[1].inner, data[1].outer), (replace(data, reference="none")[1].inner, batch.outer))


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (Synthetic(CORNUCOPIA), "needs the batched generator, got CornucopiaGenerator"),
        (Corrupted(CORNUCOPIA, NoiseLevel(0.0, 0.0)), "needs clean synthetic examples, got Corrupted"),
    ],
)
def test_a_matched_reference_needs_a_generator_that_can_make_it(dataset, inner, message):
    real = Corrupted(CORNUCOPIA, NoiseLevel(0.0, 0.0))
    data = StepData(dataset, inner, real, seed=0, batch_size=2, outer_batch_size=2, is_due=_always, reference="matched")
    with pytest.raises(UsageError, match=message):
        data[1]


@pytest.mark.parametrize("generator", [Marked(), CORNUCOPIA], ids=["marked", "cornucopia"])
def test_corrupted_images_are_the_clean_ones_and_known_noise(dataset, generator):
    items = dataset.read([0, 4, 7])
    clean = Synthetic(generator)(items, generator_for(1, "x"))
    noisy = Corrupted(generator, NoiseLevel(0.15, 0.15))(items, generator_for(1, "x"))
    assert torch.equal(noisy.labels, clean.labels)
    assert torch.equal(noisy.images, clean.images + 0.15 * clean.draws)
    assert noisy.draws is None
    assert abs(float(clean.draws.std()) - 1) < 0.1


def test_a_range_of_noise_is_one_level_an_image(dataset):
    items = dataset.read(range(10))
    clean = Synthetic(Marked())(items, generator_for(1, "x"))
    noisy = Corrupted(Marked(), NoiseLevel(0.025, 0.2))(items, generator_for(1, "x"))
    ratio = ((noisy.images - clean.images) / clean.draws).flatten(1)
    sigma = ratio.median(1).values
    assert torch.allclose((noisy.images - clean.images), sigma[:, None, None, None] * clean.draws, atol=1e-5)
    assert ((sigma >= 0.025) & (sigma <= 0.2)).all()
    assert sigma.std() > 0.01


def test_stages_with_other_augmentation_see_the_same_noise_free_images(data):
    learning = [batch.inner for batch in stream(data, 0, 6, 0)]
    for sigma in (0.1, 0.3):
        source = Corrupted(Marked(), NoiseLevel(sigma, sigma))
        plain = replace(data, inner=source, outer=None, is_due=None)
        for clean, noisy in zip(learning, stream(plain, 0, 6, 0), strict=True):
            assert torch.equal(noisy.inner.labels, clean.labels)
            assert torch.equal(noisy.inner.images, clean.images + sigma * clean.draws)


class Failing:
    """A source that refuses."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Example:
        raise RunError("the generator gave nothing")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_source_arrives_as_it_was(data, workers):
    failing = replace(data, outer=Failing(), is_due=_third)
    batches = stream(failing, 0, 5, workers)
    assert len([next(batches) for _ in range(3)]) == 3
    with pytest.raises(RunError, match=r"^the generator gave nothing$"):
        next(batches)


def _third(step):
    return step == 3


def test_batches_move_to_a_device(data):
    batch = data[1]
    moved = batch.to("meta")
    assert [t.device.type for t in tensors(moved)] == ["meta"] * len(tensors(batch))
    assert data[0].to("cpu").outer is None


def test_real_examples_are_the_images_of_other_subjects(tmp_path):
    with Cache(make_cache(tmp_path / "c.h5", images=True)) as cache:
        dataset = SliceDataset(cache, cache.subjects)
        data = StepData(dataset, Real(), Real(), seed=0, batch_size=3, outer_batch_size=4, is_due=lambda step: True)
        batch = data[5]
        ours, theirs = draw_disjoint(dataset, 3, 4, generator_for(0, "subjects", 5))
        assert torch.equal(batch.outer.images, dataset.read(theirs).images)
        assert torch.equal(batch.outer.labels, dataset.read(theirs).labels)
        assert batch.outer.draws is None
        assert not set(dataset.subject_index[ours].tolist()) & set(dataset.subject_index[theirs].tolist())


def test_real_examples_need_images(tmp_path):
    with Cache(make_cache(tmp_path / "c.h5")) as cache:
        batch = SliceDataset(cache, cache.subjects).read([0])
        with pytest.raises(DataError, match="need a cache with images, got one with labels only"):
            Real()(batch, torch.Generator())
