"""What a training step is fed: counter-based, so that step t sees the same data however the run got there.

Every random draw of step t comes from generators seeded by (run seed, what for, t). Nothing depends on the steps
before, on the number of worker processes, or on the stage: stages of one run that differ in their augmentation
only see the same label maps and the same noise-free images, step by step.
"""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from metasynth.augment.augmenter import Augmenter, Draws
from metasynth.augment.corruption import Corruption
from metasynth.augment.noise import standard_normal
from metasynth.data.dataset import Batch, SliceDataset, draw_disjoint
from metasynth.errors import DataError, MetasynthError
from metasynth.synthesis.generator import ImageGenerator
from metasynth.training.seeding import generator_for


class Example(NamedTuple):
    """Images with their truth.

    ``images`` (B, 1, *S) float32; ``labels`` (B, *S) int64; ``draws`` what the augmenter is to apply, a tensor (B, ...)
    or a nested tuple of such, or None where the images are final.
    """

    images: Tensor
    labels: Tensor
    draws: Draws | None

    def to(self, device: str) -> "Example":
        """The same example on another device."""
        return Example(*_mapped(lambda x: x.to(device), self))


class StepBatch(NamedTuple):
    """The data of one step; ``outer`` and ``reference`` only where a hypergradient is due."""

    inner: Example
    outer: Example | None
    reference: Example | None

    def to(self, device: str) -> "StepBatch":
        """The same batch on another device."""
        return StepBatch(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]


def _mapped(function: Callable[[Any], Any], parts: Any) -> Any:
    """``function`` of every tensor or array in nested tuples; None stays, and tuples become plain ones."""
    if parts is None:
        return None
    return tuple(_mapped(function, part) for part in parts) if isinstance(parts, tuple) else function(parts)


Draw = Callable[[Tensor, torch.Generator], Draws]
"""Makes an augmenter's draws for images; `metasynth.augment.augmenter.Augmenter.draw`."""

Source = Callable[[Batch, torch.Generator], Example]
"""Makes an example from items of a cache; picklable, so that workers can have it."""


@dataclass(frozen=True)
class Synthetic:
    """Clean synthetic images, with draws for the augmenter to apply."""

    generator: ImageGenerator
    draw: Draw = standard_normal

    def __call__(self, batch: Batch, generator: torch.Generator) -> Example:
        """Images and deformed labels of a batch's label maps."""
        images, labels = self.generator(batch.labels, generator)
        return Example(images, labels, self.draw(images, generator))


@dataclass(frozen=True)
class Corrupted:
    """Synthetic images with a known corruption: the "real" domain of the paper's section 4.1.

    From the same generator state it makes the same clean images as `Synthetic`.
    """

    generator: ImageGenerator
    corruption: Corruption

    def __call__(self, batch: Batch, generator: torch.Generator) -> Example:
        """Corrupted images and deformed labels of a batch's label maps."""
        images, labels = self.generator(batch.labels, generator)
        return Example(self.corruption.corrupt(images, generator), labels, None)


@dataclass(frozen=True)
class Augmented:
    """Synthetic images as an augmenter that is no longer learned makes them."""

    generator: ImageGenerator
    augmenter: Augmenter

    def __call__(self, batch: Batch, generator: torch.Generator) -> Example:
        """Augmented images and deformed labels of a batch's label maps."""
        images, labels = self.generator(batch.labels, generator)
        with torch.no_grad():
            return Example(self.augmenter(images, self.augmenter.draw(images, generator)), labels, None)


@dataclass(frozen=True)
class Real:
    """The images of a cache with their labels, as they are; no randomness."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Example:
        """The batch's own images and labels.

        Raises
        ------
        DataError
            If the cache holds labels only.
        """
        if batch.images is None:
            raise DataError("real examples need a cache with images, got one with labels only")
        return Example(batch.images, batch.labels, None)


@dataclass(frozen=True)
class StepData(Dataset[StepBatch]):
    """Step t's data as item t.

    Attributes
    ----------
    dataset : SliceDataset
        The training subjects. In every step they are halved at random: one half gives the label maps for synthesis,
        the other the real examples.
    inner, outer : callable
        How the examples are made.
    seed : int
        The run's.
    batch_size, outer_batch_size : int
        Examples of each kind.
    is_due : callable or None
        Whether step t takes a hypergradient; None: never.
    reference : bool
        Whether such a step gets a reference batch. It is synthesised from the label maps of the real examples, with
        randomness of its own, so that anatomy does not tell it from them.
    """

    dataset: SliceDataset
    inner: Source
    outer: Source | None
    seed: int
    batch_size: int
    outer_batch_size: int = 1
    is_due: Callable[[int], bool] | None = None
    reference: bool = True

    def __getitem__(self, step: int) -> StepBatch:
        draw = generator_for(self.seed, "subjects", step)
        ours, theirs = draw_disjoint(self.dataset, self.batch_size, self.outer_batch_size, draw)
        inner = self.inner(self.dataset.read(ours), generator_for(self.seed, "inner", step))
        if self.is_due is None or self.outer is None or not self.is_due(step):
            return StepBatch(inner, None, None)
        items = self.dataset.read(theirs)
        outer = self.outer(items, generator_for(self.seed, "outer", step))
        reference = self.inner(items, generator_for(self.seed, "reference", step)) if self.reference else None
        return StepBatch(inner, outer, reference)


def stream(data: Dataset[StepBatch], start: int, stop: int, workers: int) -> Iterator[StepBatch]:
    """The batches of steps start to stop - 1, made ahead by ``workers`` processes (0: in this one).

    Raises
    ------
    MetasynthError
        What the making of a batch raised, as it was; torch would put a worker's traceback into the message.
    """
    loader = DataLoader(
        _Made(data),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        collate_fn=_unchanged,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # the loader draws a seed it does not need; not from the global stream
    )
    for made in loader:
        if isinstance(made, MetasynthError):
            raise made
        yield _as_tensors(made)


_Arrays = tuple[Any, ...]
"""A `StepBatch` as nested plain tuples, with arrays for tensors."""


@dataclass(frozen=True)
class _Made(Dataset[_Arrays | MetasynthError]):
    """The data as arrays, with errors as items.

    Tensors would be passed between processes as open files in shared memory: a worker whose receiver is interrupted
    in between prints a traceback, and machines with little shared memory have no room for them.
    """

    data: Dataset[StepBatch]

    def __getitem__(self, step: int) -> _Arrays | MetasynthError:
        try:
            batch = self.data[step]
        except MetasynthError as error:
            return error
        return _mapped(Tensor.numpy, batch)


def _as_tensors(made: _Arrays) -> StepBatch:
    parts = _mapped(torch.from_numpy, made)
    return StepBatch(*(None if part is None else Example(*part) for part in parts))  # type: ignore[arg-type]


def _unchanged(made: Any) -> Any:
    """In place of the loader's conversion to tensors."""
    return made


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the main process ends the workers
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
