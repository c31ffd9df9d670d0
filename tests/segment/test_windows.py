import numpy as np
import pytest
import torch
from support.tiny_model import random_unet
from torch import nn

from metasynth.segment import windows as subject
from metasynth.segment.windows import in_windows


def test_the_middle_of_a_window_counts_most_and_windows_overlap_by_half():
    weights = subject._weights((8, 5))
    assert weights.shape == (8, 5)
    assert weights.min() > 0
    assert weights[3:5, 2].tolist() == [weights.max()] * 2
    for n in range(8, 60):
        starts = subject._starts(n, 8)
        assert (starts[0], starts[-1]) == (0, n - 8)
        assert max(np.diff(starts), default=0) <= 4


def test_a_window_of_the_whole_is_a_plain_pass():
    network, images = random_unet(3).eval(), torch.rand(2, 1, 8, 8, 16)
    torch.testing.assert_close(in_windows(network, images, (8, 8, 16), "cpu"), network(images).softmax(1).detach())


def test_windows_of_a_small_receptive_field_are_the_whole_but_at_their_edges():
    """A voxel that no window's edge is near has what a pass of the whole gives."""
    network = nn.Sequential(nn.Conv3d(1, 3, 3, padding=1, bias=False), nn.Conv3d(3, 3, 1))
    images = torch.rand(1, 1, 20, 8, 8)
    whole = network(images).softmax(1).detach()
    found = in_windows(network, images, (16, 8, 8), "cpu")
    assert subject._starts(20, 16) == [0, 4]
    torch.testing.assert_close(found[:, :, :4], whole[:, :, :4])  # of the first window alone
    torch.testing.assert_close(found[:, :, 5:15], whole[:, :, 5:15])
    torch.testing.assert_close(found[:, :, 16:], whole[:, :, 16:])
    assert not torch.allclose(found[:, :, 4], whole[:, :, 4], atol=1e-6)  # the edge of the second


@pytest.mark.parametrize("at_once", [1, 8**3 * 2 * 3, 1 << 18])
def test_however_many_windows_go_through_at_once(monkeypatch, at_once):
    network, images = random_unet(3).eval(), torch.rand(2, 1, 12, 8, 28)
    expected = in_windows(network, images, (8, 8, 8), "cpu")
    assert expected.shape == (2, 4, 12, 8, 28)
    monkeypatch.setattr(subject, "VOXELS_AT_ONCE", at_once)
    torch.testing.assert_close(in_windows(network, images, (8, 8, 8), "cpu"), expected)
    torch.testing.assert_close(in_windows(network, images[1:], (8, 8, 8), "cpu"), expected[1:])
