"""Smooth fields: B-splines on control points that span the field of view."""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from metasynth.synthesis.smoothing import along_axes


def spline_field(
    points: Tensor, shape: Sequence[int], order: int, repeat_edge: bool, window: Sequence[slice] | None = None
) -> Tensor:
    """The sum of B-splines with coefficients `points`, at voxels of `shape`; the splines are evaluated, not fitted.

    The outer control points lie at the centres of the outer voxels.

    Parameters
    ----------
    points : Tensor (*N)
        Coefficients.
    shape : sequence of int
        Voxels along each axis.
    order : int
        1 (linear) to 7.
    repeat_edge : bool
        Whether the points beyond the outer ones are as those, or 0.
    window : sequence of slice, or None
        The voxels that are wanted along each axis; None: all.

    Returns
    -------
    field : Tensor (*shape)
        Of a window its shape.
    """
    return along_axes(
        points,
        [
            spline_matrix(count, size, order, repeat_edge, points.device)[part]
            for count, size, part in zip(points.shape, shape, window or [slice(None)] * len(shape), strict=True)
        ],
    )


@lru_cache(maxsize=512)
def spline_matrix(count: int, size: int, order: int, repeat_edge: bool, device: torch.device) -> Tensor:
    """Weight of each of `count` points at each of `size` voxels, (size, count); see `spline_field`."""
    voxels = torch.linspace(0, count - 1, size, dtype=torch.float64)
    beyond = (order + 1) // 2 if repeat_edge else 0
    points = torch.arange(-beyond, count + beyond)
    matrix = torch.zeros(size, count, dtype=torch.float64)
    matrix.index_add_(1, points.clamp(0, count - 1), _b_spline(voxels[:, None] - points, order))
    return matrix.to(device, torch.float32)


def _b_spline(x: Tensor, order: int) -> Tensor:
    """The centred cardinal B-spline: sum_k (-1)^k C(n + 1, k) max(0, x + (n + 1) / 2 - k)^n / n!."""
    half = (order + 1) / 2
    total = torch.zeros_like(x)
    for k in range(order + 2):
        total += (-1) ** k * math.comb(order + 1, k) * (x + half - k).clamp(min=0) ** order
    return total / math.factorial(order)
