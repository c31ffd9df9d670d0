"""Inner steps taken again with something else in them, and what the values that they lead to say of a hypergradient."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from metasynth.bilevel.checks.flawed_operations import Mode
from metasynth.bilevel.derivatives import Gradients
from metasynth.bilevel.hypergradient import HypergradientStrategy, InnerStep
from metasynth.bilevel.patched.functional import Buffers
from metasynth.bilevel.patched.replay import Replay, require_equal_losses
from metasynth.bilevel.problem import Loss
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.segments import IterateMean
from metasynth.bilevel.update.updates import undifferentiated_steps


@dataclass(frozen=True)
class _Taken:
    """Where ordinary steps led to; the outer loss is taken at ``judged``."""

    parameters: list[Tensor]
    judged: list[Tensor]
    losses: list[Tensor]
    twin: Any


def _taken(inputs: StepInputs, parameters: list[Tensor], mean_of: int) -> _Taken:
    twin = inputs.update.start(list(inputs.model.model.parameters()))
    mean, losses = IterateMean(mean_of, len(inputs.batches)), []
    for batch in inputs.batches:
        parameters, found = undifferentiated_steps(inputs, twin, parameters, [batch])
        mean.add(parameters)
        losses += found
    return _Taken(parameters, mean.value(), losses, twin)


def plain_step(inputs: StepInputs, mean_of: int) -> InnerStep:
    """The inner steps of ``inputs``, as ordinary ones through which nothing is differentiated.

    ``mean_of``: see `HypergradientStrategy.mean_of`.
    """
    taken = _taken(inputs, inputs.model.refresh(), mean_of)
    nothing: Gradients = [None] * len(inputs.learned)
    return InnerStep(
        parameters=[p.detach() for p in taken.parameters],
        buffers=inputs.model.buffers(),
        optimizer=taken.twin,
        losses=tuple(taken.losses),
        pullback=lambda cotangents: nothing,
        judged=None if mean_of == 1 else taken.judged,
    )


class Trials:
    """The inner steps of ``inputs``, taken again from where they began, with the draws that they had.

    Parameters
    ----------
    inputs : StepInputs
        Not used since it was made.
    mean_of : int
        See `HypergradientStrategy.mean_of`.
    strategy : str
        Who asks, for messages.

    Raises
    ------
    ValueError
        If several processes share the work.
    """

    def __init__(self, inputs: StepInputs, mean_of: int, strategy: str) -> None:
        count = inputs.update.processes.count
        if count > 1:
            raise ValueError(
                f"{strategy} cannot be used with {count} processes, which would each make trials of their own; use one "
                "process, or Mixed, Forward, FiniteDifference or Implicit where derivatives serve all outer parameters"
            )
        self._inputs, self._mean_of = inputs, mean_of
        self._replay = Replay(inputs.model, inputs.outer, inputs.model.refresh())

    def take(self, around: Callable[[Loss], Loss] | None = None) -> tuple[list[Tensor], Buffers]:
        """Where the outer loss is to be taken, and the model's buffers there.

        ``around`` gives what is evaluated in place of the problem's inner loss.
        """
        inputs = self._inputs
        if around is not None:
            inputs = replace(inputs, problem=replace(inputs.problem, inner_loss=around(inputs.problem.inner_loss)))
        parameters = inputs.model.refresh()
        with self._replay.again():
            return _taken(inputs, parameters, self._mean_of).judged, inputs.model.buffers()


def require_replayed(inputs: StepInputs, strategy: str) -> None:
    """Raise ValueError unless the inner loss repeats itself from the same random states, as trials are compared."""
    parameters = inputs.model.refresh()
    replay = Replay(inputs.model, inputs.outer, parameters)
    losses = []
    for _ in range(2):
        with replay.again():
            losses.append(inputs.inner_loss(parameters, inputs.batches[0]).detach())
    require_equal_losses(losses[0], losses[1], strategy)


def own_stream() -> torch.Generator:
    """Random numbers of a strategy's own: from 31 bits of torch's global stream, with which runs are resumed."""
    return torch.Generator().manual_seed(int(torch.randint(2**31, ())))


class WithTrials(HypergradientStrategy):
    """Another strategy's steps; what trials of them say is added to its hypergradient."""

    strategy: HypergradientStrategy

    @property
    def inner_steps(self) -> int:
        """K, as of the other strategy."""
        return self.strategy.inner_steps

    @property
    def mean_of(self) -> int:
        """As of the other strategy."""
        return self.strategy.mean_of

    @property
    def mode(self) -> Mode:
        """As of the other strategy."""
        return self.strategy.mode

    @property
    def needs_hessian(self) -> bool:
        """As of the other strategy."""
        return self.strategy.needs_hessian


def note_error(step: InnerStep, estimates: "MeanOfEstimates") -> None:
    """Add a standard error to those that a step reports, as of independent ones."""
    before = step.diagnostics.get("standard_error", 0.0)
    step.diagnostics["standard_error"] = math.hypot(before, estimates.standard_error)


class MeanOfEstimates:
    """The mean of independent estimates of a hypergradient, and its standard error, without keeping them."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._count = 0
        self.mean = [torch.zeros_like(t) for t in tensors]
        self._squares = [torch.zeros_like(t) for t in tensors]

    def add(self, estimate: Sequence[Tensor]) -> None:
        """Take one in, an entry for each of the tensors (Welford 1962)."""
        self._count += 1
        for mean, squares, value in zip(self.mean, self._squares, estimate, strict=True):
            off = value - mean
            mean += off / self._count
            squares += off * (value - mean)

    @property
    def standard_error(self) -> float:
        """Of the mean, in the Euclidean norm over all entries: the root of its variances' sum."""
        total = sum(float(squares.double().sum()) for squares in self._squares)
        return (total / (self._count * (self._count - 1))) ** 0.5
