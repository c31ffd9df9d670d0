"""Reverse mode through many inner steps in the memory of few: each segment of them is taken again for its graph.

T steps are cut into about √T segments (Griewank & Walther 2000, for one level of checkpoints). The first time they are
ordinary steps, and what each segment starts from is kept: φ, the optimiser's state, buffers and random states. The
pullback goes through the segments from the last to the first. It takes the steps of one again, with their graph, and
maps the derivatives at its end, in φ and in the optimiser's state, to those at its start.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metasynth.bilevel.derivatives import Gradients, gradient_of, pull, sum_of
from metasynth.bilevel.patched.replay import Replay, require_equal_losses
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.update.optimizers import States, load_states, moments_of, states_of
from metasynth.bilevel.update.updates import undifferentiated_steps

Moments = dict[tuple[int, int, str], Tensor | None]
"""Derivatives in the tensors of an optimiser's state, see `moments_of`."""


@dataclass(frozen=True)
class _Segment:
    """Some consecutive steps that were taken, what they started from, and how many of the last are in the mean."""

    parameters: list[Tensor]
    states: States
    replay: Replay
    batches: Sequence[Any]
    losses: list[Tensor]
    averaged: int


class Segments:
    """Inner steps that were taken in segments, to be differentiated once.

    Parameters
    ----------
    inputs : StepInputs
        What the steps are taken from.
    twin : higher.optim.DifferentiableOptimizer
        Its state moves on with the steps.
    parameters : list of tensor
        φ before them, leaves as `FunctionalModel.refresh` returns them.
    batches : sequence
        One a step, at least one.
    mean_of : int
        n: how many iterates the mean is of that the outer loss is taken at.

    Attributes
    ----------
    parameters : list of tensor
        φ after the steps, leaves.
    mean : IterateMean
        Of the last n iterates.
    losses : list of tensor
        One a step, detached.
    """

    def __init__(
        self, inputs: StepInputs, twin: Any, parameters: list[Tensor], batches: Sequence[Any], mean_of: int
    ) -> None:
        self._inputs = inputs
        self._again = inputs.update.start(list(inputs.model.model.parameters()))
        self._segments: list[_Segment] = []
        self.losses: list[Tensor] = []
        self.mean, self._mean_of = IterateMean(mean_of, len(batches)), mean_of
        size = math.ceil(math.sqrt(len(batches)))
        for start in range(0, len(batches), size):
            part = batches[start : start + size]
            before, states = parameters, states_of(twin)
            replay = Replay(inputs.model, inputs.outer, parameters)
            for batch in part:
                parameters, losses = undifferentiated_steps(inputs, twin, parameters, [batch], as_differentiated=True)
                self.losses += losses
                self.mean.add(parameters)
            averaged = min(len(part), max(0, start + len(part) - (len(batches) - mean_of)))
            self._segments.append(_Segment(before, states, replay, part, self.losses[start:], averaged))
        self.parameters = parameters

    def pullback(self, cotangents: Sequence[Tensor | None]) -> Gradients:
        """(dφ̄/dθ)ᵀ of ``cotangents``, one entry per learned outer parameter, with φ̄ the mean of the iterates.

        Raises
        ------
        ValueError
            When a step taken again has another loss.
        """
        through: Gradients = [None] * len(self._inputs.learned)
        each = shared(cotangents, self._mean_of)
        at_parameters: Gradients = [None] * len(cotangents)
        at_moments = Moments()
        while self._segments:
            found, at_parameters, at_moments = self._through(self._segments.pop(), each, at_parameters, at_moments)
            through = [sum_of(a, b) for a, b in zip(through, found, strict=True)]
        self._inputs.model.release()
        return through

    def _through(
        self, segment: _Segment, each: Gradients, at_parameters: Gradients, at_moments: Moments
    ) -> tuple[Gradients, Gradients, Moments]:
        """Derivatives in θ, and in φ and the moments at the segment's start, from those at its end.

        ``each`` is the derivative in every iterate that is in the mean.
        """
        start = [p.detach().requires_grad_(p.requires_grad) for p in segment.parameters]
        moments = moments_of(segment.states)
        for moment in moments.values():
            moment.requires_grad_()
        anchor = anchor_for(start)
        iterates = self._steps(segment, start, anchor)
        end_moments = moments_of(self._again.state)
        averaged = iterates[len(iterates) - segment.averaged :]
        learned = list(self._inputs.learned.values())
        found = pull(
            [*iterates[-1], *end_moments.values(), *(p for iterate in averaged for p in iterate)],
            [*at_parameters, *(at_moments.get(key) for key in end_moments), *each * len(averaged)],
            [*learned, *(p if p.requires_grad else None for p in start), *moments.values(), anchor],
        )
        n, m = len(learned), len(learned) + len(start)
        return found[:n], found[n:m], dict(zip(moments, found[m:-1], strict=True))

    def _steps(self, segment: _Segment, parameters: list[Tensor], anchor: Tensor) -> list[list[Tensor]]:
        """Take the segment's steps from leaves, with their graph; ``_again`` has the moments after them."""
        inputs = self._inputs
        iterates: list[list[Tensor]] = []
        load_states(self._again, segment.states)
        with segment.replay.again():
            for batch, before in zip(segment.batches, segment.losses, strict=True):
                loss = inputs.inner_loss(parameters, batch)
                # On a GPU sums may be taken in another order each time, which later steps amplify.
                require_equal_losses(before, loss, "Unrolled(remat=True)", not (iterates and loss.is_cuda))
                gradients = gradient_of(loss, parameters, create_graph=True)
                averaged = inputs.update.average_in_graph(gradients, anchor)
                parameters = inputs.update.apply(self._again, parameters, averaged, inputs.outer)
                iterates.append(parameters)
        return iterates


class IterateMean:
    """The mean of the last n iterates, as they come, in the memory of two.

    Parameters
    ----------
    n : int
    of : int
        How many iterates come in all.
    """

    def __init__(self, n: int, of: int) -> None:
        self._n, self._left_out = n, of - n
        self._first: list[Tensor] = []
        self._moved: list[Tensor] = []

    def add(self, iterate: Sequence[Tensor]) -> None:
        """Take the next iterate."""
        self._left_out -= 1
        values = [p.detach() for p in iterate]
        if self._left_out == -1:
            self._first, self._moved = values, [torch.zeros_like(p) for p in values]
        elif self._left_out < -1:
            for total, value, first in zip(self._moved, values, self._first, strict=True):
                total += value - first

    def value(self) -> list[Tensor]:
        """The mean: the first of them, and how far the others moved from it, so that what did not move is as it is."""
        return [first + moved / self._n for first, moved in zip(self._first, self._moved, strict=True)]


def anchor_for(parameters: Sequence[Tensor]) -> Tensor:
    """A zero that is a leaf, of the parameters' type: see `InnerUpdate.average_in_graph`."""
    return parameters[0].new_zeros(()).requires_grad_()


def shared(cotangents: Sequence[Tensor | None], n: int) -> Gradients:
    """The derivative in each of n iterates, from that in their mean."""
    return [None if v is None else v / n for v in cotangents]
