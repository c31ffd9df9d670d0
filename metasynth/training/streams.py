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

from metasynth.data.dataset import SliceDataset, draw_disjoint
from metasynth.errors import MetasynthError
from metasynth.training.seeding import generator_for
from metasynth.training.sources import Example, ReferenceKind, Source, mapped, reference_of


class StepBatch(NamedTuple):
    """The data of one step; ``outer`` and ``reference`` only where a hypergradient is due."""

    inner: Example
    outer: Example | None
    reference: Example | None

    def to(self, device: str) -> "StepBatch":
        """The same batch on another device."""
        return StepBatch(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]


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
    reference : {'random', 'matched', 'none'}
        The reference batch of such a step, see `reference_of`.
    """

    dataset: SliceDataset
    inner: Source
    outer: Source | None
    seed: int
    batch_size: int
    outer_batch_size: int = 1
    is_due: Callable[[int], bool] | None = None
    reference: ReferenceKind = "random"

    def __getitem__(self, step: int) -> StepBatch:
        draw = generator_for(self.seed, "subjects", step)
        ours, theirs = draw_disjoint(self.dataset, self.batch_size, self.outer_batch_size, draw)
        inner = self.inner(self.dataset.read(ours), generator_for(self.seed, "inner", step))
        if self.is_due is None or self.outer is None or not self.is_due(step):
            return StepBatch(inner, None, None)
        items = self.dataset.read(theirs)
        outer = self.outer(items, generator_for(self.seed, "outer", step))
        draws = generator_for(self.seed, "reference", step)
        reference = reference_of(self.reference, self.inner, items, outer, draws)
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
        return mapped(Tensor.numpy, batch)


def _as_tensors(made: _Arrays) -> StepBatch:
    parts = mapped(torch.from_numpy, made)
    return StepBatch(*(None if part is None else Example(*part) for part in parts))  # type: ignore[arg-type]


def _unchanged(made: Any) -> Any:
    """In place of the loader's conversion to tensors."""
    return made


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the main process ends the workers
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
