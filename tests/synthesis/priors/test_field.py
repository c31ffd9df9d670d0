"""The bias field of a labelled image: planted fields come back, and intensities are those without."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metasynth.synthesis.priors.estimate import estimate_priors
from metasynth.synthesis.priors.field import log_field

LEVELS = np.array([0, 0.5, 0.35, 0.2, 0.4])


def checkers(*shape: int, structures: int = 4) -> np.ndarray:
    """Maps (*shape) of blocks of four voxels, all around which is background of two."""
    blocks = sum(np.ix_(*(np.arange(n) // 4 for n in shape)))
    maps = 1 + (blocks * 7 // 3) % structures
    inside = np.zeros(shape, bool)
    inside[tuple(slice(2, -2) if n > 4 else slice(None) for n in shape)] = True
    return np.where(inside, maps, 0)


def bowl(*shape: int, strength: float = 0.3) -> np.ndarray:
    """A field (*shape), bright in the middle; its logarithm is of one wave along each axis."""
    waves = np.ix_(*(np.cos(np.pi * 2 * np.linspace(0, 1, n)) if n > 4 else np.zeros(n) for n in shape))
    return np.exp(-strength * sum(waves))


def centred(field: np.ndarray, maps: np.ndarray) -> np.ndarray:
    return np.log(field) - np.log(field)[maps > 0].mean()


@pytest.mark.parametrize("shape", [(1, 48, 48), (12, 32, 32), (1, 20, 24, 28)])
def test_a_planted_field_comes_back_in_slices_and_volumes(shape):
    maps, field = checkers(*shape), bowl(*shape, strength=0.15)
    noise = 1 + 0.03 * np.random.default_rng(0).normal(size=shape)
    found = log_field(LEVELS[maps] * field * noise, maps, maps > 0)
    off = (found - centred(field, maps))[maps > 0]
    # The cosines' waves end where the labels do, and the planted ones with the image.
    assert np.abs(off).max() < 0.05
    assert off.std() < 0.015 < 0.1 < centred(field, maps)[maps > 0].std()
    assert found[maps > 0].mean() == pytest.approx(0, abs=1e-12)
    assert not found[maps == 0].any()


def test_structures_in_a_bright_place_have_the_intensity_they_would_have_elsewhere():
    maps = np.minimum(checkers(1, 64, 64), 1)
    maps[0, 24:40, 24:40] = 2  # deep grey matter, 0.35 where white matter is 0.5, at the field's top
    image = LEVELS[maps] * bowl(1, 64, 64)
    medians = np.median(image[maps == 2]), np.median(image[maps == 1])
    assert medians[0] > medians[1]
    priors = estimate_priors([(image, maps)], ("air", "white", "grey"), ("air", "brain", "brain")).priors
    assert priors.mean[2] / priors.mean[1] == pytest.approx(0.35 / 0.5, rel=0.05)


def test_a_texture_is_that_without_the_field():
    maps, field = checkers(1, 96, 96, structures=2), bowl(1, 96, 96, strength=0.2)
    clean = LEVELS[maps] + 0.02 * (maps > 0) * np.random.default_rng(0).normal(size=maps.shape)
    found = estimate_priors([(clean * field, maps)], ("air", "a", "b"), ("air", "brain", "brain"))
    assert found.priors.texture[1:] == pytest.approx((0.02, 0.02), rel=0.1)
    assert found.fields == pytest.approx([np.log(field)[maps > 0].std()], rel=0.05)


@settings(deadline=None, max_examples=20)
@given(gain=st.floats(0.3, 1.9), seed=st.integers(0, 50))
def test_the_gain_of_an_image_changes_no_field(gain: float, seed: int) -> None:
    maps = checkers(1, 40, 40)
    noise = 1 + 0.05 * np.random.default_rng(seed).normal(size=maps.shape)
    image = 0.5 * LEVELS[maps] * bowl(1, 40, 40) * noise
    assert log_field(gain * image, maps, maps > 0) == pytest.approx(log_field(image, maps, maps > 0), abs=1e-9)


def test_what_is_cut_at_full_scale_bends_no_field():
    maps, field = checkers(1, 64, 64), bowl(1, 64, 64)
    image = np.minimum(1.6 * LEVELS[maps] * field, 1)
    assert 0.05 < (image[maps > 0] == 1).mean() < 0.3
    found = log_field(image, maps, maps > 0)
    assert np.abs(found - centred(field, maps))[maps > 0].max() < 0.03


@pytest.mark.parametrize("voxels", [0, 1, 279])
def test_few_voxels_tell_of_no_field(voxels):
    maps = np.zeros((1, 32, 32), dtype=np.int64)
    maps.reshape(-1)[:voxels] = 1
    image = np.linspace(0.1, 0.9, maps.size).reshape(maps.shape)
    assert not log_field(image, maps, maps > 0).any()


def test_dark_structures_tell_of_no_field():
    maps = checkers(1, 48, 48)
    image = np.where(maps == 3, 1e-3 * np.random.default_rng(0).random(maps.shape), LEVELS[maps])
    assert np.abs(log_field(image, maps, maps > 0)).max() < 1e-6
