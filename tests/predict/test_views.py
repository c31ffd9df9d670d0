"""A network that looks along several axes, and the mean of what it sees."""

import nibabel as nib
import numpy as np
import pytest
import torch
from metasynth.data_prep.volumes.volumes import Volume
from predict.test_scan import blobs, everywhere, image_of, mask_of, overlap, stored
from support.tiny_model import CLASSES, describe, level_model, random_model
from torch import nn

from metasynth.predict.scan import make_stack, segment
from metasynth.segment import windows
from metasynth.segment.model_description import TrainedModel

VIEWS = {"axis": "coronal,axial,sagittal", "orientation": "IR,PR,IP"}
EACH = [("coronal", "IR"), ("axial", "PR"), ("sagittal", "IP")]
SIZE = 16


class Place(nn.Module):
    """The posterior of the last class grows along rows and columns, whatever is seen."""

    in_channels, stride = 1, 1

    def forward(self, images):
        """Logits (B, K, H, W)."""
        rows, columns = (torch.arange(1, n + 1) / n for n in images.shape[2:])
        last = (rows[:, None] / 4 + columns / 8).expand(len(images), *images.shape[2:])
        rest = torch.full_like(last, 0.25)
        return torch.stack([rest, rest, 0.5 - last, last], dim=1).log()


def test_the_mean_over_the_three_axes_is_the_one_it_is_known_to_be():
    model = TrainedModel(Place(), describe(shape=(SIZE, SIZE), **VIEWS))
    image = Volume(np.random.default_rng(0).random((SIZE,) * 3, dtype=np.float32), np.eye(4), "here")
    found = segment(model, image, everywhere(image), keep_posteriors=True).posteriors
    way = np.arange(1, SIZE + 1) / SIZE
    right, front, up = np.meshgrid(way, way, way, indexing="ij")
    back, down = np.flip(front, 1), np.flip(up, 2)
    rows, columns = (down + back + down) / 3, (right + right + back) / 3  # "IR", "PR", "IP"
    np.testing.assert_allclose(found[..., 3], rows / 4 + columns / 8, atol=1e-6)
    np.testing.assert_allclose(found[..., 0], 0.25, atol=1e-6)


def even_scan():
    """Noise in a box of even lengths, about which windows are the same whichever way an axis is flipped."""
    image = Volume(np.zeros((24, 26, 22), np.float32), np.eye(4), "here")
    image.data[4:20, 5:19, 4:20] = np.random.default_rng(0).random((16, 14, 16)) + 1
    return image


def test_each_view_counts_as_much_as_by_itself():
    """Three models with one set of weights, one a view, are the network along three axes."""
    image = even_scan()
    several = segment(random_model(**VIEWS), image, keep_posteriors=True)
    alone = [
        segment(random_model(axis=axis, orientation=view), image, keep_posteriors=True).posteriors
        for axis, view in EACH
    ]
    assert max(np.abs(alone[0] - each).max() for each in alone[1:]) > 0.1
    np.testing.assert_allclose(several.posteriors, np.mean(alone, axis=0), atol=1e-6)
    np.testing.assert_array_equal(several.labels, several.posteriors.argmax(-1))


def test_the_order_of_the_views_does_not_matter():
    image = even_scan()
    first = segment(random_model(**VIEWS), image, keep_posteriors=True)
    other = segment(random_model(axis="sagittal,coronal,axial", orientation="IP,IR,PR"), image, keep_posteriors=True)
    np.testing.assert_allclose(other.posteriors, first.posteriors, atol=1e-6)


@pytest.mark.parametrize("orientation", ["LIA", "PSR", "SLP"])
def test_a_turned_copy_has_the_same_labels_turned(orientation):
    plain = image_of(blobs())
    copy, turn = stored(plain, orientation)
    first, second = (segment(random_model(**VIEWS), volume).labels for volume in (plain, copy))
    assert len(np.unique(first)) > 2
    np.testing.assert_array_equal(second, nib.orientations.apply_orientation(first, turn))


@pytest.mark.parametrize(("size", "least"), [((0.8, 1.5, 1.1), 0.85), ((1.0, 1.0, 3.0), 0.7)])
def test_labels_lie_on_the_anatomy_of_anisotropic_voxels(size, least):
    """Every view is of cubes: what lies between thick planes is made up, and labels come back to the scan's voxels."""
    affine = np.diag([*size, 1.0])
    classes = blobs(tuple(int(40 / s) for s in size))
    image = image_of(classes, affine)
    model = level_model(**VIEWS)
    stack = make_stack(image, everywhere(image), model.description)
    np.testing.assert_allclose(stack.grid.spacing, 1.0)
    found = segment(model, image, everywhere(image)).labels
    assert found.shape == classes.shape
    assert overlap(found, classes) > least


def test_what_a_brain_is_not_stays_background_along_each_axis():
    classes = blobs()
    found = segment(random_model(**VIEWS), image_of(classes), mask_of(classes), keep_posteriors=True)
    outside = classes == 0
    np.testing.assert_array_equal(found.posteriors[outside], np.eye(len(CLASSES))[np.zeros(outside.sum(), int)])


def test_slices_without_content_are_not_looked_at(monkeypatch):
    """The window is as long as the training images along every axis, the brain is not."""
    seen = []
    own = windows._posteriors
    monkeypatch.setattr(
        windows, "_posteriors", lambda net, images, device: seen.append(images) or own(net, images, device)
    )
    image = Volume(np.zeros((20, 20, 20), np.float32), np.eye(4), "here")
    image.data[5:12, 6:10, 7:13] = np.random.default_rng(0).random((7, 4, 6)) + 1
    segment(level_model(**VIEWS), image)
    assert [len(each) for each in seen] == [4, 6, 7]  # coronal, axial, sagittal
    assert {tuple(each.shape[2:]) for each in seen} == {(32, 32)}


def test_a_network_for_one_size_looks_through_windows_of_it():
    class Fixed(Place):
        stride = None

        def forward(self, images):
            """Logits of images of that size alone."""
            assert tuple(images.shape[2:]) == (SIZE, 8)
            return super().forward(images)

    image = Volume(np.random.default_rng(0).random((20, 18, 21), dtype=np.float32), np.eye(4), "here")
    model = TrainedModel(Fixed(), describe(shape=(SIZE, 8), **VIEWS))
    found = segment(model, image, everywhere(image), keep_posteriors=True).posteriors
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(found[..., 0], 0.25, atol=1e-5)
