"""Affine and elastic deformation of label maps and images, with cornucopia's parameters."""

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from metasynth.synthesis.splines import spline_field


def affine_matrices(
    translations: Tensor, rotations: Tensor, shears: Tensor, zooms: Tensor, shape: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Where each voxel of the output lies in the input: x -> linear x + offset, about the centre of the field of view.

    Parameters
    ----------
    translations : Tensor (B, D)
        As fractions of the field of view.
    rotations, shears : Tensor (B, D (D - 1) / 2)
        Per plane (0, 1), (0, 2), (1, 2); angles in degrees.
    zooms : Tensor (B, D)
        Minus 1.
    shape : sequence of int
        Voxels along the D axes.

    Returns
    -------
    linear : Tensor (B, D, D)
        Rotation after shear after zoom. In 3D, shears are applied together; cornucopia's, one after the other,
        agree to first order.
    offset : Tensor (B, D)
        In voxels.
    """
    ndim = len(shape)
    size = torch.tensor(shape, dtype=translations.dtype, device=translations.device)
    identity = torch.eye(ndim, dtype=translations.dtype, device=translations.device)
    linear = torch.diag_embed(1 + zooms)
    sheared = identity.repeat(len(linear), 1, 1)
    for plane, (i, j) in enumerate(combinations(range(ndim), 2)):
        sheared[:, i, j] = sheared[:, j, i] = shears[:, plane]
    linear = sheared @ linear
    for plane, (i, j) in enumerate(combinations(range(ndim), 2)):
        angle = rotations[:, plane] * (math.pi / 180)
        rotation = identity.repeat(len(linear), 1, 1)
        rotation[:, i, i] = rotation[:, j, j] = angle.cos()
        rotation[:, i, j] = angle.sin()
        rotation[:, j, i] = -angle.sin()
        linear = rotation @ linear
    centre = (size - 1) / 2
    return linear, centre - (linear * centre).sum(-1) + translations * size


def warped(
    labels: Tensor,
    linear: Tensor,
    offset: Tensor,
    controls: Tensor | None,
    nodes: Tensor,
    order: int,
    window: Sequence[slice] | None = None,
) -> Tensor:
    """Label maps at deformed coordinates: the nearest label; beyond the edge, that of the edge.

    Parameters
    ----------
    labels : Tensor (B, *S) int64
        Class indices.
    linear, offset : Tensor (B, D, D), (B, D)
        From `affine_matrices`.
    controls : Tensor (B, D, *N) or None
        Displacements at the control points, in voxels; of each axis the first `nodes` count. They span the field of
        view from centre to centre of its outer voxels, are looked up at the affinely mapped coordinates, and are 0
        beyond.
    nodes : Tensor (B, D) int64
        Control points along each axis.
    order : int
        Of the spline between them.
    window : sequence of slice, or None
        The voxels of the output that are wanted along each axis; None: all.

    Returns
    -------
    labels : Tensor (B, *S) int64
        Of a window its shape stands for S.
    """
    return nearest(labels, positions(linear, offset, controls, nodes, order, labels.shape[1:], window))


def positions(
    linear: Tensor,
    offset: Tensor,
    controls: Tensor | None,
    nodes: Tensor,
    order: int,
    shape: Sequence[int],
    window: Sequence[slice] | None = None,
) -> list[Tensor]:
    """Where each voxel of the output lies in the input, in voxels: D tensors (B, *S); parameters as of `warped`."""
    seen = shape
    if window is not None:
        start = torch.tensor([part.start for part in window], dtype=offset.dtype, device=offset.device)
        offset = offset + (linear * start).sum(-1)
        seen = [part.stop - part.start for part in window]
    at = [mapped(linear[:, d], offset[:, d], seen) for d in range(len(shape))]
    if controls is not None:
        shifts = _displacement(controls, linear, offset, nodes, order, shape, seen)
        for position, shift in zip(at, shifts.unbind(1), strict=True):
            position += shift
    return at


def nearest(labels: Tensor, at: Sequence[Tensor]) -> Tensor:
    """Labels (B, *S) at `positions` of any shape, which are used up: the nearest; beyond the edge, that of the edge."""
    shape = labels.shape[1:]
    # Whole numbers are exact in float32 up to 2^24.
    exact = torch.float32 if math.prod(shape) <= 2**24 else torch.float64
    index = torch.zeros((), dtype=exact, device=labels.device)
    for position, size in zip(at, shape, strict=True):
        near = position.add_(0.5).floor_().clamp_(0, size - 1)
        index = torch.add(near, index, alpha=size) if index.ndim else near.to(exact)
    return labels.flatten(1).gather(1, index.flatten(1).long()).reshape(index.shape)


def interpolated(images: Tensor, at: Sequence[Tensor]) -> Tensor:
    """Images (B, *S) at `positions` of any shape, linear between voxels; beyond the edge, the value of the edge."""
    scales = [2 / max(1, size - 1) for size in images.shape[1:]]
    grid = torch.stack([position * scale - 1 for position, scale in zip(at, scales, strict=True)][::-1], dim=-1)
    return F.grid_sample(images[:, None], grid, mode="bilinear", padding_mode="border", align_corners=True)[:, 0]


def mapped(row: Tensor, offset: Tensor, shape: Sequence[int], out: Tensor | None = None) -> Tensor:
    """The sum row . x + offset at every voxel x of `shape`, (B, *S), from row (B, D) and offset (B,)."""
    ndim = len(shape)
    total = offset.reshape(-1, *(1,) * ndim)
    for d, size in enumerate(shape):
        axis = torch.arange(size, dtype=row.dtype, device=row.device)
        step = (row[:, d, None] * axis).reshape(-1, *(size if e == d else 1 for e in range(ndim)))
        total = torch.add(total, step, out=out if d == ndim - 1 else None)
    return total


def _displacement(
    controls: Tensor,
    linear: Tensor,
    offset: Tensor,
    nodes: Tensor,
    order: int,
    shape: Sequence[int],
    seen: Sequence[int],
) -> Tensor:
    """Displacements (B, D, *seen) at the affinely mapped coordinates of the first ``seen`` voxels."""
    ndim = len(shape)
    if order > 1:
        # The spline is evaluated at the voxels and interpolated linearly between them: control points are so much
        # further apart that no displacement changes by more than hundredths of a voxel.
        controls = torch.stack(
            [
                torch.stack([spline_field(part[_first(counts)], shape, order, repeat_edge=False) for part in own])
                for own, counts in zip(controls, nodes.tolist(), strict=True)
            ]
        )
        scale = torch.ones_like(offset)
    else:
        # Points that do not count are 0, as is what lies beyond the last: one array of the largest size serves all.
        kept = torch.ones((), dtype=torch.bool, device=controls.device)
        for d, most in enumerate(controls.shape[2:]):
            inside = torch.arange(most, device=controls.device) < nodes[:, d, None]
            kept = kept & inside.reshape(-1, 1, *(most if e == d else 1 for e in range(ndim)))
        controls = controls * kept
        size = torch.tensor(shape, dtype=offset.dtype, device=offset.device)
        scale = (nodes - 1) / (size - 1).clamp(min=1)
    grid = torch.empty(len(controls), *seen, ndim, dtype=controls.dtype, device=controls.device)
    for d, most in enumerate(controls.shape[2:]):
        factor = scale[:, d] * (2 / max(1, most - 1))
        mapped(linear[:, d] * factor[:, None], offset[:, d] * factor - 1, seen, out=grid[..., ndim - 1 - d])
    return F.grid_sample(controls, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def _first(counts: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(count) for count in counts)
