import pytest
import torch
from support.processes import program
from support.tiny_noise import CLASSES, make_cache

from metasynth.augment import bias_field
from metasynth.augment.bias_field import KnownBias
from metasynth.augment.noise import NoiseLevel, add_noise, standard_normal
from metasynth.data.cache import Cache
from metasynth.data.dataset import SliceDataset
from metasynth.running.seeding import generator_for
from metasynth.synthesis import generator as generator_module
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.config import CornucopiaConfig
from metasynth.synthesis.generator import ImageGenerator
from metasynth.training import evaluation
from metasynth.training.evaluation import CHUNK, TestSet, evaluate, make_test_set, middle_plane, segment

LEVELS = tuple(map(NoiseLevel.parse, ("0", "0.1", "0.025:0.2")))


class Shades(ImageGenerator):
    """Images that are their labels, turned upside down at random."""

    def __call__(self, labels, generator):
        turned = labels.flip(1) if torch.rand((), generator=generator) < 0.5 else labels
        return turned[:, None].float(), turned


class Rounds(torch.nn.Module):
    """Segments `Shades` without noise perfectly; remembers the mode and sizes of its batches."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.modes, self.sizes = set(), []

    def forward(self, images):
        self.modes.add((self.training, torch.is_grad_enabled()))
        self.sizes.append(len(images))
        distance = (images - torch.arange(3.0)[:, None, None]).abs()
        return -distance * self.weight


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    with Cache(make_cache(tmp_path_factory.mktemp("evaluation") / "c.h5", per_subject=6)) as cache:
        yield SliceDataset(cache, ("s3", "s1"))


@pytest.fixture(scope="module")
def test(dataset):
    return make_test_set(dataset, Shades(), seed=0, repeats=3)


def test_every_item_is_there_once_a_repeat(dataset, test):
    assert test.images.shape == (36, 1, 16, 16)
    assert test.subject.tolist() == dataset.subject_index.tolist() * 3
    assert test.subjects == ("s3", "s1")
    assert test.class_names == CLASSES
    truth = dataset.read(range(12)).labels
    for made in test.labels.split(12):
        assert all(torch.equal(a, b) or torch.equal(a, b.flip(0)) for a, b in zip(made, truth, strict=True))
    assert torch.equal(make_test_set(dataset, Shades(), seed=0, repeats=3).images, test.images)
    assert torch.equal(make_test_set(dataset, Shades(), seed=0, repeats=1).images, test.images[:12])


def test_every_repeat_is_drawn_anew(dataset):
    seeds = []

    class Spy(Shades):
        def __call__(self, labels, generator):
            seeds.append(generator.initial_seed())
            return super().__call__(labels, generator)

    make_test_set(dataset, Spy(), seed=0, repeats=3)
    make_test_set(dataset, Spy(), seed=1, repeats=1)
    assert len(set(seeds)) == 4


def test_noise_is_that_of_the_level_and_the_same_every_time(test):
    assert torch.equal(test.noisy(LEVELS[0]), test.images)
    noise = test.noisy(LEVELS[1]) - test.images
    assert float(noise.std()) == pytest.approx(0.1, rel=0.05)
    assert torch.equal(test.noisy(LEVELS[1]), test.noisy(LEVELS[1]))
    twice = test.noisy(NoiseLevel(0.2, 0.2)) - test.images
    assert abs(float((noise * twice).mean())) < 0.1 * 0.1 * 0.2  # the conditions do not share their draws
    each = (test.noisy(LEVELS[2]) - test.images).flatten(1).std(1)
    assert 0.02 < each.min() < 0.08
    assert 0.14 < each.max() < 0.25


@pytest.mark.parametrize("shape", [(36, 1, 16, 16), (37, 1, 5, 7), (64, 1, 3, 5, 7), (3, 1, 9, 9)])
def test_noise_of_chunks_is_noise_of_the_whole_bit_for_bit(shape):
    images, level = torch.rand(shape, generator=torch.Generator().manual_seed(0)), LEVELS[2]
    test = TestSet(images, images, images[:, 0].long(), torch.zeros(shape[0]), ("a",), CLASSES, seed=3)
    draw = generator_for(3, "test noise", level.label)
    sigma = level.draw(shape[0], draw)
    whole = add_noise(images, sigma, standard_normal(images, draw))
    assert [len(chunk) for chunk in test.noisy_chunks(level)] == [len(chunk) for chunk in images.split(CHUNK)]
    assert torch.equal(test.noisy(level), whole)
    for item in (0, shape[0] // 2, shape[0] - 1):
        assert torch.equal(test.noisy_image(level, item), whole[item : item + 1])


def test_label_maps_are_read_some_at_a_time(dataset, monkeypatch):
    whole, counts = make_test_set(dataset, BatchedGenerator(3), seed=0, repeats=2), []
    monkeypatch.setattr(evaluation, "PIECE_VOXELS", 5 * 16 * 16)
    monkeypatch.setattr(
        SliceDataset,
        "read",
        lambda self, items, _read=SliceDataset.read: counts.append(len(items)) or _read(self, items),
    )
    pieces = make_test_set(dataset, BatchedGenerator(3), seed=0, repeats=2)
    assert counts == [1, *[5, 5, 2] * 2]
    for name in ("clean", "images", "labels", "subject"):
        assert torch.equal(getattr(pieces, name), getattr(whole, name))


def test_segmentation_leaves_the_model_as_it_was(test):
    model = Rounds().train()
    assert torch.equal(segment(model, test.images, "cpu"), test.labels)
    assert model.training
    assert model.modes == {(False, False)}
    assert model.sizes == [CHUNK, 36 - CHUNK]
    assert not segment(model.eval(), test.images, "cpu").requires_grad
    assert not model.training


def test_dice_by_condition(test):
    scores = evaluate(Rounds(), test, LEVELS, "cpu")
    assert list(scores) == ["0", "0.1", "U[0.025, 0.2]"]
    clean, noisy = scores["0"], evaluate(Rounds(), test, [NoiseLevel(0.6, 0.6)], "cpu")["0.6"]
    assert clean["mean"] == 1.0
    assert clean["per_class"] == dict.fromkeys(CLASSES, 1.0)
    assert clean["per_subject"] == {"s3": 1.0, "s1": 1.0}
    assert 0.2 < noisy["mean"] < 0.9
    assert noisy["mean"] == pytest.approx(sum(noisy["per_subject"].values()) / 2)


def test_the_fullest_item_and_its_middle_plane(test):
    counts = (test.labels > 0).sum((1, 2))
    assert counts[test.fullest_item()] == counts.max()
    volume = torch.arange(24).reshape(4, 2, 3)
    assert torch.equal(middle_plane(volume), volume[2])
    assert torch.equal(middle_plane(volume[0]), volume[0])


def test_pieces_are_the_whole_bit_for_bit(dataset, monkeypatch):
    """Images and labels, with a corruption; of a generator whose images depend on their own seeds."""
    clean = BatchedGenerator(3, CornucopiaConfig(elastic_nodes=4))
    fields = KnownBias((0.5, 0.5), (2, 4))
    whole = make_test_set(dataset, clean, seed=0, repeats=2, corruption=fields)
    sizes = []

    def synthesise(self, labels, seeds):
        sizes.append(len(labels))
        return made(self, labels, seeds)

    made = BatchedGenerator.synthesise
    monkeypatch.setattr(BatchedGenerator, "synthesise", synthesise)
    monkeypatch.setattr(generator_module, "PIECE_VOXELS", 5 * 16 * 16)
    monkeypatch.setattr(bias_field, "PIECE_VOXELS", 7 * 16 * 16)
    pieces = make_test_set(dataset, clean, seed=0, repeats=2, corruption=fields)
    assert sizes == [5, 5, 2] * 2
    for name in ("clean", "images", "labels"):
        assert torch.equal(getattr(pieces, name), getattr(whole, name))


MEMORY = """
import resource, sys
import torch
from metasynth.augment.bias_field import KnownBias
from metasynth.data.dataset import Batch
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.training.evaluation import make_test_set

class Maps:
    subjects = ("a",)
    class cache:
        class_names = ("background", "a", "b")
    def __len__(self):
        return 1500
    def read(self, items):
        labels = torch.zeros(len(items), 96, 96, dtype=torch.int64)
        labels[:, 20:70, 30:60] = 1 + torch.arange(30) // 15
        return Batch(labels, None, torch.zeros(len(items), dtype=torch.int64))

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
test = make_test_set(Maps(), BatchedGenerator(3), seed=0, repeats=2, corruption=KnownBias((0.5, 0.5, 0.5)))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / (3000 * 96 * 96))
"""


@pytest.mark.slow
def test_the_memory_of_making_a_test_set_is_bounded():
    """In bytes a voxel, with what a piece takes; all in one call took more than 55."""
    process = program(MEMORY)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert float(output) < 38
