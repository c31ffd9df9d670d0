"""Reverse mode through the last T of K differentiable updates of a `higher` monkeypatched model.

In the memory of few steps: `metasynth.bilevel.strategies.segments`.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from metasynth.bilevel.derivatives import Gradients, gradient_of, pull
from metasynth.bilevel.hypergradient import HypergradientStrategy, InnerStep
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.segments import IterateMean, Segments, anchor_for, shared
from metasynth.bilevel.update.updates import undifferentiated_steps


@dataclass(frozen=True)
class Unrolled(HypergradientStrategy):
    """K inner steps, of which the last T are differentiated in reverse from the last to the first.

    With T = K general and exact: the parameters and the optimiser's moments are followed through every step. Memory
    grows with T, as the graphs of T steps are kept until the pullback.

    With T < K the parameters and moments before the last T steps are taken for constants (truncated
    back-propagation: Shaban et al. 2019). What is left out falls geometrically with T where the
    inner problem is strongly convex; elsewhere it is a bias towards the short term. A step that is not differentiated
    costs a plain training step.

    With ``remat`` the T steps are taken twice: once as ordinary steps, and again, about √T at a time and with their
    graph, from the last to the first (`metasynth.bilevel.strategies.segments`). The hypergradient is the same; memory
    is that of the graphs of about √T steps and as many copies of weights and moments, for one more plain step a step.

    With ``mean_of`` = n the outer loss is taken at the mean of the last n iterates, and h is its derivative. At a high
    learning rate an iterate is a noisy draw from about the point that a falling rate would lead to, and so is its v;
    the mean is near that point (Polyak & Juditsky 1992). The model goes on from the last iterate all the same.

    With several processes the average of g over them is part of the graph of every differentiated step, so that the
    pullback has an exchange a step too (`metasynth.bilevel.processes.averaged`).

    Parameters
    ----------
    steps : int
        K >= 1.
    last : int or None
        T in 1..K; None: all.
    remat : bool
        Recompute ("rematerialise") the graphs of steps in the pullback instead of keeping them.
    mean_of : int
        n in 1..T.
    """

    steps: int = 1
    last: int | None = None
    remat: bool = False
    mean_of: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps must be an integer of at least 1, got {self.steps!r}")
        if self.last is not None and not (isinstance(self.last, int) and 1 <= self.last <= self.steps):
            raise ValueError(f"last must be an integer from 1 to steps={self.steps} or None, got {self.last!r}")
        if not (isinstance(self.mean_of, int) and 1 <= self.mean_of <= self._differentiated):
            raise ValueError(
                f"mean_of must be an integer from 1 to the {self._differentiated} steps that are differentiated, "
                f"got {self.mean_of!r}"
            )

    @property
    def _differentiated(self) -> int:
        """T."""
        return self.steps if self.last is None else self.last

    @property
    def inner_steps(self) -> int:
        """K."""
        return self.steps

    @property
    def needs_hessian(self) -> bool:
        """Only if more than one step is differentiated."""
        return self._differentiated > 1

    def inner_step(self, inputs: StepInputs) -> InnerStep:
        """See `HypergradientStrategy.inner_step`."""
        model, update = inputs.model, inputs.update
        twin = update.start(list(model.model.parameters()))
        skipped = self.steps - self._differentiated
        parameters, losses = undifferentiated_steps(inputs, twin, model.refresh(), inputs.batches[:skipped])
        taken = (Segments if self.remat else _Kept)(inputs, twin, parameters, inputs.batches[skipped:], self.mean_of)
        return InnerStep(
            parameters=[p.detach() for p in taken.parameters],
            buffers=model.buffers(),
            optimizer=twin,
            losses=(*losses, *taken.losses),
            pullback=taken.pullback,
            judged=None if self.mean_of == 1 else taken.mean.value(),
        )


class _Kept:
    """Inner steps whose graphs are kept; see `Segments`, which takes the same."""

    def __init__(
        self, inputs: StepInputs, twin: Any, parameters: list[Tensor], batches: Sequence[Any], mean_of: int
    ) -> None:
        self._learned = list(inputs.learned.values())
        self.losses: list[Tensor] = []
        self.mean = IterateMean(mean_of, len(batches))
        self._averaged: deque[list[Tensor]] = deque(maxlen=mean_of)
        self._anchor = anchor_for(parameters)
        for batch in batches:
            loss = inputs.inner_loss(parameters, batch)
            gradients = gradient_of(loss, parameters, create_graph=True)
            averaged = inputs.update.average_in_graph(gradients, self._anchor)
            parameters = inputs.update.apply(twin, parameters, averaged, inputs.outer)
            self.losses.append(loss.detach())
            self.mean.add(parameters)
            self._averaged.append(parameters)
        self.parameters = parameters

    def pullback(self, cotangents: Sequence[Tensor | None]) -> Gradients:
        """(dφ̄/dθ)ᵀ of ``cotangents``, one entry per learned outer parameter."""
        n = len(self._averaged)
        iterates = [p for iterate in self._averaged for p in iterate]
        return pull(iterates, shared(cotangents, n) * n, [*self._learned, self._anchor])[:-1]
