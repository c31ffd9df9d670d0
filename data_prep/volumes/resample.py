"""Putting images and classes on another grid: images are interpolated, classes are voted for, never blurred."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from metasynth.data_prep.volumes.volumes import Volume
from numpy.typing import NDArray
from scipy import ndimage

from metasynth.errors import DataError, UsageError
from metasynth.sizes import require_memory
from metasynth.text import by

Interpolation = Literal["majority", "nearest"]
BEYOND = 1e300
SAME_SPACING = 1e-3  # relative difference that needs no resampling
_BYTES = 12  # a voxel takes while it is resampled


@dataclass(frozen=True)
class Grid:
    """Where the voxels of an output lie: shape (X, Y, Z) and affine (4, 4) to mm."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    @property
    def spacing(self) -> NDArray[np.float64]:
        """(3,) mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


def grid_of(volume: Volume) -> Grid:
    """The volume's own grid."""
    x, y, z = volume.data.shape
    return Grid((x, y, z), volume.affine)


def count_along(length: float, spacing: float) -> float:
    """Steps of ``spacing`` along a length, where an overflow is cut."""
    return min(length / spacing, BEYOND)


def roughly(numbers: Iterable[float]) -> str:
    """The same as `metasynth.text.by` with some six digits of each, for sizes that may be of any length."""
    return by(float(min(n, BEYOND)) for n in numbers)


def require_grid(shape: Sequence[int], spacing_mm: Sequence[float]) -> None:
    """UsageError if classes, with the share of the voxels that is voted on, cannot be held on a grid of that shape."""
    require_memory(_BYTES * math.prod(shape), f"a grid of {roughly(shape)} voxels", f"--spacing {roughly(spacing_mm)}")


def require_field(volume: Volume, spacing_mm: Sequence[float]) -> None:
    """DataError where the volume's whole field is less than one voxel of that spacing."""
    field = volume.spacing * volume.data.shape
    if (np.asarray(spacing_mm) > field * (1 + SAME_SPACING)).any():
        raise DataError(f"{volume.where}: --spacing {roughly(spacing_mm)}: the whole field is {roughly(field)} mm")


def has_spacing(volume: Volume, spacing_mm: tuple[float, float, float]) -> bool:
    """Whether the volume has this spacing already."""
    return bool(np.allclose(volume.spacing, spacing_mm, rtol=SAME_SPACING, atol=0.0))


def grid_with_spacing(volume: Volume, spacing_mm: tuple[float, float, float]) -> Grid:
    """The grid of that spacing which covers the volume's field, with its axes and its centre.

    Raises
    ------
    DataError
        The memory cannot hold it.
    """
    wanted = np.asarray(spacing_mm, dtype=float)
    field = volume.spacing * volume.data.shape
    shape = tuple(math.ceil(count_along(f, w) - 1e-6) for f, w in zip(field.tolist(), spacing_mm, strict=True))
    require_room(shape, spacing_mm, volume.where)
    affine = np.eye(4)
    affine[:3, :3] = volume.affine[:3, :3] / volume.spacing * wanted
    centre = volume.affine[:3, :3] @ ((np.array(volume.data.shape) - 1) / 2) + volume.affine[:3, 3]
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid((shape[0], shape[1], shape[2]), affine)


def require_room(shape: tuple[int, ...], spacing_mm: Sequence[float], where: str) -> None:
    """`require_grid` for one file, whatever wants it there; others may be smaller, so it is a `DataError`."""
    try:
        require_memory(
            _BYTES * math.prod(shape), f"a grid of {roughly(shape)} voxels of {roughly(spacing_mm)} mm", where
        )
    except UsageError as error:
        raise DataError(str(error)) from error


def to_source(source: Volume, target: Grid, world: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """(4, 4) matrix from voxels of the target to voxels of the source; `world` maps the source's mm to its."""
    between = np.eye(4) if world is None else np.linalg.inv(world)
    return np.linalg.inv(source.affine) @ between @ target.affine


def resample_image(data: NDArray[np.float32], matrix: NDArray[np.float64], grid: Grid) -> NDArray[np.float32]:
    """Linear interpolation (X, Y, Z) at `matrix` (4, 4) times the grid's voxels, after smoothing where that is coarser.

    Sampling coarser than the source needs the detail between the samples averaged: the Gaussian's full width at
    half maximum takes the source's spacing to the grid's. Outside the source the value is 0.
    """
    smooth = ndimage.gaussian_filter(data, _sigma(matrix), mode="constant", truncate=3.0)
    return _sample(smooth, matrix, grid, 1, 0.0)


def resample_classes(
    classes: NDArray[np.uint8], matrix: NDArray[np.float64], grid: Grid, how: Interpolation = "majority"
) -> NDArray[np.uint8]:
    """Classes (X, Y, Z) on another grid, see `resample_image` for the arguments.

    "majority": every class's indicator is smoothed and interpolated like an image, and the largest wins (of equals
    the lower class). "nearest": the class of the nearest voxel. Outside the source there is background.
    """
    if how == "nearest":
        return _sample(classes, matrix, grid, 0, 0)
    sigma = _sigma(matrix)
    box = _box(classes > 0, margin=2 + int(np.ceil(3 * sigma.max())))
    inside = classes[box]
    matrix = _shifted(matrix, box)
    out = np.zeros(grid.shape, dtype=np.uint8)
    best = _vote(inside == 0, sigma, matrix, grid, 1.0)
    for k in np.unique(inside[inside > 0]):
        share = _vote(inside == k, sigma, matrix, grid, 0.0)
        wins = share > best
        out[wins] = k
        best[wins] = share[wins]
    return out


def resample_structures(
    structures: NDArray[np.uint8],
    target: Sequence[int],
    matrix: NDArray[np.float64],
    grid: Grid,
    how: Interpolation = "majority",
) -> NDArray[np.uint8]:
    """Structures (X, Y, Z), of which ``target`` are the classes, on another grid, see `resample_classes`.

    A voxel has the class that it has without structures. "majority": of the structures of that class the one with the
    largest share; a voxel with more of two nuclei than of white matter is one of the nuclei, though white matter has
    more of it than either.
    """
    if how == "nearest":
        return _sample(structures, matrix, grid, 0, 0)
    table = np.asarray(target, dtype=np.uint8)
    classes, sigma = resample_classes(table[structures], matrix, grid), _sigma(matrix)
    box = _box(structures > 0, margin=2 + int(np.ceil(3 * sigma.max())))
    inside, matrix = structures[box], _shifted(matrix, box)
    present = np.flatnonzero(np.bincount(inside.ravel(), minlength=len(table)))
    out = np.zeros(grid.shape, dtype=np.uint8)
    for k in np.unique(classes):
        here = classes == k
        own = present[table[present] == k] if k else np.union1d(present[table[present] == 0], [0])
        out[here], best = own[0], np.full(grid.shape, -1.0, dtype=np.float32)
        for g in own if len(own) > 1 else ():
            share = _vote(inside == g, sigma, matrix, grid, float(g == 0))
            wins = here & (share > best)
            out[wins] = g
            best[wins] = share[wins]
    return out


def resample_ids(labels: Volume, grid: Grid) -> NDArray[np.int64]:
    """Ids of the nearest voxels on another grid, exact whatever their size; 0 outside."""
    matrix = to_source(labels, grid)
    at = np.indices(grid.shape, dtype=np.float32).reshape(3, -1)
    with np.errstate(over="ignore", invalid="ignore"):  # of voxels that lie anywhere
        at = np.rint(matrix[:3, :3].astype(np.float32) @ at + matrix[:3, 3:].astype(np.float32))
    inside = ((at >= 0) & (at < np.array(labels.data.shape)[:, None])).all(axis=0)
    out = np.zeros(at.shape[1], dtype=np.int64)
    out[inside] = labels.data[tuple(at[:, inside].astype(np.int32))]
    return out.reshape(grid.shape)


def resample_mask(mask: NDArray[np.bool_], matrix: NDArray[np.float64], grid: Grid) -> NDArray[np.bool_]:
    """A mask (X, Y, Z) on another grid: where it covers half of a voxel or more."""
    return resample_classes(mask.astype(np.uint8), matrix, grid) > 0


def _vote(
    mask: NDArray[np.bool_], sigma: NDArray[np.float64], matrix: NDArray[np.float64], grid: Grid, outside: float
) -> NDArray[np.float32]:
    """Share of every voxel that the mask covers; `outside` beyond the field."""
    share = ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="nearest", truncate=3.0)
    return _sample(share, matrix, grid, 1, outside)


def _sample(data: NDArray, matrix: NDArray[np.float64], grid: Grid, order: int, outside: float) -> NDArray:
    return ndimage.affine_transform(
        data, matrix[:3, :3], matrix[:3, 3], output_shape=grid.shape, order=order, cval=outside, prefilter=False
    )


def _sigma(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) standard deviation in source voxels; the step along a source axis is that of its nearest target axis."""
    step = np.abs(matrix[:3, :3]).max(axis=1)
    return np.sqrt(np.maximum(step**2 - 1.0, 0.0)) / 2.355


def _box(mask: NDArray[np.bool_], margin: int) -> tuple[slice, slice, slice]:
    """The box around a mask with a margin, within the array; the whole array where the mask is empty."""
    parts = []
    for axis in range(3):
        at = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        ends = (at[0], at[-1]) if at.size else (0, mask.shape[axis] - 1)
        parts.append(slice(max(0, int(ends[0]) - margin), min(mask.shape[axis], int(ends[1]) + margin + 1)))
    return parts[0], parts[1], parts[2]


def _shifted(matrix: NDArray[np.float64], box: tuple[slice, slice, slice]) -> NDArray[np.float64]:
    """The matrix into a part of its source."""
    shifted = matrix.copy()
    shifted[:3, 3] -= [part.start for part in box]
    return shifted
