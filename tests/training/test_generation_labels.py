"""Images are synthesised from generation labels; what they show is given to losses in classes."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.label_maps import patchwork, seeded
from support.tiny_noise import STRUCTURES, TARGET, make_cache

from metasynth.augment.corruption import Corruptions
from metasynth.augment.learned_synthesis import LearnedSynthesis, Priors
from metasynth.augment.noise import GaussianNoise, NoiseLevel
from metasynth.data.cache import Cache
from metasynth.data.dataset import Batch, SliceDataset
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.clusters import ClusteredGenerator
from metasynth.synthesis.config import PAPER, CornucopiaConfig
from metasynth.synthesis.cornucopia import CornucopiaGenerator
from metasynth.synthesis.generator import ImageGenerator
from metasynth.synthesis.parts.steps import Steps
from metasynth.training.evaluation import make_test_set
from metasynth.training.sources import Augmented, Corrupted, Real, Synthetic, reference_of
from metasynth.training.streams import StepData, stream

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

MOVING = replace(PAPER, elastic_nodes=4)
STILL = CornucopiaConfig(translations=0, rotation=0, shears=0, zooms=0, elastic=0, gmm_fwhm=0, gamma=0, motion_fwhm=0)
NOTHING = Corruptions(())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    with Cache(make_cache(tmp_path_factory.mktemp("fine") / "c.h5", generation=True, images=True)) as cache:
        yield SliceDataset(cache, cache.subjects)


def sources(generator):
    noise = GaussianNoise(0.1)
    return {
        "synthetic": Synthetic(generator, noise.draw),
        "corrupted": Corrupted(generator, NoiseLevel(0.1, 0.1)),
        "augmented": Augmented(generator, noise),
    }


@st.composite
def batches(draw):
    """Label maps with a table that merges them, of any size."""
    table = [0, *draw(st.lists(st.integers(0, 4), min_size=1, max_size=7))]
    structures = patchwork(2, 16, len(table), draw(st.integers(0, 99)))
    target = torch.tensor(table)
    return Batch(target[structures], None, torch.zeros(2, dtype=torch.int64), structures, target)


@settings(max_examples=25, deadline=None)
@given(batch=batches(), config=st.sampled_from([MOVING, STILL]), seed=st.integers(0, 2**31))
def test_the_classes_are_those_of_the_moved_structures(batch, config, seed):
    generator = BatchedGenerator(len(batch.target), config)
    _, moved = generator(batch.structures, seeded(seed))
    assert torch.equal(moved, batch.structures) or config is MOVING
    for name, source in sources(generator).items():
        found = source(batch, seeded(seed))
        assert torch.equal(found.structures, moved), name
        assert torch.equal(found.labels, batch.target[moved]), name


@pytest.mark.parametrize("make", [BatchedGenerator, CornucopiaGenerator])
def test_every_generator_deforms_structures_and_shows_their_classes(dataset, make):
    batch = dataset.read(range(4))
    found = Synthetic(make(5, MOVING))(batch, seeded(0))
    assert not torch.equal(found.structures, batch.structures)
    assert set(found.structures.unique().tolist()) == {0, 1, 2, 3, 4}
    assert torch.equal(found.labels, torch.tensor(TARGET)[found.structures])


def test_a_class_of_two_structures_has_two_intensities_and_background_that_is_generated_has_one(dataset):
    batch = dataset.read([0])
    assert dataset.cache.generation_names == STRUCTURES
    found = Corrupted(BatchedGenerator(5, STILL, class_sd=0.0), NOTHING)(batch, seeded(0))
    image, labels = found.images[0, 0], found.labels[0]
    assert labels.unique().tolist() == [0, 1, 2]
    assert [len(image[labels == k].unique()) for k in range(3)] == [2, 2, 1]
    assert len(image[batch.structures[0] == 0].unique()) == 1
    assert image.unique().numel() == 5


def test_a_cache_without_generation_labels_gives_examples_without(tmp_path):
    with Cache(make_cache(tmp_path / "c.h5", images=True)) as cache:
        batch = SliceDataset(cache, cache.subjects).read([0, 1])
    for name, source in {**sources(BatchedGenerator(3, MOVING)), "real": Real()}.items():
        found = source(batch, seeded(0))
        assert found.fine is None, name
        assert found.structures is found.labels, name


@pytest.mark.parametrize("outer", [Real(), Corrupted(BatchedGenerator(5, MOVING), NOTHING)])
def test_a_matched_reference_has_the_contrast_of_each_structure(dataset, outer):
    batch = dataset.read([0, 3])
    real = outer(batch, seeded(1))
    clean = Synthetic(BatchedGenerator(5, STILL, class_sd=0.0))
    found = reference_of("matched", clean, batch, real, seeded(2))
    assert torch.equal(found.structures, real.structures)
    assert torch.equal(found.labels, real.labels)
    for mine, theirs, shown in zip(found.images[:, 0], real.images[:, 0], real.structures, strict=True):
        present = [g for g in shown.unique().tolist() if g]
        medians = [torch.stack([image[shown == g].median() for g in present]) for image in (mine, theirs)]
        low, high = medians[1].aminmax()
        expected = (medians[1] - low) / (high - low)
        low, high = medians[0].aminmax()
        torch.testing.assert_close((medians[0] - low) / (high - low), expected, atol=1e-4, rtol=0)


def test_a_random_reference_is_of_the_same_people_and_merged(dataset):
    batch = dataset.read([0, 3])
    found = reference_of("random", Synthetic(BatchedGenerator(5, MOVING)), batch, Real()(batch, seeded(1)), seeded(2))
    assert torch.equal(found.labels, torch.tensor(TARGET)[found.structures])


def test_clusters_are_within_structures(dataset):
    batch = dataset.read(range(len(dataset)))
    generator = ClusteredGenerator(BatchedGenerator(1 + 4 * 2, STILL, class_sd=0.0), 2, share=0.0, nodes=4)
    found = Corrupted(generator, NOTHING)(batch, seeded(0))
    assert torch.equal(found.labels, batch.labels)
    assert torch.equal(found.structures, batch.structures)
    counts = [
        [len(image[own == g].unique()) for image, own in zip(found.images[:, 0], batch.structures, strict=True)]
        for g in range(5)
    ]
    assert [max(each) for each in counts] == [1, 2, 2, 2, 2]


def test_real_examples_have_their_structures(dataset):
    batch = dataset.read([4, 1])
    found = Real()(batch, seeded(0))
    assert found.structures is batch.structures
    assert found.labels is batch.labels


def test_test_images_are_made_of_structures_and_scored_in_classes(dataset):
    test = make_test_set(dataset, BatchedGenerator(5, STILL, class_sd=0.0), seed=0, repeats=2)
    every = dataset.read(range(len(dataset)))
    assert torch.equal(test.labels, every.labels.repeat(2, 1, 1))
    assert len(test.clean[0, 0][test.labels[0] == 1].unique()) == 2
    assert test.class_names == ("background", "white matter", "grey matter")


def test_structures_go_through_the_pipes_of_workers(dataset):
    generator = BatchedGenerator(5, MOVING)
    data = StepData(
        dataset,
        Synthetic(generator),
        Corrupted(generator, NOTHING),
        seed=0,
        batch_size=2,
        outer_batch_size=2,
        is_due=_always,
        reference="matched",
    )
    alone, one = (list(stream(data, 0, 2, workers)) for workers in (0, 1))
    for a, b in zip(alone, one, strict=True):
        for mine, theirs in zip(a, b, strict=True):
            assert torch.equal(mine.structures, theirs.structures)
            assert torch.equal(mine.labels, torch.tensor(TARGET)[mine.structures])
            assert mine.structures.amax() > 2


def _always(step):
    return True


def synthesis():
    return LearnedSynthesis(Priors.random(5), nodes=(2, 3), exponents=(0.3, 0.3))


def taken(generator, made):
    return Synthetic(generator, made.draw, made.takes)


@pytest.mark.parametrize(
    "generator",
    [
        BatchedGenerator(5, MOVING),
        BatchedGenerator(5, STILL),
        CornucopiaGenerator(5, MOVING),
        ClusteredGenerator(BatchedGenerator(9, MOVING), 2, share=0.0, nodes=4),
    ],
)
def test_structures_alone_are_those_that_images_would_show_from_the_same_draws(dataset, generator):
    batch, streams = dataset.read(range(4)), [seeded(3), seeded(3)]
    _, moved = generator(batch.structures, streams[0])
    assert torch.equal(generator.deformed(batch.structures, streams[1]), moved)
    assert torch.equal(streams[0].get_state(), streams[1].get_state())


def test_a_generator_of_few_needs_gives_structures_too(dataset):
    class Plain(ImageGenerator):
        def __call__(self, labels, generator):
            return torch.zeros(len(labels), 1, *labels.shape[1:]), labels.flip(1)

    batch = dataset.read([0, 1])
    assert torch.equal(Plain().deformed(batch.structures, seeded(0)), batch.structures.flip(1))


def test_what_takes_structures_is_given_them_and_no_image_is_made(dataset, monkeypatch):
    batch, made, generator = dataset.read(range(4)), synthesis(), BatchedGenerator(5, MOVING)
    _, moved = generator(batch.structures, seeded(0))
    monkeypatch.setattr(Steps, "imaged", None)
    found = taken(generator, made)(batch, seeded(0))
    assert found.images is None
    assert torch.equal(found.given, moved)
    assert torch.equal(found.labels, torch.tensor(TARGET)[moved])
    frozen = Augmented(generator, made)(batch, seeded(0))
    assert frozen.draws is None
    assert torch.equal(frozen.given, made(moved, found.draws).detach())
    assert torch.equal(frozen.labels, found.labels)


def test_given_images_are_images(dataset):
    found = Synthetic(BatchedGenerator(5, MOVING))(dataset.read([0]), seeded(0))
    assert found.given is found.images


def test_a_reference_of_structures_is_of_the_real_examples_own_maps(dataset):
    batch, made = dataset.read([0, 3]), synthesis()
    real = Real()(batch, seeded(1))
    matched, random = (
        reference_of(kind, taken(BatchedGenerator(5, MOVING), made), batch, real, seeded(2))
        for kind in ("matched", "random")
    )
    assert matched.images is random.images is None
    assert torch.equal(matched.given, real.structures)
    assert torch.equal(matched.labels, real.labels)
    assert not torch.equal(random.given, real.structures)
    assert made(matched.given, matched.draws).shape == real.images.shape


def test_structures_without_images_go_through_the_pipes_of_workers(dataset):
    made = synthesis()
    data = StepData(
        dataset,
        taken(BatchedGenerator(5, MOVING), made),
        Real(),
        seed=0,
        batch_size=2,
        outer_batch_size=2,
        is_due=_always,
        reference="matched",
    )
    alone, one = (list(stream(data, 0, 2, workers)) for workers in (0, 1))
    for a, b in zip(alone, one, strict=True):
        assert a.inner.images is b.inner.images is b.reference.images is None
        for mine, theirs in ((a.inner, b.inner), (a.reference, b.reference)):
            assert torch.equal(made(mine.given, mine.draws), made(theirs.given, theirs.draws))
