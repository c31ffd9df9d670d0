"""From volumes to the slices of a cache: which planes, how they are turned, and the frame they are cut to.

The arrays of a plane are those of the embedded cohort: coronal rows go from superior to inferior and columns from the
subject's left to right ("IR"); axial rows from anterior to posterior ("PR"); sagittal rows from superior to inferior,
columns from anterior to posterior ("IP"). The letters say where an index grows to.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from metasynth.errors import DataError, UsageError
from metasynth.text import shortened, whole_number

Axis = Literal["coronal", "axial", "sagittal"]
AXIS_INDEX = {"sagittal": 0, "coronal": 1, "axial": 2}
IN_PLANE = {"coronal": "IR", "axial": "PR", "sagittal": "IP"}
GROWS_TO = {"coronal": "A", "axial": "S", "sagittal": "R"}
_ROWS_COLUMNS = {"coronal": (2, 0), "axial": (1, 0), "sagittal": (2, 1)}  # axes of a RAS volume
DIVISOR = 16
BEYOND = 1e300  # voxels; an overflow is cut to it


@dataclass(frozen=True)
class SliceChoice:
    """Which planes are wanted.

    Attributes
    ----------
    kind : {'all', 'around', 'range', 'list'}
        "all", "around" (a number of planes evenly spaced about a centre), "range" or "list".
    numbers : tuple of int
        Nothing; how many; start, stop and step; or the indices.
    """

    kind: Literal["all", "around", "range", "list"]
    numbers: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "SliceChoice":
        """From "all", "around:20", "90:130", "90:130:2" or "88,109".

        Raises
        ------
        UsageError
            The text is none of these.
        """
        if text == "all":
            return cls("all")
        name, _, rest = text.partition(":")
        given = [whole_number(part) for part in (rest if name == "around" else text.replace(":", ",")).split(",")]
        numbers = [number for number in given if number is not None and number >= 0]
        if len(numbers) == len(given) and not ("," in text and ":" in text):
            if name == "around":
                if len(numbers) == 1 and numbers[0] >= 1:
                    return cls("around", (numbers[0],))
            elif ":" in text:
                start, stop, step = [*numbers, 1][:3] if len(numbers) in (2, 3) else (0, 0, 1)
                if start < stop and step >= 1:
                    return cls("range", (start, stop, step))
            else:
                return cls("list", tuple(sorted(set(numbers))))
        raise UsageError(f"--slices {shortened(text)}: expected all, around:N, START:STOP, START:STOP:STEP or I,J,K")

    def candidates(self, n: int, centre: float, step: int) -> NDArray[np.int64]:
        """Increasing indices in 0..n-1; `centre` and `step` (planes) are those of "around".

        Raises
        ------
        DataError
            An index that was listed, or all of a range, is outside.
        """
        if self.kind == "all":
            return np.arange(n)
        # Numbers may be of any size: what lies outside is cut off before there are arrays.
        if self.kind == "around":
            count = self.numbers[0]
            first = math.floor(Fraction(centre) - Fraction(step * (count - 1), 2) + Fraction(1, 2))
            start, stop = max(0, -(first // step)), min(count, (n - 1 - first) // step + 1)
            return np.array([first + step * k for k in range(start, stop)], dtype=np.int64)
        if self.kind == "list" and self.numbers[-1] >= n:
            raise DataError(
                f"slice {self.numbers[-1]} is asked for; the volume has slices 0 to {n - 1} along this axis"
            )
        if self.numbers[0] >= n:
            raise DataError(f"slices from {self.numbers[0]} are asked for; the volume has 0 to {n - 1} along this axis")
        if self.kind == "list":
            return np.array(self.numbers)
        start, stop, step = self.numbers
        return np.arange(start, min(stop, n), min(step, n))


def choose_planes(
    content: NDArray[np.integer], choice: SliceChoice, centre: float, step: int, min_content: float
) -> NDArray[np.int64]:
    """Indices of the wanted planes that hold enough labels.

    Parameters
    ----------
    content : numpy.ndarray
        (N,) labelled voxels of every plane.
    choice : SliceChoice
        The planes that are wanted.
    centre : float
        Plane about which "around" takes them.
    step : int
        Distance in planes between those of "around".
    min_content : float
        Least share of the fullest plane's labelled voxels; a plane without labels is never taken.

    Raises
    ------
    DataError
        No plane is left.
    """
    wanted = choice.candidates(len(content), centre, step)
    enough = content[wanted] >= max(1.0, min_content * content.max())
    if not enough.any():
        raise DataError(
            f"none of the {wanted.size} wanted slices holds labels of {min_content:.0%} of the fullest slice "
            f"({int(content.max())} voxels); labels lie in slices {_span(content)}"
        )
    return wanted[enough]


def _span(content: NDArray[np.integer]) -> str:
    at = np.flatnonzero(content)
    return f"{at[0]} to {at[-1]}" if at.size else "none"


def content_along(classes: NDArray[np.uint8], axis: str) -> NDArray[np.int64]:
    """(N,) voxels above 0 in every plane of a RAS volume (X, Y, Z)."""
    index = AXIS_INDEX[axis]
    return np.count_nonzero(classes, axis=tuple(other for other in range(3) if other != index))


def planes(volume: NDArray, axis: str, indices: NDArray[np.integer] | None = None) -> NDArray:
    """Planes (N, H, W) of a RAS volume (X, Y, Z), all of them or those of the indices, turned as the module says."""
    rows, columns = _ROWS_COLUMNS[axis]
    stack = np.transpose(volume, (AXIS_INDEX[axis], rows, columns))
    stack = stack if indices is None else stack[indices]
    # Both row directions are against their axis; of the columns only the sagittal ones are.
    return stack[:, ::-1, ::-1] if axis == "sagittal" else stack[:, ::-1]


def plane_spacing(spacing: Sequence[float] | NDArray[np.float64], axis: str) -> tuple[float, float, float]:
    """Spacing in mm along (slicing axis, rows, columns) from that along (x, y, z)."""
    rows, columns = _ROWS_COLUMNS[axis]
    return float(spacing[AXIS_INDEX[axis]]), float(spacing[rows]), float(spacing[columns])


@dataclass(frozen=True)
class Frame:
    """How items are cut to one shape.

    Attributes
    ----------
    margin_mm : float
        Room around the labels where no size is given.
    size : tuple of int or None
        Shape S; None takes that of the labels, with the margin, rounded up.
    divisor : int
        What every length must be divisible by; 1 allows any.
    """

    margin_mm: float = 5.0
    size: tuple[int, ...] | None = None
    divisor: int = DIVISOR

    def __post_init__(self) -> None:
        if self.size is not None and any(n < 1 or n % self.divisor for n in self.size):
            given = " x ".join(map(str, self.size))
            if min(self.size) < 1:
                raise UsageError(f"--size {given}: expected lengths above 0")
            raise UsageError(f"--size {given}: expected lengths divisible by {self.divisor} (see --divisor)")
        if not 0 <= self.margin_mm < np.inf:
            raise UsageError(f"--margin: expected 0 mm or more, got {self.margin_mm:g}")

    def shape(self, extents: NDArray[np.integer], spacing: tuple[float, ...]) -> tuple[int, ...]:
        """Shape S that holds boxes of the given extents (N, len(S)) in voxels."""
        if self.size is not None:
            return self.size
        rooms = (2 * math.ceil(min(self.margin_mm / s, BEYOND) - 1e-6) for s in spacing)
        needed = (int(extent) + room for extent, room in zip(extents.max(axis=0), rooms, strict=True))
        return tuple(-(-n // self.divisor) * self.divisor for n in needed)

    def least(self, ndim: int) -> tuple[int, ...]:
        """Lengths that an item has at least."""
        return self.size or (self.divisor,) * ndim


def label_box(items: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(2, ndim) first and last-plus-one index, per axis, of what is above 0 in any of the items (N, *S)."""
    any_item = (items > 0).any(axis=0)
    ends = []
    for axis in range(any_item.ndim):
        at = np.unique(np.nonzero(any_item)[axis])
        ends.append((int(at[0]), int(at[-1]) + 1))
    return np.array(ends).T


def cut(items: NDArray, box: NDArray[np.integer], shape: tuple[int, ...]) -> NDArray:
    """Items (N, *S) cut or filled with 0 to `shape`, so that the middle of the box (2, ndim) comes to its middle."""
    out = np.zeros((items.shape[0], *shape), dtype=items.dtype)
    into, out_of = [slice(None)], [slice(None)]
    for axis, n in enumerate(shape):
        start = int((box[0, axis] + box[1, axis]) // 2) - n // 2
        low, high = max(0, start), min(items.shape[axis + 1], start + n)
        out_of.append(slice(low, max(low, high)))
        into.append(slice(low - start, max(low, high) - start))
    out[tuple(into)] = items[tuple(out_of)]
    return out
