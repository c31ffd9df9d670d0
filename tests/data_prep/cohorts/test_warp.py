import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metasynth.data_prep.cohorts.warp import WarpModel, draw_warp, exponentiate, min_jacobian, smooth_noise
from scipy import ndimage

from metasynth.errors import RunError

LOW, HIGH = (-40.0, -30.0, -20.0), (40.0, 50.0, 40.0)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_a_drawn_deformation_does_not_fold(seed):
    warp = draw_warp(np.random.default_rng(seed), LOW, HIGH, WarpModel())
    assert warp.min_jacobian() > 0
    # Independent of the grid's own check: neighbouring points keep their orientation.
    rng = np.random.default_rng(0)
    points = rng.uniform(LOW, HIGH, (500, 3)).T
    step = 0.5
    columns = [(warp(points + step * e[:, None]) - warp(points - step * e[:, None])) for e in np.eye(3)]
    assert np.linalg.det(np.stack(columns, axis=-1).transpose(1, 0, 2)).min() > 0


def test_displacements_are_several_millimetres():
    rng = np.random.default_rng(1)
    points = np.random.default_rng(0).uniform(LOW, HIGH, (500, 3)).T
    moved = [np.linalg.norm(draw_warp(rng, LOW, HIGH, WarpModel())(points) - points, axis=0).mean() for _ in range(10)]
    assert 3 < np.mean(moved) < 10


def test_a_fold_is_refused():
    with pytest.raises(RunError, match="a deformation folds: its smallest Jacobian determinant is"):
        draw_warp(np.random.default_rng(0), LOW, HIGH, WarpModel(components=((4.0, 30.0),), squarings=0))


def test_a_mirror_counts_as_a_fold():
    displacement = np.zeros((3, 4, 5, 6))
    assert min_jacobian(displacement, 2.0) == pytest.approx(1.0)
    grid = 2.0 * np.indices((4, 5, 6), dtype=float)
    displacement[0] = -2 * grid[0]
    assert min_jacobian(displacement, 2.0) == pytest.approx(-1.0)
    displacement = np.stack([0.5 * grid[0], 0 * grid[1], -0.25 * grid[2]])
    assert min_jacobian(displacement, 2.0) == pytest.approx(1.5 * 0.75)
    displacement[1, 2, 3, 4] = 5.0  # one point past its neighbour
    assert min_jacobian(displacement, 2.0) < 0


def test_the_flow_of_a_constant_velocity_is_a_shift():
    velocity = np.ones((3, 5, 6, 7)) * np.array([1.0, -2.0, 0.5]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(exponentiate(velocity, 4.0, 5), velocity)


def test_the_flow_of_a_linear_velocity_is_the_matrix_exponential():
    rate, grid_mm = -0.4, 2.0
    x = grid_mm * (np.indices((21, 5, 5), dtype=float)[0] - 10)
    velocity = np.stack([rate * x, 0 * x, 0 * x])
    displacement = exponentiate(velocity, grid_mm, 10)
    np.testing.assert_allclose(displacement[0], (np.exp(rate) - 1) * x, atol=0.01)


def test_following_the_velocity_back_undoes_the_flow():
    rng = np.random.default_rng(0)
    velocity = smooth_noise(rng, (24, 24, 24), 5.0, 3.0)
    forth, back = (exponentiate(sign * velocity, 4.0, 6) for sign in (1, -1))
    middle = (slice(None), *[slice(6, -6)] * 3)
    there = np.indices((24, 24, 24))[middle].reshape(3, -1)
    at = there + forth[middle].reshape(3, -1) / 4.0
    returned = np.stack([ndimage.map_coordinates(part, at, order=1) for part in back])
    left = returned + forth[middle].reshape(3, -1)
    assert np.abs(left).max() < 0.15 * np.abs(forth).max()


def test_noise_has_the_standard_deviation_that_was_asked_for():
    noise = smooth_noise(np.random.default_rng(0), (60, 60, 60), 2.0, 3.0)
    assert noise.std() == pytest.approx(3.0, rel=0.05)


def test_the_seed_decides():
    points = np.zeros((3, 1))
    one, same, other = (draw_warp(np.random.default_rng(seed), LOW, HIGH, WarpModel())(points) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1
