import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, map_coordinates
from support.atlas_phantom import N_CLASSES, SPACING, atlas, people

from metasynth.segment.atlas.segmenter import Atlas, plane_atlases


def grid_points(shape: tuple[int, ...], spacing: tuple[float, ...]) -> torch.Tensor:
    """Places (P, d) of all voxels, mm from the middle."""
    index = torch.cartesian_prod(*[torch.arange(n, dtype=torch.float64) for n in shape])
    return (index - (torch.tensor(shape) - 1) / 2) * torch.tensor(spacing, dtype=torch.float64)


def test_probabilities_are_the_smoothed_average() -> None:
    maps = people((20, 16))
    found = Atlas.from_labels(maps, N_CLASSES, spacing=(2.0, 4.0), sigma_mm=3.0, floor=1e-3)
    average = np.stack([(maps.numpy() == k).mean(0) for k in range(N_CLASSES)])
    smooth = np.stack([gaussian_filter(part, (1.5, 0.75), mode="nearest") for part in average])
    np.testing.assert_allclose(found.probabilities, (1 - 5e-3) * smooth + 1e-3, rtol=1e-12)
    assert found.gaussians == (1, 1, 1, 1, 1)


@settings(max_examples=20)
@given(ndim=st.sampled_from([2, 3]), sigma=st.floats(0, 8), more=st.floats(0, 8), seed=st.integers(0, 999))
def test_probabilities_add_to_one_however_smooth(ndim: int, sigma: float, more: float, seed: int) -> None:
    maps = people((9, 8, 7)[:ndim], pairs=1, seed=seed)
    found = Atlas.from_labels(maps, N_CLASSES, sigma_mm=sigma, floor=1e-4).smoothed(more).probabilities
    np.testing.assert_allclose(found.sum(0), 1.0, atol=1e-12)
    assert found.min() >= 1e-4 * (1 - 1e-9)


@pytest.mark.parametrize("shape", [(9, 12), (7, 9, 8), (1, 9, 8)])
def test_at_voxels_it_is_the_atlas(shape: tuple[int, ...]) -> None:
    prior = atlas(shape)
    found = prior.at(grid_points(shape, prior.spacing)).reshape(prior.probabilities.shape)
    np.testing.assert_allclose(found, prior.probabilities, atol=1e-12)


def test_between_voxels_it_is_linear_and_beyond_the_edge_as_there() -> None:
    prior = atlas((9, 12))
    points = 14.0 * torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 7.0
    points = torch.cat([points, torch.tensor([[-40.0, 3.0], [2.0, 90.0]], dtype=torch.float64)])
    index = (points / SPACING + (torch.tensor([9, 12]) - 1) / 2).T.numpy()
    expected = [map_coordinates(part, index, order=1, mode="nearest") for part in prior.probabilities.numpy()]
    np.testing.assert_allclose(prior.at(points), np.stack(expected), atol=1e-12)


def test_centroid_is_that_of_the_classes() -> None:
    maps = torch.zeros(1, 11, 9, dtype=torch.int64)
    maps[0, 7:10, 1:4] = 1  # centre (8, 2); the middle of the grid is (5, 4)
    found = Atlas.from_labels(maps, 2, spacing=(2.0, 3.0), sigma_mm=0.0, floor=1e-9).centroid()
    np.testing.assert_allclose(found, [6.0, -6.0], atol=1e-4)


def test_planes_share_the_label_maps_by_position() -> None:
    positions = np.array([30, 10, 20, 11, 21, 31])
    maps = torch.from_numpy((positions // 10 - 1)[:, None, None] * np.ones((1, 6, 5), dtype=np.int64))
    found = plane_atlases(maps, positions, 3, 3, sigma_mm=0.0, floor=1e-6)
    assert [int(plane.probabilities[:, 0, 0].argmax()) for plane in found] == [0, 1, 2]
    assert all(plane.probabilities.amax() > 0.999 for plane in found)


def good(n: int = 2) -> torch.Tensor:
    return torch.full((n, 4, 4), 1 / n)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Atlas(good()[0], (1.0, 1.0), (1, 1)), "probabilities: must be (K, H, W) or (K, D, H, W)"),
        (lambda: Atlas(2 * good(), (1.0, 1.0), (1, 1)), "probabilities: must be above 0 and add to 1"),
        (lambda: Atlas(good(), (1.0, 0.0), (1, 1)), "spacing: must be 2 numbers of mm above 0, got (1.0, 0.0)"),
        (lambda: Atlas(good(), (1.0, 1.0), (1, 0)), "gaussians: must be 2 numbers of at least 1"),
        (lambda: Atlas.from_labels(good(), 2), "labels: must be of an integer dtype, got torch.float32"),
        (lambda: Atlas.from_labels(good()[0].long(), 2), "labels: must be (N, H, W) or (N, D, H, W), got (4, 4)"),
        (lambda: Atlas.from_labels(4 * good().long() + 3, 2), "labels: must be in 0..1, got 3..3"),
        (lambda: Atlas.from_labels(good().long(), 1), "n_classes: must be at least 2"),
        (lambda: Atlas.from_labels(good().long(), 2, floor=0.5), "floor: must be above 0 and below 1 / n_classes"),
        (lambda: Atlas.from_labels(good().long(), 2, sigma_mm=-1), "sigma_mm: must be a number of mm of at least 0"),
        (lambda: Atlas.from_labels(good().long(), 2, spacing=(1.0,)), "spacing: must be 2 numbers of mm"),
        (lambda: plane_atlases(good().long(), [1.0], 1, 2), "positions: must be 2 numbers, one a label map"),
        (lambda: plane_atlases(good().long(), [1.0, 2.0], 3, 2), "planes: must be 1 to 2"),
    ],
)
def test_errors_name_the_parameter_in_one_line(make, message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)) as caught:
        make()
    assert "\n" not in str(caught.value)
