import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch import Tensor

from metasynth.segment.atlas.bias import CosineField
from metasynth.segment.atlas.mixture import Mixture, initial_mixture, responsibilities, updated


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def problem(seed: int, voxels: int = 60) -> tuple[Mixture, Tensor, Tensor]:
    """A mixture of three classes with four Gaussians, values (P,) and a prior (K, P), at random."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, dtype=torch.float64, generator=generator)

    weights = draw(4)
    weights[1:3] /= weights[1:3].sum()
    weights[[0, 3]] = 1
    mixture = Mixture(4 * draw(4) - 2, 0.1 + draw(4), weights, torch.tensor([0, 1, 1, 2]), 0.3 + draw(3))
    prior = draw(3, voxels) + 0.01
    return mixture, 4 * draw(voxels) - 2, prior / prior.sum(0)


def test_e_step_against_every_voxel_by_hand() -> None:
    mixture, values, prior = problem(0)
    posterior, evidence = responsibilities(mixture, values, prior)
    total = 0.0
    for i, y in enumerate(values.tolist()):
        rho = (mixture.proportions * prior[:, i]) / (mixture.proportions * prior[:, i]).sum()
        joint = [
            float(rho[k]) * float(w) * norm.pdf(y, float(m), math.sqrt(v))
            for m, v, w, k in zip(mixture.means, mixture.variances, mixture.weights, mixture.classes, strict=True)
        ]
        np.testing.assert_allclose(posterior[:, i], np.array(joint) / sum(joint), rtol=1e-10, atol=1e-30)
        total += math.log(sum(joint))
    assert float(evidence) == pytest.approx(total, rel=1e-12)
    densities = mixture.class_likelihoods(values)
    ratio = densities[1] / densities[0]
    expected = mixture.log_densities(values).exp()
    np.testing.assert_allclose(ratio, (expected[1] + expected[2]) / expected[0], rtol=1e-10)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), least=st.sampled_from([1e-6, 0.05, 0.5]), rate=st.booleans())
def test_em_never_lowers_the_penalised_likelihood(seed: int, least: float, rate: bool) -> None:
    mixture, values, prior = problem(seed, 6 * 7)
    mask = torch.ones(6, 7, dtype=torch.bool)
    field = CosineField.of(mask, (2.0, 2.0), 8.0, 1e-3, values)
    mixture = Mixture(
        mixture.means, mixture.variances.clamp(min=least), mixture.weights, mixture.classes, mixture.proportions
    )
    coefficients, course = field.none(), []
    for _ in range(25):
        posterior, evidence = responsibilities(mixture, values - field(coefficients), prior)
        course.append(float(evidence - field.penalty(coefficients)))
        mixture = updated(mixture, values - field(coefficients), prior, posterior, least, rate)
        coefficients = field.fitted(mixture, values, posterior)
    assert (np.diff(course) >= -1e-9).all()
    assert course[-1] > course[0] + 0.1
    assert mixture.variances.min() >= least
    np.testing.assert_allclose(torch.zeros(3).double().index_add(0, mixture.classes, mixture.weights), 1.0)


def test_known_gaussians_are_recovered() -> None:
    generator = torch.Generator().manual_seed(3)
    voxels, means, sds = 40_000, double(-1.5, -0.4, 0.3), double(0.3, 0.1, 0.15)
    prior = torch.rand(3, voxels, dtype=torch.float64, generator=generator).square() + 0.02
    prior /= prior.sum(0)
    # There is half as much of the first class as the prior says.
    rated = prior * double(0.5, 1.0, 1.0)[:, None]
    classes = torch.multinomial((rated / rated.sum(0)).T, 1, generator=generator)[:, 0]
    noise = torch.randn(voxels, dtype=torch.float64, generator=generator)
    values = means[classes] + sds[classes] * noise
    mixture = initial_mixture(values, prior, (1, 1, 1), 1e-4)
    for _ in range(100):
        posterior, _ = responsibilities(mixture, values, prior)
        mixture = updated(mixture, values, prior, posterior, 1e-4, True)
    np.testing.assert_allclose(mixture.means, means, atol=0.015)
    np.testing.assert_allclose(mixture.variances.sqrt(), sds, atol=0.015)
    np.testing.assert_allclose(mixture.proportions / mixture.proportions[1], [0.5, 1.0, 1.0], rtol=0.08)


def test_several_gaussians_of_a_class_start_at_its_quantiles() -> None:
    values = torch.linspace(0, 1, 900, dtype=torch.float64)
    mixture = initial_mixture(values, torch.full((2, 900), 0.5).double(), (3, 1), 1e-6)
    assert mixture.classes.tolist() == [0, 0, 0, 1]
    np.testing.assert_allclose(mixture.means, [1 / 6, 1 / 2, 5 / 6, 1 / 2], atol=2e-3)
    np.testing.assert_allclose(mixture.variances, [1 / 108, 1 / 108, 1 / 108, 1 / 12], rtol=1e-2)
    np.testing.assert_allclose(mixture.weights, [1 / 3, 1 / 3, 1 / 3, 1])


def test_a_gaussian_that_explains_nothing_stays() -> None:
    mixture = Mixture(double(0.0, 1e3), double(1.0, 1.0), double(1.0, 1.0), torch.tensor([0, 1]), double(1.0, 1.0))
    values, prior = torch.linspace(-1, 1, 20, dtype=torch.float64), torch.full((2, 20), 0.5).double()
    posterior, _ = responsibilities(mixture, values, prior)
    after = updated(mixture, values, prior, posterior, 1e-4, True)
    assert after.means[1] == 1e3
    assert after.variances[1] == 1.0
    assert all(bool(part.isfinite().all()) for part in (after.means, after.variances, after.weights, after.proportions))
