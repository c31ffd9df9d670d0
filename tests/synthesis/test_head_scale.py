"""One rule scales whole heads: scans to learn from, scans to be segmented, and synthetic images."""

import numpy as np
import pytest
import torch
from metasynth.data_prep.scaling import not_air, scale_head

from metasynth.errors import DataError
from metasynth.synthesis.intensity import scaled_heads


def head(air: int = 600, seed: int = 0) -> np.ndarray:
    """(N,) air about 2 and 1,000 values from 20 to 119.9 in no order."""
    rng = np.random.default_rng(seed)
    tissue = 20 + 0.1 * np.arange(1000)
    return rng.permutation(np.concatenate([rng.uniform(0, 4, air), tissue])).astype(np.float32)


def test_air_and_the_brightest_hundredth_are_the_ends():
    image = head()
    low, most = np.quantile(image, (0.01, 0.99))
    assert 20 > low + 0.1 * (most - low) > 4  # what is not air is the tissue
    high = 20 + 0.1 * 0.99 * 999
    np.testing.assert_allclose(scale_head(image, "t1"), np.clip((image - low) / (high - low), 0, 1), atol=1e-6)


def test_how_much_air_there_is_does_not_matter():
    tissue = [np.sort(scale_head(head(air), "t1"))[-1000:] for air in (200, 600, 20_000)]
    np.testing.assert_allclose(tissue[0], tissue[1], atol=2e-3)
    np.testing.assert_allclose(tissue[0], tissue[2], atol=2e-3)


@pytest.mark.parametrize(("gain", "offset"), [(0.004, 0.0), (3.0, 1000.0), (1.0, -700.0)])
def test_gain_and_offset_of_a_scan_do_not_matter(gain, offset):
    image = head()
    np.testing.assert_allclose(scale_head(gain * image + np.float32(offset), "t1"), scale_head(image, "t1"), atol=1e-4)


def test_what_is_not_finite_is_air():
    image = head()
    holes = np.concatenate([image, np.full(50, np.nan, np.float32), np.full(50, np.inf, np.float32)])
    for offset in (0, -100):
        scaled = scale_head(holes + np.float32(offset), "t1")
        least = min(0, offset + image.min())
        filled = np.concatenate([image + np.float32(offset), np.full(100, least, np.float32)])
        np.testing.assert_array_equal(scaled, scale_head(filled, "t1"))
        assert not scaled[len(image) :].any()


def test_synthetic_images_are_scaled_like_scans():
    images = torch.from_numpy(np.stack([head(seed=seed) for seed in range(3)]).reshape(3, 40, 40))
    expected = np.stack([scale_head(image.numpy(), "t1") for image in images])
    np.testing.assert_allclose(scaled_heads(images), expected, atol=1e-6)
    assert not scaled_heads(torch.full((2, 4, 4), 0.3)).any()


def test_a_head_in_less_than_a_hundredth_of_the_field():
    image = np.zeros(10_000, np.float32)
    image[:50] = np.linspace(0.5, 1, 50)
    scaled = scale_head(image, "t1")
    assert scaled[:50].min() == pytest.approx(0.5, abs=0.01)
    assert np.count_nonzero(not_air(scaled)) == 50


@pytest.mark.parametrize("value", [0.0, 7.5, np.nan])
def test_nothing_but_air(value):
    with pytest.raises(DataError) as error:
        scale_head(np.full((3, 4, 5), value, np.float32), "t1.nii")
    assert str(error.value) == f"t1.nii: shows nothing but air, every voxel is {value:g}"
