"""The bias field of a labelled image, found together with the intensities of its structures.

A structure's intensity is not the median of its voxels where the field of the coil is strong: in T1 scans of the head,
deep grey matter is then brighter than white matter is on average, though each is darker than the white matter next to
it, and the texture of white matter is mostly its field.
"""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEGREE = 4
"""Half waves of the field's cosines over the extent of what is labelled, all axes together."""
_PASSES = 20
_CLOSE = 1e-3  # of the logarithm of the field
_NORMAL = 1.4826  # median absolute deviation to standard deviation, of many normal values
_LEAST_SD = 0.01
_HUBER = 2.5  # standard deviations
_CUT = (0.0, 1.0)  # of full scale: what lies beyond is there, and says little of the field
_LEAST_INTENSITY = 0.02  # of a structure
_MOST_VOXELS = 50_000
_VOXELS_A_FUNCTION = 20
_RIDGE = 1e-3  # voxels, of all: what holds functions that the labelled part does not tell apart

Array = NDArray[Any]


def log_field(images: Array, labels: Array, cores: Array) -> Array:
    """The logarithm f of the bias field, of mean 0 over labelled voxels: image = intensity of the structure * exp(f).

    The model is that of Van Leemput et al. (IEEE Transactions on Medical Imaging 18 (1999) 885) with known tissues: an
    intensity m_k of each structure, a field that is smooth, here of cosines up to `DEGREE`, and a variance of each
    structure. The two are fitted in turns, m_k by the median of image / exp(f), and f by Gauss-Newton steps on the
    residual image / (m_k exp(f)) - 1, in which large ones count less (Huber). Residuals of logarithms would be skewed
    where an image is dark and noisy.

    Parameters
    ----------
    images : numpy.ndarray (N, *S)
        Of one person, in [0, 1]; N slices in their order, or one volume.
    labels : numpy.ndarray (N, *S)
        Structures; 0 is background.
    cores : numpy.ndarray (N, *S) bool
        The voxels to look at, such as those without partial volume.

    Returns
    -------
    numpy.ndarray (N, *S) float64
        0 everywhere where there are too few voxels to tell.
    """
    foreground = labels > 0
    where = np.argwhere(foreground)
    usable = np.argwhere(cores & foreground & (images > _CUT[0]) & (images < _CUT[1]))
    usable = usable[:: max(1, -(-len(usable) // _MOST_VOXELS))]
    functions = _functions([n for n in images.shape if n > 1])
    field = np.zeros(images.shape)
    if not functions or len(usable) < _VOXELS_A_FUNCTION * len(functions):
        return field
    axes = [axis for axis, n in enumerate(images.shape) if n > 1]
    extent = where.min(0)[axes], where.max(0)[axes]
    at = tuple(usable.T)
    basis = _cosines(usable[:, axes], extent, functions)
    weights = _fitted(images[at].astype(np.float64), labels[at], basis)
    for piece in np.array_split(where, -(-len(where) // _MOST_VOXELS)):
        field[tuple(piece.T)] = _cosines(piece[:, axes], extent, functions) @ weights
    field[foreground] -= field[foreground].mean()
    return field


def _functions(sizes: list[int]) -> list[tuple[int, ...]]:
    """Half waves along each axis: all but the constant, with at most `DEGREE` together."""
    each = itertools.product(*(range(min(DEGREE, size - 1) + 1) for size in sizes))
    return [waves for waves in each if 0 < sum(waves) <= DEGREE]


def _cosines(voxels: Array, extent: tuple[Array, Array], functions: list[tuple[int, ...]]) -> Array:
    """Values (V, F) of cosines at voxels (V, D), which are at an extremum at both ends of the extent."""
    low, high = extent
    phase = np.pi * (voxels - low) / np.maximum(high - low, 1)
    along = [np.cos(np.outer(phase[:, axis], np.arange(DEGREE + 1))) for axis in range(voxels.shape[1])]
    return np.stack([np.prod([along[axis][:, n] for axis, n in enumerate(of)], axis=0) for of in functions], axis=1)


def _fitted(values: Array, labels: Array, basis: Array) -> Array:
    """Weights (F,) of the functions: values (V,) = m[label] exp(basis @ weights) (1 + residual)."""
    _, structure = np.unique(labels, return_inverse=True)
    groups = [np.flatnonzero(structure == k) for k in range(structure.max() + 1)]
    weights, field = np.zeros(basis.shape[1]), np.zeros(len(values))
    for _ in range(_PASSES):
        residual, sd = _residuals(values / np.exp(field), groups)
        scaled = basis / sd[:, None]
        curvature = scaled.T @ scaled
        ridge = _RIDGE * np.trace(curvature) / len(curvature)
        weights = np.linalg.solve(curvature + ridge * np.eye(len(curvature)), scaled.T @ ((field + residual) / sd))
        before, field = field, basis @ weights
        if np.abs(field - before).max() < _CLOSE:
            break
    return weights


def _residuals(values: Array, groups: list[Array]) -> tuple[Array, Array]:
    """What is left of values (V,) of structures, relative to these, and its standard deviation; (V,) both."""
    residual, sd = np.zeros_like(values), np.full_like(values, np.inf)
    for own in groups:
        level = np.median(values[own])
        if level >= _LEAST_INTENSITY:
            relative = values[own] / level - 1
            scale = max(_LEAST_SD, _NORMAL * float(np.median(np.abs(relative))))
            residual[own], sd[own] = np.clip(relative, -_HUBER * scale, _HUBER * scale), scale
    return residual, sd
