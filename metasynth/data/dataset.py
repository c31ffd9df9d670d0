"""Slices or volumes of some subjects of a cache, as tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metasynth.data.cache import Cache
from metasynth.errors import DataError

IN_MEMORY_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Batch:
    """Some items of a dataset.

    Attributes
    ----------
    labels : torch.Tensor
        (B, *S) int64 class indices: what losses, metrics and models see.
    images : torch.Tensor or None
        (B, 1, *S) float32 in [0, 1], or None from a label-only cache.
    subject : torch.Tensor
        (B,) int64, index into the dataset's `subjects`.
    fine : torch.Tensor or None
        (B, *S) int64 generation labels; None where they are the classes.
    target : torch.Tensor or None
        (G,) int64, the class of each generation label; None likewise.
    """

    labels: Tensor
    images: Tensor | None
    subject: Tensor
    fine: Tensor | None = None
    target: Tensor | None = None

    @property
    def structures(self) -> Tensor:
        """(B, *S) int64 generation labels: what images are synthesised from."""
        return self.labels if self.fine is None else self.fine

    def classes_of(self, structures: Tensor) -> Tensor:
        """The classes (B, *S) of generation labels such as these; the same tensor where these are the classes."""
        return structures if self.target is None else self.target[structures]


class SliceDataset:
    """The items of a cache that belong to the given subjects; kept in memory where they take less than 512 MB.

    Parameters
    ----------
    cache : Cache
        The cache to read from.
    subjects : sequence of str
        Names of the subjects, in the order their indices shall have.

    Attributes
    ----------
    subjects : sequence of str
        The names.
    subject_index : torch.Tensor
        (len,) int64, index of every item into `subjects`.
    slice_index : torch.Tensor
        (len,) int64, where every item lay along its volume's slicing axis.
    view : torch.Tensor
        (len,) int64, index of that axis into `CacheInfo.axes`.

    Raises
    ------
    DataError
        No subject is given, one is given twice, or one is not in the cache.
    """

    def __init__(self, cache: Cache, subjects: Sequence[str]) -> None:
        if not subjects:
            raise DataError(f"{cache.path}: a dataset needs at least one subject, got none")
        if len(set(subjects)) != len(subjects):
            raise DataError(f"{cache.path}: subjects of a dataset must be different, got {list(subjects)}")
        place = {name: i for i, name in enumerate(cache.subjects)}
        unknown = next((name for name in subjects if name not in place), None)
        if unknown is not None:
            raise DataError(f"{cache.path}: subject {unknown!r} is not in this cache of {len(place)} subjects")
        self.cache = cache
        self.subjects = tuple(subjects)
        position = np.full(len(cache.subjects), -1, dtype=np.int64)
        position[[place[name] for name in subjects]] = np.arange(len(subjects))
        own = position[cache.subject_index]
        self._rows = np.flatnonzero(own >= 0)
        self.subject_index = torch.from_numpy(own[self._rows])
        self.slice_index = torch.from_numpy(cache.slice_index[self._rows].astype(np.int64))
        self.view = torch.zeros(len(self), dtype=torch.int64)
        if cache.view is not None:
            self.view = torch.from_numpy(cache.view[self._rows])
        in_memory = len(self._rows) * cache.bytes_per_item < IN_MEMORY_BYTES
        fine = cache.info.has_generation
        self._target = torch.from_numpy(cache.target) if fine else None
        self._labels = cache.read_stored("labels", self._rows) if in_memory else None
        self._images = cache.read_stored("images", self._rows) if in_memory and cache.has_images else None

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: Tensor | Sequence[int]) -> Batch:
        """The items at the given positions, 0 to len - 1, in the given order.

        Parameters
        ----------
        indices : torch.Tensor or sequence of int
            (B,) positions; one may occur more than once.

        Raises
        ------
        DataError
            A position is out of range.
        """
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        outside = wanted[(wanted < 0) | (wanted >= len(self))]
        if outside.size:
            raise DataError(
                f"{self.cache.path}: index {int(outside[0])} is out of range; 0 to {len(self) - 1} are allowed"
            )
        if self._labels is not None:
            stored = self._labels[wanted].astype(np.int64)
            images = None if self._images is None else self._images[wanted].astype(np.float32)
        else:
            stored = self.cache.read_structures(self._rows[wanted])
            images = self.cache.read_images(self._rows[wanted]) if self.cache.has_images else None
        structures = torch.from_numpy(stored)
        return Batch(
            labels=structures if self._target is None else self._target[structures],
            images=None if images is None else torch.from_numpy(images).unsqueeze(1),
            subject=self.subject_index[torch.from_numpy(wanted)],
            fine=None if self._target is None else structures,
            target=self._target,
        )


def draw_disjoint(dataset: SliceDataset, n_a: int, n_b: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw two groups of items that share no subject.

    The subjects are halved anew in every call, see `draw_half`, then items are drawn evenly within each half: without
    repetition until all of its items are used, then again.

    Parameters
    ----------
    dataset : SliceDataset
        Where to draw from.
    n_a : int
        Size of the first group, at least 1.
    n_b : int
        Size of the second group, at least 1.
    generator : torch.Generator
        Source of all randomness (CPU).

    Returns
    -------
    tuple (torch.Tensor, torch.Tensor)
        Positions (n_a,) and (n_b,) int64 for `SliceDataset.read`.

    Raises
    ------
    DataError
        The dataset has fewer than 2 subjects, or a size is below 1.
    """
    if n_a < 1 or n_b < 1:
        raise DataError(f"n_a and n_b must be at least 1, got {n_a} and {n_b}")
    in_a = draw_half(dataset, generator)
    return draw_items(dataset, n_a, generator, in_a), draw_items(dataset, n_b, generator, ~in_a)


def draw_half(dataset: SliceDataset, generator: torch.Generator) -> Tensor:
    """Halve the subjects at random; an odd one goes to the half that is given.

    Parameters
    ----------
    dataset : SliceDataset
        Whose subjects are halved.
    generator : torch.Generator
        Source of all randomness (CPU).

    Returns
    -------
    torch.Tensor
        (len(dataset.subjects),) bool, who is in the half.

    Raises
    ------
    DataError
        The dataset has fewer than 2 subjects.
    """
    n_subjects = len(dataset.subjects)
    if n_subjects < 2:
        raise DataError(f"two groups without a common subject need at least 2 subjects, got {n_subjects}")
    half = torch.zeros(n_subjects, dtype=torch.bool)
    half[torch.randperm(n_subjects, generator=generator)[: (n_subjects + 1) // 2]] = True
    return half


def draw_items(dataset: SliceDataset, n: int, generator: torch.Generator, subjects: Tensor | None = None) -> Tensor:
    """Draw items evenly: without repetition until all are used, then again.

    Parameters
    ----------
    dataset : SliceDataset
        Where to draw from.
    n : int
        How many, at least 1.
    generator : torch.Generator
        Source of all randomness (CPU).
    subjects : torch.Tensor or None
        (len(dataset.subjects),) bool, whose items are drawn; by default everyone's.

    Returns
    -------
    torch.Tensor
        Positions (n,) int64 for `SliceDataset.read`.

    Raises
    ------
    DataError
        None of the subjects may be drawn from.
    """
    pool = torch.arange(len(dataset))
    if subjects is not None:
        pool = pool[subjects[dataset.subject_index]]
    if not len(pool):
        raise DataError("items can be drawn from at least 1 subject, got none")
    shuffles = [pool[torch.randperm(len(pool), generator=generator)] for _ in range(-(-n // len(pool)))]
    return torch.cat(shuffles)[:n]
