"""The best checkpoint of a training by its validation subjects, and the most memory that it took."""

import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from metasynth.training.streams import StepBatch
from metasynth.training.trainers import Trainer

Weights = dict[str, Tensor]
"""The state of a segmenter, on the CPU."""

MIB = 2**20


@final
class Selecting:
    """A trainer that looks at validation subjects now and then and keeps the weights that were best.

    It takes the steps of another trainer, and is saved with it: a training that is resumed keeps the weights, bit for
    bit, that it would have kept uninterrupted. Of equal values the first counts. The last step is always looked at.

    Parameters
    ----------
    trainer : Trainer
        Takes the steps.
    segmenter : torch.nn.Module
        Whose weights are kept.
    validate : callable
        Gives the value to raise, such as the mean Dice.
    every, steps : int
        Steps between looks, and in all. What falls between steps that are taken as one comes after the last of them.
    memory : PeakMemory
        Of this session; the most of all sessions is kept.

    Attributes
    ----------
    best : Weights
        Those at ``best_step``, with the value ``best_value``.
    last_value : float
        The value at the latest look.
    peak_mib : float
        Peak memory of all sessions until the latest save.
    """

    def __init__(
        self,
        trainer: Trainer,
        segmenter: nn.Module,
        validate: Callable[[], float],
        every: int,
        steps: int,
        memory: "PeakMemory",
    ) -> None:
        self._trainer, self._segmenter, self._validate = trainer, segmenter, validate
        self._every, self._steps, self._memory = every, steps, memory
        self.best: Weights = {}
        self.best_value, self.best_step, self.last_value = float("-inf"), 0, float("-inf")
        self.peak_mib = 0.0

    def step(self, index: int, batch: StepBatch) -> list[dict[str, Any]]:
        """The other trainer's step; the last record has ``validation`` where the subjects were looked at."""
        records = self._trainer.step(index, batch)
        before = index + 1 - len(records)
        if (index + 1) // self._every == before // self._every and index + 1 != self._steps:
            return records
        self.last_value = self._validate()
        if self.last_value > self.best_value:
            self.best, self.best_value, self.best_step = weights_of(self._segmenter), self.last_value, index + 1
        return [*records[:-1], {**records[-1], "validation": self.last_value}]

    def state_dict(self) -> dict[str, Any]:
        """The other trainer's, what was kept, and how much memory was taken."""
        self.peak_mib = max(self.peak_mib, self._memory.mib())
        return {
            "trainer": self._trainer.state_dict(),
            "best": self.best,
            "best_value": self.best_value,
            "best_step": self.best_step,
            "last_value": self.last_value,
            "peak_mib": self.peak_mib,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self._trainer.load_state_dict(state["trainer"])
        self.best, self.best_value, self.best_step = state["best"], state["best_value"], state["best_step"]
        self.last_value, self.peak_mib = state["last_value"], state["peak_mib"]


def weights_of(segmenter: nn.Module) -> Weights:
    """A copy of a segmenter's state."""
    return {name: value.detach().cpu().clone() for name, value in segmenter.state_dict().items()}


@final
class PeakMemory:
    """The most memory taken since it was made.

    On a GPU what torch allocated there; else the resident memory of this process, without those that make its data.
    Where the system cannot count anew (other than Linux), that of the process since it started.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak becomes what is resident now

    def mib(self) -> float:
        """Peak memory in MiB."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / MIB
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB
