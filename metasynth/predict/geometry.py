"""How a scan is turned and cut for a network, and the way back to the scan's own voxels.

`metasynth.predict.scan` takes these steps in order. On the way back posteriors are put in the place of their window,
resampled to the scan's spacing class by class, made labels, and turned.

A stack is a volume (D, H, W) turned as the training images: D along the slicing axis, H and W the rows and columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from metasynth.data_prep.volumes.resample import Grid, resample_image
from metasynth.data_prep.volumes.volumes import Volume
from metasynth.errors import DataError

_PAIRS = ("RL", "AP", "SI")


def stack_orientation(orientation: str) -> str:
    """The three letters of a stack, from those of a volume, or of a slice's rows and columns.

    Slices are stacked to the right, to the front or upwards.

    Raises
    ------
    DataError
        They are not letters of RLAPSI, of one body axis each.
    """
    axes = [next((pair for pair in _PAIRS if letter in pair), "") for letter in orientation]
    if len(axes) not in (2, 3) or not all(axes) or len(set(axes)) != len(axes):
        raise DataError(f"the model's orientation {orientation!r}: expected two or three letters of RL, AP and SI")
    return orientation if len(axes) == 3 else next(pair for pair in _PAIRS if pair not in axes)[0] + orientation


def turned(volume: Volume, orientation: str) -> Volume:
    """The same voxels with axes flipped and exchanged so that they grow nearest to the three directions."""
    turn = _turn(volume.affine, orientation)
    data = nib.orientations.apply_orientation(volume.data, turn)
    affine = volume.affine @ nib.orientations.inv_ornt_aff(turn, volume.data.shape)
    return Volume(data, affine, volume.where)


def turned_back(data: NDArray, affine: NDArray[np.float64], orientation: str) -> NDArray:
    """Undo `turned` for an array of its result's shape; `affine` is that of the volume before."""
    own = nib.orientations.io_orientation(affine)
    return nib.orientations.apply_orientation(
        data, nib.orientations.ornt_transform(nib.orientations.axcodes2ornt(tuple(orientation)), own)
    )


def _turn(affine: NDArray[np.float64], orientation: str) -> NDArray[np.float64]:
    return nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(orientation))
    )


def seen_along(stack: NDArray, orientation: str, view: str) -> NDArray:
    """A stack (D, H, W, ...) of one orientation as one of another: the same memory, with axes flipped and exchanged."""
    turn = nib.orientations.ornt_transform(*(nib.orientations.axcodes2ornt(tuple(way)) for way in (orientation, view)))
    return nib.orientations.apply_orientation(stack, turn)


def lengths_along(lengths: Sequence[int], orientation: str, view: str) -> list[int]:
    """The lengths of a stack's axes, from those of the same stack seen along another axis (see `seen_along`)."""
    place = {pair: length for letter, length in zip(view, lengths, strict=True) for pair in _PAIRS if letter in pair}
    return [place[pair] for letter in orientation for pair in _PAIRS if letter in pair]


@dataclass(frozen=True)
class Window:
    """A part of a stack, which may reach beyond it.

    Attributes
    ----------
    start : tuple of int
        Index in the stack of its first voxel, per axis; may be negative.
    shape : tuple of int
        Its lengths.
    """

    start: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def about(cls, content: NDArray[np.bool_], least: Sequence[int], divisors: Sequence[int]) -> "Window":
        """The window with the middle of the content's box in its middle, as the items of a cache are cut.

        Parameters
        ----------
        content : numpy.ndarray
            (D, H, W), not empty.
        least : sequence of int
            Smallest length per axis; it is longer where the box is.
        divisors : sequence of int
            What each length is rounded up to a multiple of.
        """
        start, shape = [], []
        for axis, (n, divisor) in enumerate(zip(least, divisors, strict=True)):
            at = np.flatnonzero(content.any(axis=tuple(other for other in range(content.ndim) if other != axis)))
            first, stop = int(at[0]), int(at[-1]) + 1
            length = -(-max(n, stop - first) // divisor) * divisor
            start.append((first + stop) // 2 - length // 2)
            shape.append(length)
        return cls(tuple(start), tuple(shape))

    def take(self, stack: NDArray) -> NDArray:
        """The part of a stack, 0 beyond it."""
        out = np.zeros(self.shape, dtype=stack.dtype)
        inside, of_stack = self._overlap(stack.shape)
        out[inside] = stack[of_stack]
        return out

    def put(self, part: NDArray, shape: tuple[int, ...], around: float) -> NDArray:
        """A stack of the given shape with the part in it and one value around it."""
        out = np.full(shape, around, dtype=part.dtype)
        inside, of_stack = self._overlap(shape)
        out[of_stack] = part[inside]
        return out

    def _overlap(self, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Where window and stack meet, in the window and in the stack."""
        low = [max(0, s) for s in self.start]
        high = [min(n, s + length) for n, s, length in zip(shape, self.start, self.shape, strict=True)]
        of_stack = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        inside = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, self.start, strict=True))
        return inside, of_stack


def resample_share(share: NDArray[np.float32], matrix: NDArray[np.float64], grid: Grid) -> NDArray[np.float32]:
    """A class's share of every voxel (D, H, W) on another grid, as `resample_image`; at the border it goes on outside.

    Shares that add up to 1 do so afterwards.
    """
    # As far as the smoothing reaches where the grid is coarser, and a voxel more for the interpolation.
    margin = 1 + np.ceil(1.3 * np.abs(matrix[:3, :3]).max(axis=1)).astype(int)
    shifted = matrix.copy()
    shifted[:3, 3] += margin
    return resample_image(np.pad(share, [(m, m) for m in margin], mode="edge"), shifted, grid)
