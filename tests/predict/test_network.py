import tracemalloc

import numpy as np
import pytest
import torch
from metasynth.data_prep.volumes.volumes import Volume
from support.tiny_model import CLASSES, NearestLevel, describe, random_model, random_unet

from metasynth.predict import network as subject
from metasynth.predict.network import posteriors_of, slice_posteriors, volume_posteriors
from metasynth.predict.scan import segment
from metasynth.segment import windows
from metasynth.segment.model_description import TrainedModel


def stack(*shape):
    return np.random.default_rng(0).random(shape, dtype=np.float32)


@pytest.mark.parametrize("at_once", [1, 200, 1 << 20])
def test_every_slice_is_by_itself(monkeypatch, at_once):
    monkeypatch.setattr(subject, "VOXELS_AT_ONCE", at_once)
    network, images = random_unet().eval(), stack(5, 8, 12)
    found = slice_posteriors(network, images, "cpu")
    assert found.shape == (len(CLASSES), 5, 8, 12)
    for i, image in enumerate(images):
        alone = network(torch.from_numpy(image)[None, None]).softmax(1)[0].detach()
        np.testing.assert_allclose(found[:, i], alone, atol=1e-6)


def test_a_volume_of_the_window_goes_through_whole():
    network, images = random_unet(3).eval(), stack(8, 8, 8)
    whole = network(torch.from_numpy(images)[None, None]).softmax(1)[0].detach()
    np.testing.assert_array_equal(volume_posteriors(network, images, (8, 8, 8), "cpu"), whole)


@pytest.mark.parametrize("shape", [(8, 8, 9), (20, 9, 13), (8, 16, 31)])
def test_windows_of_a_network_that_sees_single_voxels_give_what_it_gives(shape):
    network, images = NearestLevel(3), stack(*shape)
    whole = network(torch.from_numpy(images)[None, None]).softmax(1)[0]
    np.testing.assert_allclose(volume_posteriors(network, images, (8, 8, 8), "cpu"), whole, atol=1e-6)


def test_posteriors_of_windows_add_up_to_1():
    found = volume_posteriors(random_unet(3).eval(), stack(12, 10, 16), (8, 8, 8), "cpu")
    np.testing.assert_allclose(found.sum(axis=0), 1.0, atol=1e-5)


@pytest.mark.parametrize(("ndim", "views"), [(2, {}), (2, {"axis": "coronal,axial", "orientation": "IR,PR"}), (3, {})])
def test_posteriors_of_large_scans_are_kept_in_half_precision(monkeypatch, ndim, views):
    model, images = random_model(ndim, shape=(16,) * ndim, **views), stack(20, 24, 28)
    exact = posteriors_of(model, images, images > 0, "cpu")
    assert exact.dtype == np.float32
    monkeypatch.setattr(windows, "HALF_FROM", exact.nbytes)
    assert posteriors_of(model, images, images > 0, "cpu").dtype == np.float32
    monkeypatch.setattr(windows, "HALF_FROM", exact.nbytes - 1)
    halved = posteriors_of(model, images, images > 0, "cpu")
    assert halved.dtype == np.float16
    np.testing.assert_allclose(halved.astype(np.float32), exact, atol=1 / 1024)


@pytest.mark.parametrize("views", [{}, {"axis": "coronal,axial,sagittal", "orientation": "IR,PR,IP"}])
def test_no_more_is_held_than_the_posteriors_once_and_some_volumes(monkeypatch, views):
    """24 classes of 64 x 64 x 64 voxels: half of what the posteriors alone would take in single precision, and more."""
    monkeypatch.setattr(windows, "HALF_FROM", 0)
    monkeypatch.setattr(subject, "VOXELS_AT_ONCE", 64 * 64)
    names = tuple(f"class {k}" for k in range(24))
    model = TrainedModel(Level(), describe(class_names=names, shape=(64, 64), **views))
    image = Volume(stack(64, 64, 64) + 1, np.eye(4), "here")
    segment(model, image)  # what is imported and kept the first time
    tracemalloc.start()
    segment(model, image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    volume = 4 * image.data.size
    assert 24 * volume / 2 < peak < 24 * volume / 2 + 8 * volume


class Level(torch.nn.Module):
    """24 classes, of which one has most."""

    in_channels, stride = 1, 1

    def forward(self, images):
        """Logits (B, 24, H, W)."""
        return torch.cat([images * k for k in range(24)], dim=1)
