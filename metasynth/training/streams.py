"""What a training step is fed: counter-based, so that step t sees the same data however the run got there.

Every random draw of step t comes from generators seeded by (run seed, what for, t). Nothing depends on the steps
before, on the number of worker processes, or on the stage: stages of one run that differ in their augmentation
only see the same label maps and the same noise-free images, step by step.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from metasynth.data.dataset import Batch, SliceDataset, draw_half, draw_items
from metasynth.errors import MetasynthError, RunError
from metasynth.running.seeding import generator_for
from metasynth.training.sources import Example, ReferenceKind, Source, mapped, reference_of
from metasynth.workers import WorkerEnded, WorkerFailed, in_order

AHEAD = 4  # batches that each worker has made or is making

_People = TypeVar("_People")


class StepBatch(NamedTuple):
    """The data of one step; ``outer`` and ``reference`` only where a hypergradient is due."""

    inner: Example
    outer: Example | None
    reference: Example | None

    def to(self, device: str) -> "StepBatch":
        """The same batch on another device."""
        return StepBatch(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Steps(Dataset[StepBatch]):
    """Step t's data as item t: what is the same wherever the examples come from.

    Attributes
    ----------
    seed : int
        The run's.
    batch_size, outer_batch_size : int
        Inner examples, and outer ones.
    is_due : callable or None
        Whether step t takes a hypergradient; None: never.
    window_end : callable or None
        The last step of the window that step t is of. A hypergradient follows all steps of its window, so these have
        one division of people: nobody whose label map they are synthesised from is in the outer batch of the last.
        None: every step is a window of its own.
    reference : {'random', 'matched', 'none'}
        The reference batch of such a step, see `reference_of`.
    """

    seed: int
    batch_size: int
    outer_batch_size: int = 1
    is_due: Callable[[int], bool] | None = None
    window_end: Callable[[int], int] | None = None
    reference: ReferenceKind = "random"

    def divided(self, step: int, divide: Callable[[torch.Generator], _People]) -> tuple[_People, torch.Generator]:
        """Who of the people is for what in a step, as ``divide`` draws it, and what draws their items.

        Nothing depends on the window but the people: of a step that is its own window both are of one generator.
        """
        draw = generator_for(self.seed, "subjects", step)
        people = divide(draw)
        last = step if self.window_end is None else self.window_end(step)
        if last != step:
            people = divide(generator_for(self.seed, "subjects", last))
        return people, draw

    def completed(
        self, step: int, inner: Example, synthetic: Source, real: Callable[[], tuple[Batch, Example]]
    ) -> StepBatch:
        """The step's batch: with outer and reference examples where a hypergradient is due.

        Parameters
        ----------
        step : int
            From 0.
        inner : Example
        synthetic : callable
            What makes the reference examples.
        real : callable
            Makes the outer examples, and gives the items that they are of.
        """
        if self.is_due is None or not self.is_due(step):
            return StepBatch(inner, None, None)
        items, outer = real()
        draws = generator_for(self.seed, "reference", step)
        return StepBatch(inner, outer, reference_of(self.reference, synthetic, items, outer, draws))


@dataclass(frozen=True)
class StepData(Steps):
    """The data of a study with one cache.

    Attributes
    ----------
    dataset : SliceDataset
        The training subjects. In every window they are halved at random: one half gives the label maps for synthesis,
        the other the real examples, which are those of the window's last step.
    inner, outer : callable
        How the examples are made; None: there are no outer ones.
    """

    dataset: SliceDataset
    inner: Source
    outer: Source | None

    def __getitem__(self, step: int) -> StepBatch:
        half, draw = self.divided(step, partial(draw_half, self.dataset))
        ours = draw_items(self.dataset, self.batch_size, draw, half)
        theirs = draw_items(self.dataset, self.outer_batch_size, draw, ~half)
        inner = self.inner(self.dataset.read(ours), generator_for(self.seed, "inner", step))
        if self.outer is None:
            return StepBatch(inner, None, None)
        make = self.outer

        def real() -> tuple[Batch, Example]:
            items = self.dataset.read(theirs)
            return items, make(items, generator_for(self.seed, "outer", step))

        return self.completed(step, inner, self.inner, real)


@dataclass(frozen=True)
class Part(Dataset[StepBatch]):
    """Of every step's batches the samples of one process.

    Each process draws the whole of a step, as one process does, and keeps every ``count``-th sample, from the
    ``rank``-th on: so the samples are the same however many processes share them. Samples of one kind, which stand side
    by side in a batch, are shared out evenly.

    Attributes
    ----------
    whole : Dataset of StepBatch
    rank, count : int
    """

    whole: Dataset[StepBatch]
    rank: int
    count: int

    def __getitem__(self, step: int) -> StepBatch:
        return StepBatch(*(None if part is None else self._of(part) for part in self.whole[step]))  # type: ignore[arg-type]

    def _of(self, example: Example) -> Example:
        size = len(example.labels)
        if size % self.count:
            raise RunError(f"a batch of {size} cannot be divided among the {self.count} processes of the run")

        def own(tensor: Any) -> Any:
            # What has no entry for each sample is of the whole batch.
            shared = not isinstance(tensor, torch.Tensor) or not tensor.ndim or len(tensor) != size
            return tensor if shared else tensor[self.rank :: self.count].contiguous()

        return Example(*mapped(own, example))


def stream(data: Dataset[StepBatch], start: int, stop: int, workers: int) -> Generator[StepBatch, None, None]:
    """The batches of steps start to stop - 1, made ahead by ``workers`` processes (0: in this one).

    Raises
    ------
    MetasynthError
        What the making of a batch raised, as it was.
    RunError
        If it raised something else, or a worker was killed.
    Interrupted
        If this process was asked to end, see `metasynth.interrupts`.
    """
    make, steps = _Made(data), range(start, stop)
    made = in_order(make, steps, workers=workers, ahead=AHEAD, prepare=_prepare_worker) if workers else map(make, steps)
    for step in steps:
        batch = _next(made, step, workers)
        if isinstance(batch, MetasynthError):
            raise batch
        yield _as_tensors(batch)


def _next(made: "Iterator[_Arrays | MetasynthError]", step: int, workers: int) -> "_Arrays | MetasynthError":
    try:
        return next(made)
    except WorkerEnded as error:
        raise RunError(
            f"a data worker was {error}, perhaps for want of memory: try --set pace.workers={workers // 2}; "
            "continue with --resume"
        ) from error
    except Exception as error:
        told = str(error) if isinstance(error, WorkerFailed) else f"{type(error).__name__}: {error}"
        raise RunError(f"the data of step {step + 1} could not be made: {told}") from error


_Arrays = tuple[Any, ...]
"""A `StepBatch` as nested plain tuples, with arrays for tensors."""


@dataclass(frozen=True)
class _Made:
    """The data as arrays, with errors as items: what pipes between processes take without shared memory."""

    data: Dataset[StepBatch]

    def __call__(self, step: int) -> _Arrays | MetasynthError:
        try:
            return mapped(Tensor.numpy, self.data[step])
        except MetasynthError as error:
            return error


def _as_tensors(made: _Arrays) -> StepBatch:
    parts = mapped(torch.from_numpy, made)
    return StepBatch(*(None if part is None else Example(*part) for part in parts))  # type: ignore[arg-type]


def _prepare_worker() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
