import numpy as np
import pytest
import torch
from support.tiny_model import CLASSES, NearestLevel, random_unet

from metasynth.predict import network as subject
from metasynth.predict.network import slice_posteriors, volume_posteriors


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
