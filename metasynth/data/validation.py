"""What makes the contents of a cache valid, for files being opened and for arrays being written.

Arrays may be NumPy arrays or HDF5 datasets: they are read in blocks of slices, so that no large file is held
in memory at once. Every check raises `DataError` with one line that begins with `where`, the file's name.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from metasynth.errors import DataError
from metasynth.files import first_line
from metasynth.interrupts import check

BLOCK_BYTES = 32 * 2**20


class ArrayLike(Protocol):
    """What a NumPy array and an HDF5 dataset share."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length along every axis."""

    @property
    def dtype(self) -> np.dtype:
        """Type of the elements."""

    def __getitem__(self, key: Any) -> Any: ...


@dataclass(frozen=True)
class Contents:
    """The arrays of a cache.

    Attributes
    ----------
    labels : ArrayLike
        (N, *S) class indices.
    images : ArrayLike or None
        (N, *S) intensities in [0, 1], or None in a label-only cache.
    subject : ArrayLike
        (N,) index into `subjects`.
    subjects : tuple of str
        Names of the subjects.
    slice_index : ArrayLike
        (N,) position along the slicing axis.
    view : ArrayLike or None
        (N,) index of the slicing axis, or None where there is one.
    """

    labels: ArrayLike
    images: ArrayLike | None
    subject: ArrayLike
    subjects: tuple[str, ...]
    slice_index: ArrayLike
    view: ArrayLike | None = None


class LabelList(NamedTuple):
    """What labels are to be: indices of ``names``; ``what`` says of what these are the names."""

    names: tuple[str, ...]
    what: str


def blocks(array: ArrayLike, where: str, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first index, block) over the first axis, each block at most `BLOCK_BYTES` or one slice.

    Raises
    ------
    DataError
        A block cannot be read.
    Interrupted
        The process was asked to end.
    """
    per_slice = max(1, int(np.prod(array.shape[1:])) * array.dtype.itemsize)
    step = max(1, BLOCK_BYTES // per_slice)
    for start in range(0, array.shape[0], step):
        check()
        try:
            block = np.asarray(array[start : start + step])
        except OSError as error:
            raise DataError(
                f"{where}: dataset '{name}' is damaged: slices {start} to "
                f"{min(start + step, array.shape[0]) - 1} cannot be read ({first_line(error)})"
            ) from error
        yield start, block


def check_names(where: str, class_names: Sequence[str], subjects: Sequence[str]) -> None:
    """Require at least two classes and one subject, and no name that is empty, unprintable or given twice.

    Raises
    ------
    DataError
        They are not so.
    """
    if len(class_names) < 2:
        raise DataError(f"{where}: class_names must hold at least 2 names, got {len(class_names)}")
    if len(subjects) == 0:
        raise DataError(f"{where}: holds no subjects; /subjects is empty")
    for what, names in (("class name", class_names), ("subject", subjects)):
        _check_listed(where, what, names)


def _check_listed(where: str, what: str, names: Sequence[str]) -> None:
    """Require names that are printable and unique."""
    seen: set[str] = set()
    for name in names:
        if not name or not name.isprintable():
            raise DataError(f"{where}: a {what} must be printable text of one line, got {name!r}")
        if name in seen:
            raise DataError(f"{where}: {what} {name!r} is listed twice; names must be unique")
        seen.add(name)


def check_generation(where: str, class_names: Sequence[str], names: Sequence[str], target: Sequence[int]) -> None:
    """Require a class for every generation label, of which 0 is background, and a label for every class.

    Raises
    ------
    DataError
        It is not so, or a name is empty, unprintable or given twice.
    """
    if len(names) != len(target):
        raise DataError(
            f"{where}: target must give a class for each of the {len(names)} generation_names, got {len(target)}"
        )
    _check_listed(where, "generation label", names)
    for name, k in zip(names, target, strict=True):
        if not 0 <= k < len(class_names):
            raise DataError(
                f"{where}: target of generation label {name!r} must be 0 to {len(class_names) - 1}, got {k}"
            )
    if target and target[0] != 0:
        raise DataError(f"{where}: target of generation label 0, {names[0]!r}, must be 0, got {target[0]}")
    missing = [name for k, name in enumerate(class_names) if target and k not in target]
    if missing:
        raise DataError(f"{where}: class {missing[0]!r} is the target of no generation label")


def check_structure(where: str, contents: Contents, spacing_mm: Sequence[float]) -> None:
    """Require agreeing shapes, allowed types and a spacing per spatial axis; reads the (N,) arrays only.

    Raises
    ------
    DataError
        They are not so.
    """
    labels, images = contents.labels, contents.images
    if len(labels.shape) not in (3, 4):
        raise DataError(f"{where}: labels must be (N, H, W) or (N, D, H, W), got shape {tuple(labels.shape)}")
    if 0 in labels.shape:
        raise DataError(f"{where}: holds no slices; labels have shape {tuple(labels.shape)}")
    if labels.dtype.kind not in "iu":
        raise DataError(f"{where}: labels must be integers, got {labels.dtype}")
    if images is not None and tuple(images.shape) != tuple(labels.shape):
        raise DataError(
            f"{where}: images and labels must have one shape, got images {tuple(images.shape)} and "
            f"labels {tuple(labels.shape)}"
        )
    if images is not None and images.dtype.kind != "f":
        raise DataError(f"{where}: images must be floating point, got {images.dtype}")
    n, ndim = labels.shape[0], len(labels.shape) - 1
    for name, array in (("subject", contents.subject), ("slice", contents.slice_index), ("view", contents.view)):
        if array is None:
            continue
        if tuple(array.shape) != (n,):
            raise DataError(f"{where}: {name} must have shape ({n},) like labels, got {tuple(array.shape)}")
        if array.dtype.kind not in "iu":
            raise DataError(f"{where}: {name} must hold integers, got {array.dtype}")
    if len(spacing_mm) != ndim or not all(np.isfinite(s) and s > 0 for s in spacing_mm):
        raise DataError(f"{where}: spacing_mm must be {ndim} positive numbers, got {[float(s) for s in spacing_mm]}")
    _check_subject_index(where, np.asarray(contents.subject[:]), contents.subjects)


def _check_subject_index(where: str, subject: np.ndarray, subjects: tuple[str, ...]) -> None:
    """Require every index to name a subject and every subject to have a slice."""
    outside = np.flatnonzero((subject < 0) | (subject >= len(subjects)))
    if outside.size:
        i = int(outside[0])
        raise DataError(
            f"{where}: subject index {int(subject[i])} of slice {i} is out of range; "
            f"/subjects holds {len(subjects)}, so 0 to {len(subjects) - 1} are allowed"
        )
    missing = np.setdiff1d(np.arange(len(subjects)), subject)
    if missing.size:
        raise DataError(f"{where}: subject {subjects[int(missing[0])]!r} has no slices")


def check_contents(where: str, contents: Contents, listed: LabelList) -> None:
    """Require labels that are listed and finite images in [0, 1]; reads everything, in blocks."""
    for name, array in (("labels", contents.labels), ("images", contents.images)):
        if array is not None:
            for start, block in blocks(array, where, name):
                check_values(where, name, start, block, listed)


def check_values(where: str, name: str, start: int, block: np.ndarray, listed: LabelList) -> None:
    """The checks of `check_contents`, of the items (n, *S) of dataset ``name`` from ``start``; other arrays pass.

    Raises
    ------
    DataError
        An item has a value that it must not have.
    """
    if name == "labels":
        n = len(listed.names)
        bad = (block < 0) | (block >= n)
        if bad.any():
            i, value = _first(bad, block)
            raise DataError(
                f"{where}: label {value} in slice {start + i} is beyond the {n} {listed.what} (0 to {n - 1})"
            )
    if name == "images" and not _between_0_and_1(block):
        bad = ~np.isfinite(block)
        if bad.any():
            i, _ = _first(bad, block)
            raise DataError(f"{where}: images hold NaN or infinite values, first in slice {start + i}")
        bad = (block < 0) | (block > 1)
        if bad.any():
            i, value = _first(bad, block)
            raise DataError(f"{where}: image value {value:g} in slice {start + i} is outside [0, 1]")


def _between_0_and_1(block: np.ndarray) -> bool:
    """Whether all floats surely are, told by their bits, which is many times as fast in half precision.

    Read as whole numbers, bits of floats from 0 on are in the order of these; infinity, NaN and all with a minus, -0.0
    too, come after 1.
    """
    if not block.dtype.isnative or not block.flags.c_contiguous:
        return False
    whole = f"u{block.dtype.itemsize}"
    one = np.ones((), dtype=block.dtype).view(whole)
    return bool(block.view(whole).max(initial=0) <= one)


def _first(bad: np.ndarray, block: np.ndarray) -> tuple[int, Any]:
    """Index along the first axis and value of the first element marked bad."""
    position = np.unravel_index(int(np.argmax(bad)), bad.shape)
    return int(position[0]), block[position].item()
