"""What scripts share that draw hypergradients at a segmenter which was trained for a while and then frozen."""

import statistics
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from metasynth.bilevel import (
    BilevelProblem,
    BilevelSolver,
    FunctionalModel,
    InnerUpdate,
    Mixed,
    StepInputs,
    hypergradient,
)
from metasynth.bilevel.derivatives import Gradients
from metasynth.data import Cache
from metasynth.synthesis import PAPER, BatchedGenerator
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.sources import Example
from metasynth.training.trainers import bilevel_losses

WIDTHS = (8, 16, 32, 64)
CLIP = 3.0


class Frozen:
    """A segmenter with its optimiser, and an augmenter that stays as it is.

    Parameters
    ----------
    settings : SegmenterSettings
    segmenter, augmenter : torch.nn.Module
    """

    def __init__(self, settings: SegmenterSettings, segmenter: nn.Module, augmenter: nn.Module) -> None:
        self.optimizer = settings.optimizer(segmenter)
        self._problem = BilevelProblem(*bilevel_losses(settings))
        still = torch.optim.SGD(augmenter.parameters(), lr=0.0)
        self._solver = BilevelSolver(self._problem, segmenter, self.optimizer, augmenter, still)
        self._model, self._augmenter = FunctionalModel(segmenter), augmenter

    def train(self, inner: Example) -> None:
        """One step of the segmenter."""
        self._solver.inner_step(inner)

    def gradients(
        self,
        inner: Example,
        outer: Example,
        reference: Example | None = None,
        combine: Callable[[Gradients], Gradients] | None = None,
    ) -> dict[str, Tensor]:
        """The hypergradient at the segmenter as it is, by name of the augmenter's parameters; nothing moves."""
        inputs = StepInputs(self._problem, self._model, InnerUpdate(self.optimizer), self._augmenter, [inner])
        found, _ = hypergradient(inputs, outer, Mixed(), reference, combine)
        return {name: gradient for name, gradient in found.gradients.items() if gradient is not None}


def flat(gradients: dict[str, Tensor]) -> list[float]:
    """All numbers of a hypergradient, in order."""
    values: list[float] = torch.cat([gradient.flatten() for gradient in gradients.values()]).tolist()
    return values


def generator_of(cache: Cache) -> BatchedGenerator:
    """The paper's generator for the label maps of a cache."""
    return BatchedGenerator(cache.n_generation, PAPER.at_spacing(cache.info.spacing_mm[0]))


def clipped(values: Sequence[float]) -> list[float]:
    """Draws, each clipped at three times their median size."""
    limit = CLIP * statistics.median(map(abs, values))
    return [max(-limit, min(limit, value)) for value in values]


def one_thread() -> None:
    """Let torch compute with one thread, and take numbers too small for full precision for 0."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
