from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.atlas_phantom import atlas, brain

from metasynth.segment.atlas.registration import register
from metasynth.segment.atlas.segmenter import Stiffness
from metasynth.segment.atlas.warp import Frame, Warp, spline_weights

ZERO = torch.zeros(1, dtype=torch.float64)


def frame(shape: tuple[int, ...], control_mm: float = 6.0) -> Frame:
    half = torch.zeros(len(shape), dtype=torch.float64)
    return Frame.of(brain(shape), (2.0,) * len(shape), control_mm, None, half + 1.5)


@given(n=st.integers(1, 40), cells=st.integers(1, 12))
def test_splines_add_to_one_and_reproduce_lines(n: int, cells: int) -> None:
    weights = spline_weights(n, cells, ZERO)
    assert weights.shape == (n, cells + 3)
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-12)
    line = weights @ (torch.arange(cells + 3).double() - 1)
    np.testing.assert_allclose(line, np.arange(n) * cells / max(n - 1, 1), atol=1e-10)


@pytest.mark.parametrize("shape", [(21, 16), (13, 12, 10), (1, 12, 10)])
def test_energy_of_shifts_and_stretches(shape: tuple[int, ...]) -> None:
    at = frame(shape)
    still = at.still()
    np.testing.assert_array_equal(at.energy(still.control + 3.0), [0.0, 0.0])
    ramp = torch.arange(still.control.shape[-1]).double() * at.control_mm[-1]
    stretched = still.control.clone()
    stretched[-1] += 0.1 * ramp  # u = 0.1 x along the last axis
    membrane, bending = at.energy(stretched)
    edges = np.prod(stretched.shape[1:-1]) * (stretched.shape[-1] - 1)
    assert float(membrane) == pytest.approx(0.5 * 0.1**2 * edges * at.voxels_per_control, rel=1e-9)
    assert float(bending) == pytest.approx(0.0, abs=1e-20)
    slope = at.displacement(stretched)[-1].diff(dim=-1)
    np.testing.assert_allclose(slope, 0.1 * 2.0, atol=1e-10)


def test_a_linear_map_turns_about_the_centre() -> None:
    at = frame((21, 16))
    generator = torch.tensor([[0.0, -0.5], [0.5, 0.0]], dtype=torch.float64)
    warp = Warp(generator, torch.tensor([1.0, -2.0], dtype=torch.float64), at.still().control)
    matrix = warp.matrix()
    np.testing.assert_allclose(matrix, [[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]], atol=1e-12)
    np.testing.assert_allclose(at(warp).mean(0), at.atlas_centre + warp.shift, atol=1e-10)
    lengths = [(points - points.mean(0)).norm(dim=1) for points in (at.points, at(warp))]
    np.testing.assert_allclose(lengths[0], lengths[1], atol=1e-10)


@settings(max_examples=15)
@given(kind=st.sampled_from(["rigid", "affine", "deformable"]), seed=st.integers(0, 999), steps=st.integers(1, 6))
def test_registration_never_loses(kind: str, seed: int, steps: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    prior, at = atlas((14, 12)), frame((14, 12))
    likelihoods = torch.rand(5, len(at.points), dtype=torch.float64, generator=generator) + 0.01
    proportions = torch.rand(5, dtype=torch.float64, generator=generator) + 0.1
    start = replace(at.still(), control=torch.randn(at.still().control.shape, dtype=torch.float64, generator=generator))
    cost = Stiffness(0.01, 0.1)

    def gain(warp: Warp) -> float:
        expected = prior.at(at(warp)) * proportions[:, None]
        evidence = (expected * likelihoods).sum(0).log() - expected.sum(0).log()
        return float(evidence.sum() - cost.of(at.energy(warp.control)))

    found = register(prior, at, likelihoods, proportions, start, kind, cost, steps)
    assert gain(found) >= gain(start) - 1e-9
    if kind == "deformable":
        assert torch.equal(found.generator, start.generator)
        assert gain(found) > gain(start)
    else:
        assert torch.equal(found.control, start.control)
    if kind == "rigid":
        np.testing.assert_allclose(found.matrix() @ found.matrix().T, np.eye(2), atol=1e-12)
