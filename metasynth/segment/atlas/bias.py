"""A smooth bias field as a sum of cosines, fitted in closed form (Van Leemput et al. 1999, on a DCT basis).

The logarithm of the field is b(x) = sum_j c_j prod_a cos(pi j_a (x_a + 1/2) / n_a) over all orders j but the constant,
which the means of the mixture take up. x counts voxels in the box around the mask; beyond it the field goes on as at
its edge.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from metasynth.segment.atlas.mixture import Mixture


@final
@dataclass(frozen=True, eq=False)
class CosineField:
    """The basis, at all voxels of an image, and what a field of it costs.

    Attributes
    ----------
    axes : tuple of Tensor (n_a, m_a)
        Cosines along each axis.
    stiffness : Tensor (m_1 ... m_d,)
        Penalty of each squared coefficient; the constant's is infinite.
    mask : Tensor (*S) bool
        Voxels that are fitted, P of them.
    """

    axes: tuple[Tensor, ...]
    stiffness: Tensor
    mask: Tensor

    @classmethod
    def of(
        cls, mask: Tensor, spacing: tuple[float, ...], cutoff_mm: float, stiffness: float, like: Tensor
    ) -> "CosineField":
        """The basis for an image.

        Parameters
        ----------
        mask : Tensor (*S) bool
            Voxels that are fitted, P of them.
        spacing : tuple of float
            Voxel size in mm.
        cutoff_mm : float
            Shortest wavelength. An axis of length L has 1 + floor(2 L / cutoff) cosines, at most one a voxel.
        stiffness : float
            The penalty of a coefficient c_j is P stiffness / 2 |f_j|^4 c_j^2, f_j being the frequency relative to that
            of the cutoff: the bending energy of the field.
        like : Tensor
            Has the device and dtype wanted.
        """
        boxes = [_extent(mask, axis) for axis in range(mask.ndim)]
        lengths = [(stop - start) * s for (start, stop), s in zip(boxes, spacing, strict=True)]
        most = [math.floor(2 * length / cutoff_mm + 1e-9) for length in lengths]
        orders = [
            torch.arange(1 + min(m, stop - start - 1)).to(like) for m, (start, stop) in zip(most, boxes, strict=True)
        ]
        axes = tuple(
            torch.cos(math.pi / (stop - start) * (_clamped(n, start, stop).to(like)[:, None] + 0.5) * order)
            for n, (start, stop), order in zip(mask.shape, boxes, orders, strict=True)
        )
        frequencies = torch.meshgrid(
            *[(order * cutoff_mm / (2 * length)).square() for order, length in zip(orders, lengths, strict=True)],
            indexing="ij",
        )
        bending = torch.stack(frequencies).sum(0).square().reshape(-1)
        penalty = float(mask.sum()) * stiffness * bending
        penalty[0] = math.inf
        return cls(axes, penalty, mask)

    def none(self) -> Tensor:
        """Coefficients (M,) of no field."""
        return torch.zeros_like(self.stiffness)

    def everywhere(self, coefficients: Tensor) -> Tensor:
        """The logarithm of the field, (*S)."""
        field = coefficients.reshape([axis.shape[1] for axis in self.axes])
        for axis in self.axes:
            field = torch.tensordot(field, axis, dims=([0], [1]))  # the new axis comes last, so all have their turn
        return field

    def __call__(self, coefficients: Tensor) -> Tensor:
        """The logarithm of the field at the voxels of the mask, (P,)."""
        return self.everywhere(coefficients)[self.mask]

    def penalty(self, coefficients: Tensor) -> Tensor:
        """What the field costs in units of log-likelihood, ()."""
        return 0.5 * (self.stiffness[1:] * coefficients[1:].square()).sum(dtype=torch.float64)

    def fitted(self, mixture: Mixture, values: Tensor, posterior: Tensor) -> Tensor:
        """The M-step of the field: coefficients (M,) that maximise the penalised bound at this mixture.

        With r_g the posterior, W = sum_g r_g / v_g and the residual e = y - (sum_g r_g mu_g / v_g) / W, they solve
        the weighted least squares (A' diag(W) A + diag(stiffness)) c = A' W e.

        Parameters
        ----------
        mixture : Mixture
            Its means and variances.
        values : Tensor (P,)
            Log intensities, bias included.
        posterior : Tensor (G, P)
            The E-step's posterior.
        """
        if len(self.stiffness) == 1:
            return self.none()
        precision = 1 / mixture.variances
        weight = precision @ posterior
        weighted = weight * values - (precision * mixture.means) @ posterior
        pairs = [(axis[:, :, None] * axis[:, None, :]).flatten(1) for axis in self.axes]
        normal = self._summed(weight, pairs)
        counts = [axis.shape[1] for axis in self.axes]
        split = normal.reshape([n for count in counts for n in (count, count)])
        ndim = len(counts)
        order = [*range(0, 2 * ndim, 2), *range(1, 2 * ndim, 2)]
        matrix = split.permute(order).reshape(len(self.stiffness), -1).double()[1:, 1:]
        right = self._summed(weighted, list(self.axes)).reshape(-1).double()[1:]
        solved = torch.linalg.solve(matrix + torch.diag(self.stiffness[1:].double()), right)
        return torch.cat([solved.new_zeros(1), solved]).to(values)

    def _summed(self, weights: Tensor, factors: list[Tensor]) -> Tensor:
        """sum_x w(x) prod_a f_a(x_a), for weights (P,) in the mask and factors (n_a, m_a): (m_1, ..., m_d)."""
        total = torch.zeros(self.mask.shape).to(weights)
        total[self.mask] = weights
        for factor in factors:
            total = torch.tensordot(total, factor, dims=([0], [0]))
        return total


def _clamped(n: int, start: int, stop: int) -> Tensor:
    """Indices 0..n-1 counted from `start`, those beyond start..stop-1 as at its ends, (n,)."""
    return torch.arange(n).clamp(start, stop - 1) - start


def _extent(mask: Tensor, axis: int) -> tuple[int, int]:
    """First and last-plus-one index along an axis of what is in the mask."""
    at = mask.movedim(axis, 0).flatten(1).any(1).nonzero()
    return int(at[0]), int(at[-1]) + 1
