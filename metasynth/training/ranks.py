"""A training over ranks: every process takes its part of the batch that one process would take."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from metasynth.bilevel.processes.processes import Processes
from metasynth.errors import RunError
from metasynth.running.ranks import Ranks
from metasynth.training.sources import Example, mapped
from metasynth.training.streams import StepBatch


def processes_of(ranks: Ranks) -> Processes:
    """What averages over the processes of a run."""
    return Processes() if ranks.count == 1 else Processes.current()


@dataclass(frozen=True)
class Part(Dataset[StepBatch]):
    """Of every step's batches the samples of one process.

    Each process draws the whole of a step, as one process does, and keeps the ``rank``-th of ``count`` equal parts: so
    the samples are the same however many processes share them.

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
        share = size // self.count

        def own(tensor: Any) -> Any:
            # What has no entry for each sample is of the whole batch.
            shared = not isinstance(tensor, torch.Tensor) or not tensor.ndim or len(tensor) != size
            return tensor if shared else tensor[self.rank * share : (self.rank + 1) * share].contiguous()

        return Example(*mapped(own, example))
