"""Seeded diffeomorphic deformations: a small affine map after the flow of a smooth stationary velocity field.

A deformation maps points of a subject to points of the template: the subject's value at p is the template's
value at phi(p) = q + u(q), with q = A(p - o) + o + t and u the displacement of a point that follows the
velocity v for one unit of time. The flow is computed by scaling and squaring: with v / 2^n as a first small
displacement, u <- u + u o (id + u), n times.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from metasynth.errors import RunError

FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class WarpModel:
    """How far and how smoothly subjects differ from the template.

    Attributes
    ----------
    components : tuple of tuple (float, float)
        (smoothing sigma in mm, standard deviation in mm of the velocity per axis), summed.
    scale_sd : float
        Standard deviation of the logarithm of the scaling along each axis.
    rotation_sd : float
        Standard deviation of the rotation about each axis, degrees.
    shear_sd : float
        Standard deviation of the shears.
    shift_sd : float
        Standard deviation of the translation along each axis, mm.
    grid_mm : float
        Spacing of the grid the flow is computed on.
    squarings : int
        Number of squarings, n.
    """

    components: tuple[tuple[float, float], ...] = ((32.0, 2.5), (16.0, 1.8), (8.0, 0.8))
    scale_sd: float = 0.04
    rotation_sd: float = 2.5
    shear_sd: float = 0.02
    shift_sd: float = 1.5
    grid_mm: float = 4.0
    squarings: int = 5


@dataclass(frozen=True)
class Warp:
    """One deformation.

    Attributes
    ----------
    displacement : numpy.ndarray
        (3, X, Y, Z) mm, on a grid.
    origin : tuple (float, float, float)
        Coordinates in mm of the grid's first point.
    grid_mm : float
        Spacing of the grid.
    matrix : numpy.ndarray
        (3, 3), A.
    centre : numpy.ndarray
        O, mm.
    shift : numpy.ndarray
        T, mm.
    """

    displacement: FloatArray
    origin: tuple[float, float, float]
    grid_mm: float
    matrix: FloatArray
    centre: FloatArray
    shift: FloatArray

    def __call__(self, points: FloatArray) -> FloatArray:
        """Template coordinates (3, ...) of the subject's points (3, ...), mm."""
        flat = points.reshape(3, -1)
        moved = self.matrix @ (flat - self.centre[:, None]) + (self.centre + self.shift)[:, None]
        at = (moved - np.asarray(self.origin)[:, None]) / self.grid_mm
        return (moved + _sample(self.displacement, at)).reshape(points.shape)

    def min_jacobian(self) -> float:
        """The smallest Jacobian determinant: of the flow at all corners of all grid cells, times det A."""
        return float(np.linalg.det(self.matrix)) * min_jacobian(self.displacement, self.grid_mm)


def draw_warp(
    rng: np.random.Generator,
    low: tuple[float, float, float],
    high: tuple[float, float, float],
    model: WarpModel,
) -> Warp:
    """Draw the deformation of one subject.

    Parameters
    ----------
    rng : np.random.Generator
        Source of all randomness.
    low : tuple (float, float, float)
        Lowest coordinates in mm of the box to cover.
    high : tuple (float, float, float)
        Highest coordinates in mm.
    model : WarpModel
        Magnitudes.

    Raises
    ------
    RunError
        The deformation folds (a Jacobian determinant is not positive).
    """
    first, last = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    shape = tuple(int(n) for n in np.ceil((last - first) / model.grid_mm) + 1)
    velocity = np.zeros((3, *shape))
    for sigma_mm, sd_mm in model.components:
        velocity += smooth_noise(rng, shape, sigma_mm / model.grid_mm, sd_mm)
    warp = Warp(
        displacement=exponentiate(velocity, model.grid_mm, model.squarings),
        origin=low,
        grid_mm=model.grid_mm,
        matrix=_draw_matrix(rng, model),
        centre=(first + last) / 2,
        shift=rng.normal(0.0, model.shift_sd, 3),
    )
    smallest = warp.min_jacobian()
    if not smallest > 0:
        raise RunError(f"a deformation folds: its smallest Jacobian determinant is {smallest:.3g}, not above 0")
    return warp


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float, sd: float) -> FloatArray:
    """Stationary Gaussian field (3, *shape): white noise smoothed by `sigma` (grid units), scaled to `sd`."""
    white = rng.standard_normal((3, *shape))
    smooth = np.stack([ndimage.gaussian_filter(component, sigma, mode="wrap") for component in white])
    # White noise smoothed by a Gaussian keeps, per axis, 1 / (2 sqrt(pi) sigma) of its variance.
    return sd * smooth * (2.0 * np.sqrt(np.pi) * sigma) ** (len(shape) / 2)


def exponentiate(velocity: FloatArray, grid_mm: float, squarings: int) -> FloatArray:
    """Displacement (3, X, Y, Z) in mm after following a velocity (3, X, Y, Z) in mm for unit time."""
    grid = np.indices(velocity.shape[1:], dtype=float)
    displacement = velocity / 2.0**squarings
    for _ in range(squarings):
        at = (grid + displacement / grid_mm).reshape(3, -1)
        displacement = displacement + _sample(displacement, at).reshape(velocity.shape)
    return displacement


def min_jacobian(displacement: FloatArray, grid_mm: float) -> float:
    """Smallest Jacobian determinant of id + displacement, (3, X, Y, Z), over the corners of all cells."""
    points = displacement + grid_mm * np.indices(displacement.shape[1:], dtype=float)
    edges = [np.diff(points, axis=axis + 1) / grid_mm for axis in range(3)]
    smallest = np.inf
    for corner in product((slice(None, -1), slice(1, None)), repeat=3):
        columns = []
        for axis, edge in enumerate(edges):
            at = tuple(slice(None) if i == axis else corner[i] for i in range(3))
            columns.append(edge[(slice(None), *at)])
        a, b, c = columns
        determinant = np.einsum("i...,i...->...", a, np.cross(b, c, axis=0))
        smallest = min(smallest, float(determinant.min()))
    return smallest


def _sample(field: FloatArray, at: FloatArray) -> FloatArray:
    """Linear interpolation (3, P) of a field (3, X, Y, Z) at grid coordinates (3, P); edges are continued."""
    return np.stack([ndimage.map_coordinates(part, at, order=1, mode="nearest") for part in field])


def _draw_matrix(rng: np.random.Generator, model: WarpModel) -> FloatArray:
    """Rotation, shear and scaling (3, 3)."""
    shear = np.eye(3) + np.triu(rng.normal(0.0, model.shear_sd, (3, 3)), k=1)
    scale = np.diag(np.exp(rng.normal(0.0, model.scale_sd, 3)))
    rotation = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(rng.normal(0.0, model.rotation_sd, 3))):
        i, j = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        rotation = turn @ rotation
    return rotation @ shear @ scale
