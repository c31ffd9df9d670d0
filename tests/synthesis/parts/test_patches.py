"""Where patches lie, and that those of a generator are what the whole image has there."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from metasynth.errors import UsageError
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.clusters import ClusteredGenerator
from metasynth.synthesis.config import PAPER
from metasynth.synthesis.draws import generators_of
from metasynth.synthesis.parts import patch_generator as subject
from metasynth.synthesis.parts.patch_generator import PatchGenerator
from metasynth.synthesis.parts.patches import Patches, widened
from metasynth.synthesis.priors.structure_priors import Prior, StructurePriors

SHAPE, SIZE = (40, 32, 36), (16, 12, 20)
CONFIG = replace(PAPER.at_spacing(3), bias=4)
SEEDS = torch.tensor([5, 6, 7])


def brains(n=3, shape=SHAPE):
    """Nested ellipsoids of classes 1 to 3 and a small one of class 4, label maps (n, *shape)."""
    axes = torch.meshgrid(*(torch.linspace(-1, 1, size) for size in shape), indexing="ij")
    labels = torch.zeros(n, *shape, dtype=torch.int64)
    for k, radius in ((1, 0.8), (2, 0.6), (3, 0.3)):
        labels[:, sum(axis**2 for axis in axes) < radius**2] = k
    labels[:, 20:22, 20:22, 20:22] = 4
    return labels


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def window_of(patches, labels, seed):
    """The window that a patch generator takes of an image, told as it tells it."""
    (thinned, coarse), steps = patches._thinned(labels), patches.whole.steps
    draws, _ = steps.drawn(labels, seed)
    return patches._window(coarse.deformed(thinned, draws), labels, seed)


def test_windows_lie_within_images_and_reach_every_place():
    patches = Patches((3, 2), 0.0)
    generator, classes = seeded(), torch.zeros(5, 4, dtype=torch.int64)
    found = [tuple(part.start for part in patches.draw(classes, (5, 4), generator)) for _ in range(300)]
    assert {start for start, _ in found} == {0, 1, 2}
    assert {start for _, start in found} == {0, 1, 2}
    counts = np.unique(found, axis=0, return_counts=True)[1]
    assert counts.min() > 15


def test_a_share_of_the_windows_is_about_a_class_whatever_its_size():
    classes = torch.ones(60, 60, dtype=torch.int64)
    classes[41, 7] = 2
    patches, generator = Patches((5, 5), 0.5), seeded()
    centred = [
        tuple((part.start + part.stop) // 2 for part in patches.draw(classes, (60, 60), generator)) == (41, 7)
        for _ in range(1000)
    ]
    # Half of them are about a structure, half of these about the smaller.
    assert np.mean(centred) == pytest.approx(0.25, abs=0.04)


def test_a_window_about_a_voxel_of_a_thinned_map_is_where_it_is_in_the_image():
    classes = torch.zeros(10, 10, dtype=torch.int64)
    classes[5, 0] = 1
    window = Patches((4, 4), 1.0).draw(classes, (40, 20), seeded())
    assert window == (slice(20, 24), slice(0, 4))


def test_the_same_numbers_are_drawn_whatever_there_is():
    generator, other = seeded(), seeded()
    Patches((2, 2), 1.0).draw(torch.ones(4, 4, dtype=torch.int64), (4, 4), generator)
    Patches((2, 2), 0.0).draw(torch.zeros(4, 4, dtype=torch.int64), (4, 4), other)
    assert torch.equal(generator.get_state(), other.get_state())


def test_patches_of_images_there_are_go_with_their_labels():
    labels = brains()
    images = torch.stack([own.float() + 10 * i for i, own in enumerate(labels)])[:, None]
    cut, shown = Patches(SIZE, 1 / 3).cut(images, labels, labels, seeded())
    assert cut.shape == (3, 1, *SIZE)
    for i in range(3):
        assert torch.equal(cut[i, 0] - 10 * i, shown[i].float())
    again = Patches(SIZE, 1 / 3).cut(images, labels, labels, seeded())
    assert torch.equal(again[0], cut)


def test_a_window_is_widened_as_far_as_the_image_goes():
    wide, inside = widened((slice(1, 5), slice(6, 8)), 3, (10, 9))
    assert wide == (slice(0, 8), slice(3, 9))
    assert inside == (slice(1, 5), slice(3, 5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0, 4),), r"size: must be at least 1 along each axis, got \(0, 4\)"),
        (((),), r"size: must be at least 1 along each axis, got \(\)"),
        (((4,), 1.5), r"foreground: must be in \[0, 1\], got 1.5"),
    ],
)
def test_bad_patches_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        Patches(*arguments)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("thinned_to", [2**16, 2**12])
def test_a_patch_is_what_the_whole_image_has_there(monkeypatch, thinned_to, order):
    monkeypatch.setattr(subject, "THINNED_VOXELS", thinned_to)
    labels, whole = brains(), BatchedGenerator(5, replace(CONFIG, order=order), class_sd=0.0)
    patches = PatchGenerator(whole, Patches(SIZE, 1.0))
    images, shown = patches.synthesise(labels, SEEDS)
    expected, deformed = whole.synthesise(labels, SEEDS)
    assert images.shape == (3, 1, *SIZE)
    assert torch.equal(patches.deform(labels, SEEDS), shown)
    for i in range(3):
        window = window_of(patches, labels[i : i + 1], SEEDS[i : i + 1])
        assert torch.equal(shown[i], deformed[i][window])
        tolerance = 1e-4 if thinned_to == 2**16 else 0.05  # of a scale that is told by all voxels, or some
        torch.testing.assert_close(images[i, 0], expected[i, 0][window], atol=tolerance, rtol=tolerance)


def test_a_patch_depends_on_its_label_map_and_seed_alone():
    patches = PatchGenerator(BatchedGenerator(5, CONFIG), Patches(SIZE))
    images, shown = patches.synthesise(brains(), SEEDS)
    alone, own = patches.synthesise(brains(1), SEEDS[1:2])
    assert torch.equal(alone[0], images[1])
    assert torch.equal(own[0], shown[1])
    drawn, _ = patches(brains(), seeded())
    assert drawn.shape == images.shape


def test_a_share_of_the_patches_is_about_structures_as_they_are_deformed():
    labels, seeds = brains(1).repeat(20, 1, 1, 1), torch.arange(20)
    whole = BatchedGenerator(5, CONFIG)
    target = [0, 0, 0, 0, 1]  # only the small structure is foreground
    about = PatchGenerator(whole, Patches((6, 6, 6), 1.0), target).deform(labels, seeds)
    anywhere = PatchGenerator(whole, Patches((6, 6, 6), 0.0), target).deform(labels, seeds)
    assert (about == 4).flatten(1).any(1).float().mean() > 0.9
    assert (anywhere == 4).flatten(1).any(1).float().mean() < 0.3


def test_patches_of_estimated_contrasts_and_of_clusters():
    labels = [Prior("background", "background")] + [Prior(f"s{k}", f"s{k}", 0.2 * k, 0.01, 0.0) for k in range(1, 5)]
    whole = BatchedGenerator(5, CONFIG, priors=StructurePriors(tuple(labels)))
    patches = PatchGenerator(whole, Patches(SIZE, 1.0))
    images, _ = patches.synthesise(brains(), SEEDS)
    expected, _ = whole.synthesise(brains(), SEEDS)
    window = window_of(patches, brains(1), SEEDS[:1])
    torch.testing.assert_close(images[0, 0], expected[0, 0][window], atol=1e-3, rtol=1e-3)
    clustered = ClusteredGenerator(PatchGenerator(BatchedGenerator(9, CONFIG), Patches(SIZE)), 2)
    images, shown = clustered(brains(), seeded())
    assert images.shape == (3, 1, *SIZE)
    assert shown.max() <= 4
    assert torch.equal(shown, clustered.deformed(brains(), seeded()))


def test_scans_are_cut_after_they_are_deformed():
    labels = brains()
    images = labels[:, None] / 4
    whole = BatchedGenerator(5, replace(CONFIG, gamma=0.0))
    patches = PatchGenerator(whole, Patches(SIZE, 1.0))
    cut, shown = patches.augment(images, labels, SEEDS)
    made, deformed = whole.augment(images, labels, SEEDS)
    for i in range(3):
        window = window_of(patches, labels[i : i + 1], SEEDS[i : i + 1])
        assert torch.equal(shown[i], deformed[i][window])
        torch.testing.assert_close(cut[i, 0], made[i, 0][window], atol=1e-5, rtol=1e-5)


def test_patches_of_label_maps_that_are_not_deformed_and_of_empty_ones():
    still = replace(CONFIG, translations=0.0, rotation=0.0, shears=0.0, zooms=0.0, elastic=0.0)
    labels = brains()
    labels[2] = 0
    patches = PatchGenerator(BatchedGenerator(5, still), Patches(SIZE, 1.0))
    images, shown = patches.synthesise(labels, SEEDS)
    window = window_of(patches, labels[:1], SEEDS[:1])
    assert torch.equal(shown[0], labels[0][window])
    assert not images[2].any()


def test_patches_of_a_contrast_that_is_given_are_made_of_patches():
    whole = BatchedGenerator(5, CONFIG)
    patches = PatchGenerator(whole, Patches(SIZE, 1.0))
    images, shown = patches.synthesise(brains(), SEEDS)
    assert torch.equal(patches.matched(images, shown, SEEDS), whole.matched(images, shown, SEEDS))


def test_windows_have_a_stream_of_their_own():
    patches = PatchGenerator(BatchedGenerator(5, CONFIG), Patches(SIZE))
    (draw,) = generators_of(SEEDS[:1], torch.device("cpu"))
    window = window_of(patches, brains(1), SEEDS[:1])
    assert window != patches.patches.draw(brains(1)[0], SHAPE, draw)


def test_classes_of_another_number_of_labels_are_refused():
    with pytest.raises(UsageError, match="target: must be the classes of 5 labels, got 2"):
        PatchGenerator(BatchedGenerator(5), Patches(SIZE), [0, 1])
