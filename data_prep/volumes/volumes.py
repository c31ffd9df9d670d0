"""Volumes read from files: what is wrong with one is said in a line that names the file."""

from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from metasynth.data_prep.volumes.files import Header, Unit, read_header, read_voxels
from metasynth.data_prep.volumes.units import affine_in_mm, unit_scaled_from
from numpy.typing import NDArray

from metasynth.errors import DataError
from metasynth.text import by

RIGHT_ANGLE = 0.01  # largest cosine between two axes that still count as orthogonal
FARTHEST_MM = 1e6
SAME_GRID = 0.05  # voxels by which two grids may differ at a corner
WHOLE, MOST_ROUNDED = 1e-3, 0.25  # how far a stored id may be off its whole number; with the step of scaled integers


@dataclass(frozen=True)
class Volume:
    """A volume and where it lies.

    Attributes
    ----------
    data : NDArray
        (X, Y, Z) float32 intensities or int64 ids.
    affine : numpy.ndarray
        (4, 4) from voxel indices to mm, x to the right, y anterior, z superior.
    where : str
        Its file, for messages.
    scaled_from : Unit or None
        The unit of its file's affine where that was another and only the header said so.
    """

    data: NDArray
    affine: NDArray[np.float64]
    where: str
    scaled_from: Unit | None = None

    @property
    def spacing(self) -> NDArray[np.float64]:
        """(3,) distance in mm between voxel centres along each axis."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


def read_image(path: Path, unit: Unit | None = None) -> Volume:
    """Intensities (X, Y, Z) float32; values that single precision cannot hold become infinite (see `scale`).

    Parameters
    ----------
    path : Path
        A NIfTI or MGH file.
    unit : Unit or None
        What its affine is in, whatever its header says.

    Raises
    ------
    DataError
        The file cannot be read or is no volume, or its voxels need a unit to be said.
    """
    header = read_header(path)
    affine, data = affine_in_mm(header, unit), _volume(header)
    if data.dtype.kind not in "iuf":
        raise DataError(f"{path}: expected one number a voxel, got values of type {data.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        return Volume(data.astype(np.float32), affine, str(path), unit_scaled_from(header, unit))


def read_labels(path: Path, unit: Unit | None = None, *, empty: bool = False) -> Volume:
    """Ids (X, Y, Z) int64 of a label map, exactly as they are stored.

    They may be stored as integers, as floating-point numbers or as scaled integers. Numbers of the last two kinds are
    rounded if they are at most .001 off a whole number; scaled integers half of their step more, at most .25 in all.

    Parameters
    ----------
    path : Path
        A NIfTI or MGH file.
    unit : Unit or None
        What its affine is in, whatever its header says.
    empty : bool
        All ids may be 0.

    Raises
    ------
    DataError
        The file cannot be read or is no volume, its voxels need a unit to be said, a value is negative, not whole,
        beyond 32 bits or too large to be exact in the file's type, or all are 0.
    """
    header = read_header(path)
    affine, ids = affine_in_mm(header, unit), _whole(_volume(header), header)
    low, high = int(ids.min()), int(ids.max())
    if low < 0:
        raise DataError(f"{path}: labels must not be negative, got {low}; ids beyond the file's type overflow so")
    if high > np.iinfo(np.int32).max:
        raise DataError(f"{path}: labels must fit 32 bits, got {high}")
    if high == 0 and not empty:
        raise DataError(f"{path}: holds no label above 0")
    return Volume(ids.astype(np.int64), affine, str(path), unit_scaled_from(header, unit))


def _volume(header: Header) -> NDArray:
    """Array (X, Y, Z) of a file."""
    shape = header.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise DataError(f"{header.path}: expected one volume of 3 dimensions, got shape {by(shape)}")
    return read_voxels(header).reshape(shape, order="F")


def _whole(data: NDArray, header: Header) -> NDArray:
    """Labels rounded as `read_labels` says."""
    path = header.path
    if data.dtype.kind in "iu":
        return data
    if data.dtype.kind != "f":
        raise DataError(f"{path}: labels must be whole numbers, got values of type {data.dtype}")
    wrong = ~np.isfinite(data)
    if wrong.any():
        raise DataError(f"{path}: labels must be whole numbers, got NaN or infinity in {int(wrong.sum())} voxels")
    ids = np.rint(data)
    stored = header.fields.get_data_dtype()
    step = 0.0 if stored.kind == "f" else abs(header.scaling[0])
    wrong = np.abs(data - ids) > min(WHOLE + step / 2, MOST_ROUNDED)
    if wrong.any():
        raise DataError(
            f"{path}: labels must be whole numbers, got {float(data[wrong][0])!r} and others in {int(wrong.sum())} "
            "voxels; is it an image, or was it interpolated?"
        )
    if stored.kind == "f" and ids.max() >= (exact := 2 ** (np.finfo(stored).nmant + 1)):
        raise DataError(
            f"{path}: labels from {exact} on cannot be told apart as {stored.name}, got {float(ids.max())!r}; "
            "save them as integers"
        )
    return ids


def check_affine(volume: Volume, allow_shear: bool = False) -> None:
    """Require voxels of a size and at a place, and axes at right angles unless a shear is dealt with later.

    Raises
    ------
    DataError
        An axis has size 0 or is not finite, the first voxel is farther away than a kilometre, or two axes are not
        orthogonal.
    """
    matrix, spacing = volume.affine[:3, :3], volume.spacing
    if not np.isfinite(volume.affine).all() or (spacing < 1e-6).any():
        sizes = by(spacing)
        raise DataError(f"{volume.where}: voxels must have a size above 0 along every axis, got {sizes} mm")
    if np.abs(volume.affine[:3, 3]).max() > FARTHEST_MM:
        raise DataError(f"{volume.where}: its first voxel lies farther away than a kilometre: {_rows(volume.affine)}")
    cosines = (matrix / spacing).T @ (matrix / spacing)
    if abs(np.linalg.det(matrix / spacing)) < 1e-3 or np.isnan(nib.orientations.io_orientation(volume.affine)).any():
        raise DataError(f"{volume.where}: two axes of its affine are parallel: {_rows(volume.affine)}")
    i, j = max(((0, 1), (0, 2), (1, 2)), key=lambda pair: abs(cosines[pair]))
    if abs(cosines[i, j]) > RIGHT_ANGLE and not allow_shear:
        raise DataError(
            f"{volume.where}: axes must be at right angles, got {np.degrees(np.arccos(cosines[i, j])):.1f} degrees "
            f"between axes {i} and {j}; --align rigid or affine deals with it"
        )


def to_ras(volume: Volume) -> Volume:
    """The same voxels with axes flipped and exchanged so that they grow nearest to right, anterior, superior."""
    return _turned(volume, nib.orientations.io_orientation(volume.affine))


def matched(volume: Volume, other: Volume) -> Volume | None:
    """The volume on the other's grid, its axes flipped and exchanged as the other's; None where it has other voxels.

    It has the other's if both have one shape then, and corners that lie within a twentieth of a voxel. `check_affine`
    must have passed both.
    """
    turned = _turned_like(volume, other)
    same = turned.data.shape == other.data.shape
    if not same or _corner_distance(other, turned) > SAME_GRID * float(other.spacing.min()):
        return None
    return replace(turned, affine=other.affine)


def require_same_grid(image: Volume, labels: Volume) -> Volume:
    """The label map as `matched` to its image; raise `DataError` that says both grids when they differ."""
    found = matched(labels, image)
    if found is not None:
        return found
    raise DataError(
        f"{image.where} and {labels.where}: image and label map must share one grid, got "
        f"{grid_difference(image, labels)}; --resample-labels puts the labels on the image's grid"
    )


def grid_difference(volume: Volume, other: Volume) -> str:
    """In which way the second volume's grid, its axes turned as the first's, is not the first's."""
    turned = _turned_like(other, volume)
    if volume.data.shape != turned.data.shape:
        return f"shapes {by(volume.data.shape)} and {by(other.data.shape)}"
    return (
        f"affines that differ by {_corner_distance(volume, turned):.3g} mm at a corner: {_rows(volume.affine)} and "
        f"{_rows(turned.affine)}"
    )


def _corner_distance(a: Volume, b: Volume) -> float:
    """Largest distance in mm between the corners of the first grid under the two affines."""
    corners = np.array(np.meshgrid(*([0, n - 1] for n in a.data.shape), indexing="ij")).reshape(3, -1)
    shift = (a.affine - b.affine)[:3, :3] @ corners + (a.affine - b.affine)[:3, 3:]
    return float(np.linalg.norm(shift, axis=0).max())


def _turned_like(volume: Volume, other: Volume) -> Volume:
    # Between the two grids: axes that lie between those of the body are not turned two ways for a rounding's sake.
    return _turned(volume, nib.orientations.io_orientation(np.linalg.inv(other.affine) @ volume.affine))


def _turned(volume: Volume, orientation: NDArray) -> Volume:
    data = nib.orientations.apply_orientation(volume.data, orientation)
    affine = volume.affine @ nib.orientations.inv_ornt_aff(orientation, volume.data.shape)
    return replace(volume, data=data, affine=affine)


def _rows(affine: NDArray[np.float64]) -> str:
    return "[" + "; ".join(" ".join(f"{value:.4g}" for value in row) for row in affine[:3]) + "]"
