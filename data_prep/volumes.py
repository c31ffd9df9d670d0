"""Volumes read from files: what is wrong with one is said in a line that names the file."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from metasynth.errors import DataError

RIGHT_ANGLE = 0.01  # largest cosine between two axes that still count as orthogonal
SAME_GRID = 0.05  # voxels by which two grids may differ at a corner
SCALE_PERCENT = (1.0, 99.0)


@dataclass(frozen=True)
class Volume:
    """A volume and where it lies.

    Attributes:
        data: (X, Y, Z) float32 intensities or int64 ids.
        affine: (4, 4) from voxel indices to mm, x to the right, y anterior, z superior.
        where: Its file, for messages.

    """

    data: NDArray
    affine: NDArray[np.float64]
    where: str

    @property
    def spacing(self) -> NDArray[np.float64]:
        """(3,) distance in mm between voxel centres along each axis."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


def read_image(path: Path) -> Volume:
    """Intensities (X, Y, Z) float32; values that single precision cannot hold become infinite (see `scale`)."""
    data, affine = _read(path)
    if data.dtype.kind not in "iufb":
        raise DataError(f"{path}: expected one number a voxel, got values of type {data.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        return Volume(data.astype(np.float32), affine, str(path))


def read_labels(path: Path) -> Volume:
    """Ids (X, Y, Z) int64 of a label map, stored as integers or as whole numbers.

    Raises:
        DataError: The file cannot be read, a value is negative, not whole or beyond 32 bits, or all are 0.

    """
    data, affine = _read(path)
    if data.dtype.kind == "f":
        wrong = ~np.isfinite(data)
        if wrong.any():
            raise DataError(f"{path}: labels must be whole numbers, got NaN or infinity in {int(wrong.sum())} voxels")
        wrong = data != np.rint(data)
        if wrong.any():
            raise DataError(
                f"{path}: labels must be whole numbers, got {data[wrong][0]:g} and others in {int(wrong.sum())} "
                "voxels; is it an image, or was it interpolated?"
            )
    elif data.dtype.kind not in "iub":
        raise DataError(f"{path}: labels must be whole numbers, got values of type {data.dtype}")
    low, high = data.min(), data.max()
    if low < 0:
        raise DataError(f"{path}: labels must not be negative, got {low:g}; ids beyond the file's type overflow so")
    if high > np.iinfo(np.int32).max:
        raise DataError(f"{path}: labels must fit 32 bits, got {high:g}")
    if high == 0:
        raise DataError(f"{path}: holds no label above 0")
    return Volume(data.astype(np.int64), affine, str(path))


def _read(path: Path) -> tuple[NDArray, NDArray[np.float64]]:
    """Array (X, Y, Z) and affine (4, 4) of a NIfTI or MGH file."""
    try:
        image: Any = nib.load(path)
        data = np.asanyarray(image.dataobj)
        affine = np.asarray(image.affine, dtype=np.float64)
    except FileNotFoundError as error:
        raise DataError(f"{path}: the file is missing") from error
    except (OSError, EOFError, zlib.error, ImageFileError, ValueError, KeyError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: is truncated, damaged or no NIfTI or MGH file ({text})") from error
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise DataError(f"{path}: expected one volume of 3 dimensions, got shape {_by(data.shape)}")
    if 0 in data.shape:
        raise DataError(f"{path}: holds no voxels, its shape is {_by(data.shape)}")
    return data, affine


def check_affine(volume: Volume, allow_shear: bool = False) -> None:
    """Require voxels of a size, and axes at right angles unless a shear is dealt with later.

    Raises:
        DataError: An axis has size 0 or is not finite, or two axes are not orthogonal.

    """
    matrix, spacing = volume.affine[:3, :3], volume.spacing
    if not np.isfinite(volume.affine).all() or (spacing < 1e-6).any():
        sizes = " x ".join(f"{s:g}" for s in spacing)
        raise DataError(f"{volume.where}: voxels must have a size above 0 along every axis, got {sizes} mm")
    cosines = (matrix / spacing).T @ (matrix / spacing)
    if abs(np.linalg.det(matrix / spacing)) < 1e-3:
        raise DataError(f"{volume.where}: two axes of its affine are parallel: {_rows(volume.affine)}")
    i, j = max(((0, 1), (0, 2), (1, 2)), key=lambda pair: abs(cosines[pair]))
    if abs(cosines[i, j]) > RIGHT_ANGLE and not allow_shear:
        raise DataError(
            f"{volume.where}: axes must be at right angles, got {np.degrees(np.arccos(cosines[i, j])):.1f} degrees "
            f"between axes {i} and {j}; --align rigid or affine deals with it"
        )


def to_ras(volume: Volume) -> Volume:
    """The same voxels with axes flipped and exchanged so that they grow nearest to right, anterior, superior."""
    orientation = nib.orientations.io_orientation(volume.affine)
    data = nib.orientations.apply_orientation(volume.data, orientation)
    affine = volume.affine @ nib.orientations.inv_ornt_aff(orientation, volume.data.shape)
    return Volume(data, affine, volume.where)


def same_grid(a: Volume, b: Volume) -> bool:
    """Whether two volumes have one shape and their corners lie within a twentieth of a voxel."""
    return a.data.shape == b.data.shape and corner_distance(a, b) <= SAME_GRID * float(a.spacing.min())


def corner_distance(a: Volume, b: Volume) -> float:
    """Largest distance in mm between the corners of the first grid under the two affines."""
    corners = np.array(np.meshgrid(*([0, n - 1] for n in a.data.shape), indexing="ij")).reshape(3, -1)
    shift = (a.affine - b.affine)[:3, :3] @ corners + (a.affine - b.affine)[:3, 3:]
    return float(np.linalg.norm(shift, axis=0).max())


def require_same_grid(image: Volume, labels: Volume) -> None:
    """Raise `DataError` that says both grids when they differ."""
    if image.data.shape != labels.data.shape:
        came = f"shapes {_by(image.data.shape)} and {_by(labels.data.shape)}"
    elif not same_grid(image, labels):
        came = (
            f"affines that differ by {corner_distance(image, labels):.3g} mm at a corner: {_rows(image.affine)} and "
            f"{_rows(labels.affine)}"
        )
    else:
        return
    raise DataError(
        f"{image.where} and {labels.where}: image and label map must share one grid, got {came}; --resample-labels "
        "puts the labels on the image's grid"
    )


def scale(
    image: NDArray[np.float32], mask: NDArray[np.bool_], where: str, keep_outside: bool = False
) -> NDArray[np.float32]:
    """Intensities scaled linearly so that the mask's 1 and 99 % quantiles become 0 and 1, cut there.

    Args:
        image: (*S) any values; those that are not kept do not matter.
        mask: (*S) the brain.
        where: The file, for messages.
        keep_outside: Scale what lies outside the mask in the same way, instead of setting it to 0.

    Raises:
        DataError: A value that is kept is not finite, or the quantiles are equal.

    """
    kept = np.ones_like(mask) if keep_outside else mask
    wrong = ~np.isfinite(image) & kept
    if wrong.any():
        first = tuple(int(n) for n in np.argwhere(wrong)[0])
        raise DataError(
            f"{where}: {int(wrong.sum())} of {int(kept.sum())} voxels are NaN, infinite or beyond single precision, "
            f"first at {first} (oriented to RAS)"
        )
    low, high = np.percentile(image[mask].astype(np.float64), SCALE_PERCENT)
    if not high > low:
        raise DataError(f"{where}: has no contrast, its 1 and 99 % quantiles are both {low:g}")
    out = np.zeros(image.shape, dtype=np.float32)
    out[kept] = np.clip((image[kept] - low) / (high - low), 0.0, 1.0)
    return out


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _rows(affine: NDArray[np.float64]) -> str:
    return "[" + "; ".join(" ".join(f"{value:.4g}" for value in row) for row in affine[:3]) + "]"
