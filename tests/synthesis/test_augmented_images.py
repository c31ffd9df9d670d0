"""Images there are already, taken through the generator's deformation and scanner, and generators of clusters."""

from dataclasses import replace

import pytest
import torch

from metasynth.errors import DataError, UsageError
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.clusters import ClusteredGenerator
from metasynth.synthesis.config import PAPER

STILL = replace(PAPER, translations=0, rotation=0, shears=0, zooms=0, elastic=0, gamma=0, motion_fwhm=0)
DEFORMED = replace(STILL, translations=0.1, rotation=15.0, shears=0.012, zooms=0.15, elastic=0.05, elastic_nodes=4)


def seeds(n):
    return torch.arange(n) + 5


def blocks(shape):
    """Label maps (3, *shape) of boxes, another in each."""
    labels = torch.zeros(3, *shape, dtype=torch.int64)
    for index in range(3):
        labels[index][tuple(slice(n // 5 + index, n - n // 4) for n in shape)] = 1
        labels[index][tuple(slice(n // 3, n // 2 + index) for n in shape)] = 2
    return labels


@pytest.mark.parametrize("shape", [(32, 48), (16, 24, 20)])
@pytest.mark.parametrize("order", [1, 3])
def test_an_image_and_its_labels_are_deformed_alike(shape, order):
    labels = blocks(shape)
    generator = BatchedGenerator(3, replace(DEFORMED, order=order))
    images, moved = generator.augment(labels[:, None].float(), labels, seeds(3))
    assert not torch.equal(moved, labels)
    inside = torch.nn.functional.pad(moved.float(), (1,) * 2 * len(shape), mode="replicate")
    windows = inside
    for axis in range(len(shape)):
        windows = windows.unfold(axis + 1, 3, 1)
    flat = windows.flatten(1 + len(shape))
    whole = flat.amin(-1) == flat.amax(-1)  # voxels whose neighbours are all of one class
    assert 0.4 < whole.float().mean() < 1
    assert (images[:, 0][whole] - moved[whole]).abs().max() < 1e-4
    assert ((images[:, 0] - moved).abs() <= 2).all()
    assert (images[:, 0] - moved).abs().mean() < 0.1


def test_a_ramp_says_where_each_voxel_came_from():
    labels = torch.arange(40).repeat(2, 40, 1)
    images, moved = BatchedGenerator(40, DEFORMED).augment(labels[:, None].float(), labels, seeds(2))
    assert (images[:, 0] - moved).abs().max() <= 0.5 + 1e-4
    assert (images[:, 0] - labels).abs().max() > 1


def test_without_strength_nothing_changes():
    labels = blocks((16, 16))
    images = torch.rand(3, 1, 16, 16)
    out, same = BatchedGenerator(3, STILL).augment(images, labels, seeds(3))
    assert torch.equal(out, images)
    assert torch.equal(same, labels)
    assert out.data_ptr() != images.data_ptr()


@pytest.mark.parametrize("change", [{"bias": 5}, {"snr": 10.0}, {"motion_fwhm": 3.0}, {"gamma": 0.5}])
def test_every_step_of_the_scanner_changes_the_image_alone(change):
    labels = blocks((32, 32))
    images = labels[:, None] / 2
    generator = BatchedGenerator(3, replace(STILL, **change))
    out, same = generator.augment(images, labels, seeds(3))
    assert torch.equal(same, labels)
    assert ((out - images).abs().flatten(1).amax(1) > 1e-3).all()
    one, _ = generator.augment(images[1:2], labels[1:2], seeds(3)[1:2])
    assert torch.equal(one, out[1:2])  # whatever the batch


def test_shapes_must_agree():
    with pytest.raises(DataError, match=r"images: must have shape \(3, 1, 16, 16\), as the labels, got \(3, 16, 16\)"):
        BatchedGenerator(3).augment(torch.zeros(3, 16, 16), blocks((16, 16)), seeds(3))


def clustered(config=STILL, clusters=3, classes=2, **options):
    return ClusteredGenerator(BatchedGenerator(1 + classes * clusters, config), clusters, **options)


def test_clusters_divide_large_classes_and_no_others():
    labels = blocks((40, 40))
    shares = torch.stack([(labels == c).flatten(1).sum(1) for c in (1, 2)], 1) / (labels > 0).flatten(1).sum(1)[:, None]
    generator = clustered(share=0.2)
    fine = generator.split(labels, seeds(3))
    assert torch.equal((fine + 2) // 3, labels)
    large = shares >= 0.2
    assert large[:, 1].any()
    assert not large[:, 1].all()
    for index in range(3):
        for c in (1, 2):
            first = 3 * (c - 1) + 1
            found = fine[index][labels[index] == c].unique().tolist()
            assert found == ([first, first + 1, first + 2] if large[index, c - 1] else [first])


def test_clusters_are_patches():
    labels = torch.ones(1, 64, 64, dtype=torch.int64)
    fine = clustered(classes=1, nodes=6).split(labels, seeds(1))
    alike = (fine[:, 1:] == fine[:, :-1]).float().mean()
    assert 0.8 < alike < 1
    assert torch.bincount(fine.flatten(), minlength=4)[1:].min() > 0.1 * 64**2


def test_what_comes_back_are_the_given_classes_in_images_of_more():
    generator = clustered(clusters=3)
    labels = torch.ones(4, 48, 48, dtype=torch.int64)
    labels[:, :4] = 0
    images, back = generator.synthesise(labels, seeds(4))
    assert torch.equal(back, labels)
    plain, _ = BatchedGenerator(3, STILL).synthesise(labels, seeds(4))
    spread = [one[:, 0][labels > 0].reshape(4, -1).std(1).mean() for one in (images, plain)]
    assert spread[0] > 1.5 * spread[1]
    again, _ = generator.synthesise(labels[2:3], seeds(4)[2:3])
    assert torch.equal(again, images[2:3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 1}, "clusters: must be at least 2"),
        ({"share": 1.5}, "share: must be in"),
        ({"nodes": 1}, "nodes: must be at least 2"),
    ],
)
def test_clusters_out_of_range(options, message):
    with pytest.raises(UsageError, match=message):
        clustered(**options)
    with pytest.raises(UsageError, match="multiple of 3 classes, got 5"):
        ClusteredGenerator(BatchedGenerator(5), 3)
