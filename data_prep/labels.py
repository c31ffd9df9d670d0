"""From the ids of a label map to the classes of a cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from metasynth.data_prep import label_tables as tables
from numpy.typing import NDArray
from scipy import ndimage

from metasynth.errors import DataError, UsageError

Unknown = Literal["error", "background"]
LARGEST_TABLE = 1 << 20
REACH = 8  # voxels around the unsided ids in which a side is looked for


@dataclass(frozen=True)
class Structures:
    """What the images of a mapping's classes are synthesised from: generation labels, finer than the classes.

    Attributes
    ----------
    names : tuple of str
        Names of generation labels 0..G-1; label 0 is what has no intensity.
    labels : dict of int to int
        {id: generation label}; ids that are not listed have label 0.
    target : tuple of int
        (G,) class of each generation label.
    """

    names: tuple[str, ...]
    labels: dict[int, int] = field(repr=False)
    target: tuple[int, ...]


def require_every_class(where: str, class_names: Sequence[str], structures: Structures) -> None:
    """Refuse structures of which some class has none.

    Raises
    ------
    UsageError
        Which begins with ``where`` and names the class.
    """
    missing = [name for k, name in enumerate(class_names) if k not in structures.target]
    if missing:
        raise UsageError(f"{where}: class {missing[0]!r} has no structure to be synthesised from; expected one or more")


@dataclass(frozen=True)
class LabelMapping:
    """Which class each id of a label map becomes.

    Attributes
    ----------
    name : str
        Name or file of the mapping.
    class_names : tuple of str
        Names of classes 0..K-1; class 0 is the background.
    classes : dict of int to int
        {id: class}; ids that are background on purpose are listed too.
    text : str
        What the mapping does, for the cache.
    head : frozenset of int
        Ids that lie outside the brain, and so outside a brain mask made from labels.
    t1 : tuple of float
        (K,) typical T1 intensity of every class, used for alignment; empty when not known.
    unsided : tuple of int
        Ids of white matter that have no side (corpus callosum); they take the class of `sides` that is nearest.
    sides : tuple of int
        The classes they may take.
    structures : Structures or None
        What images are synthesised from, of which every class is one or several; None: the classes themselves.
    """

    name: str
    class_names: tuple[str, ...]
    classes: dict[int, int] = field(repr=False)
    text: str
    head: frozenset[int] = frozenset(tables.HEAD)
    t1: tuple[float, ...] = ()
    unsided: tuple[int, ...] = ()
    sides: tuple[int, ...] = ()
    structures: Structures | None = None

    def apply(
        self, labels: NDArray[np.integer], unknown: Unknown = "error", where: str = "label map"
    ) -> NDArray[np.uint8]:
        """Class indices (*S) uint8 of ids (*S) that are not negative.

        Raises
        ------
        DataError
            An id is not in the mapping and `unknown` is "error", or no voxel has a class above 0.
        """
        ids, counts, place = ids_of(labels)
        missing = np.array([int(i) not in self.classes for i in ids])
        if missing.any() and unknown == "error":
            found = ", ".join(f"{i} ({n} voxels)" for i, n in zip(ids[missing], counts[missing], strict=True))
            raise DataError(
                f"{where}: mapping {self.name} does not name {'ids' if missing.sum() > 1 else 'id'} {found}; "
                "--unknown background makes them background"
            )
        classes = place(np.array([self.classes.get(int(i), 0) for i in ids], dtype=np.uint8))
        if self.unsided:
            _take_nearest(classes, place(np.isin(ids, self.unsided)), self.sides)
        if not classes.any():
            raise DataError(f"{where}: none of its labels belongs to a class of mapping {self.name}")
        return classes

    def decides(self) -> list[Any]:
        """All that decides about what `apply_structures` gives, in an order of its own."""
        own = [sorted(self.classes.items()), self.class_names]
        if self.structures is None:
            return own
        return [*own, sorted(self.structures.labels.items()), self.structures.names, self.structures.target]

    def apply_structures(
        self, labels: NDArray[np.integer], unknown: Unknown = "error", where: str = "label map"
    ) -> NDArray[np.uint8]:
        """Generation labels (*S) uint8 of ids (*S), of which `classes_of` are what `apply` gives.

        Raises
        ------
        DataError
            As `apply`.
        """
        classes = self.apply(labels, unknown, where)
        if self.structures is None:
            return classes
        ids, _, place = ids_of(labels)
        return place(np.array([self.structures.labels.get(int(i), 0) for i in ids], dtype=np.uint8))

    def classes_of(self, structures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Class indices (*S) of generation labels (*S); the same array where these are the classes."""
        if self.structures is None:
            return structures
        return np.array(self.structures.target, dtype=np.uint8)[structures]

    def brain(self, labels: NDArray[np.integer]) -> NDArray[np.bool_]:
        """True (*S) where a label (*S) is above 0 and not one of the head outside the brain."""
        ids, _, place = ids_of(labels)
        return place(np.array([i > 0 and int(i) not in self.head for i in ids]))


def _take_nearest(classes: NDArray[np.uint8], where: NDArray[np.bool_], allowed: tuple[int, ...]) -> None:
    """Give the voxels in `where` the class of the nearest voxel whose class is allowed, in place."""
    boxes = ndimage.find_objects(where.astype(np.uint8))
    if not boxes:
        return
    box = tuple(slice(max(0, part.start - REACH), part.stop + REACH) for part in boxes[0])
    sources = np.isin(classes[box], allowed)
    if sources.any():
        nearest = ndimage.distance_transform_edt(~sources, return_distances=False, return_indices=True)
        classes[box][where[box]] = classes[box][tuple(nearest)][where[box]]


def ids_of(labels: NDArray[np.integer]) -> tuple[NDArray, NDArray, Callable[[NDArray], NDArray]]:
    """Ids that occur, their counts, and a function that puts one value per id in the ids' places."""
    top = int(labels.max())
    if top >= LARGEST_TABLE:
        ids, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
        return ids, counts, lambda values: values[inverse].reshape(labels.shape)
    counts = np.bincount(labels.ravel(), minlength=top + 1)
    ids = np.flatnonzero(counts)

    def place(values: NDArray) -> NDArray:
        whole = np.zeros(top + 1, dtype=values.dtype)
        whole[ids] = values
        return whole[labels]

    return ids, counts[ids], place
