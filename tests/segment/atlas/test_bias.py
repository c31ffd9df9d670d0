import itertools
import math

import numpy as np
import pytest
import torch

from metasynth.segment.atlas.bias import CosineField
from metasynth.segment.atlas.mixture import Mixture


def disc(shape: tuple[int, ...]) -> torch.Tensor:
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij")
    return sum(axis.square() for axis in axes) < 0.8


def basis(mask: torch.Tensor, counts: tuple[int, ...]) -> np.ndarray:
    """Every product of cosines at every voxel of the mask, written out: (P, M)."""
    at = mask.nonzero().numpy()
    low, high = at.min(0), at.max(0) + 1
    columns = [
        np.prod([np.cos(math.pi * j * (at[:, a] - low[a] + 0.5) / (high[a] - low[a])) for a, j in enumerate(orders)], 0)
        for orders in itertools.product(*[range(n) for n in counts])
    ]
    return np.stack(columns, 1)


@pytest.mark.parametrize(("shape", "spacing"), [((17, 14), (2.0, 3.0)), ((9, 8, 11), (2.0, 2.0, 1.5))])
def test_closed_form_is_the_weighted_least_squares(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    mask, cutoff, stiffness = disc(shape), 14.0, 0.02
    field = CosineField.of(mask, spacing, cutoff, stiffness, torch.zeros(1, dtype=torch.float64))
    voxels, gaussians = int(mask.sum()), 3

    def draw(*n: int) -> torch.Tensor:
        return 0.01 + torch.rand(*n, dtype=torch.float64, generator=generator)

    values, posterior = draw(voxels), draw(gaussians, voxels)
    posterior /= posterior.sum(0)
    mixture = Mixture(draw(gaussians), draw(gaussians), draw(gaussians), torch.arange(gaussians), draw(gaussians))
    found = field.fitted(mixture, values, posterior)

    extent = mask.nonzero().amax(0) + 1 - mask.nonzero().amin(0)
    lengths = [int(n) * s for n, s in zip(extent, spacing, strict=True)]
    counts = tuple(1 + math.floor(2 * length / cutoff) for length in lengths)
    matrix = basis(mask, counts)
    orders = np.array(list(itertools.product(*[range(n) for n in counts])))
    frequency = ((orders * cutoff / (2 * np.array(lengths))) ** 2).sum(1)
    # Every voxel once for every Gaussian, and a row for every coefficient's penalty.
    root = (posterior / mixture.variances[:, None]).sqrt().numpy()
    rows = [weight[:, None] * matrix[:, 1:] for weight in root]
    right = [weight * (values - mean).numpy() for weight, mean in zip(root, mixture.means, strict=True)]
    rows.append(np.diag(np.sqrt(voxels * stiffness) * frequency[1:]))
    expected = np.linalg.lstsq(np.concatenate(rows), np.concatenate([*right, np.zeros(len(orders) - 1)]), rcond=None)[0]
    assert matrix.shape[1] > 8
    np.testing.assert_allclose(found[1:], expected, rtol=1e-8, atol=1e-10)
    assert found[0] == 0
    np.testing.assert_allclose(field(found), matrix[:, 1:] @ expected, atol=1e-9)
    cost = 0.5 * voxels * stiffness * (frequency[1:] ** 2 * expected**2).sum()
    assert float(field.penalty(found)) == pytest.approx(cost, rel=1e-8)


def test_a_known_field_is_recovered_and_goes_on_as_at_the_edge() -> None:
    mask = disc((24, 20))
    field = CosineField.of(mask, (2.0, 2.0), 30.0, 0.0, torch.zeros(1, dtype=torch.float64))
    truth = torch.linspace(-0.3, 0.3, len(field.stiffness), dtype=torch.float64)
    truth[0] = 0
    one = torch.ones(1, dtype=torch.float64)
    mixture = Mixture(one, one, one, torch.zeros(1, dtype=torch.int64), one)
    found = field.fitted(mixture, 1 + field(truth), torch.ones(1, int(mask.sum()), dtype=torch.float64))
    np.testing.assert_allclose(found, truth, atol=1e-10)
    everywhere = field.everywhere(found)
    first = int(mask.any(1).nonzero()[0])
    assert first > 0
    np.testing.assert_array_equal(everywhere[0], everywhere[first])


def test_a_long_cutoff_means_no_field() -> None:
    field = CosineField.of(disc((12, 12)), (1.0, 1.0), 100.0, 0.1, torch.zeros(1))
    assert field.none().shape == (1,)
    mixture = Mixture(*[torch.ones(1)] * 3, torch.zeros(1, dtype=torch.int64), torch.ones(1))
    voxels = int(field.mask.sum())
    assert field.fitted(mixture, torch.rand(voxels), torch.ones(1, voxels)).tolist() == [0.0]
