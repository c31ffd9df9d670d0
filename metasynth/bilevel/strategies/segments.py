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
    """Some consecutive steps that were taken, and what they started from."""

    parameters: list[Tensor]
    states: States
    replay: Replay
    batches: Sequence[Any]
    losses: list[Tensor]


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

    Attributes
    ----------
    parameters : list of tensor
        φ after the steps, leaves.
    losses : list of tensor
        One a step, detached.
    """

    def __init__(self, inputs: StepInputs, twin: Any, parameters: list[Tensor], batches: Sequence[Any]) -> None:
        self._inputs = inputs
        self._again = inputs.update.start(list(inputs.model.model.parameters()))
        self._segments: list[_Segment] = []
        self.losses: list[Tensor] = []
        size = math.ceil(math.sqrt(len(batches)))
        for start in range(0, len(batches), size):
            part = batches[start : start + size]
            states, replay = states_of(twin), Replay(inputs.model, inputs.outer, parameters)
            after, losses = undifferentiated_steps(inputs, twin, parameters, part)
            self._segments.append(_Segment(parameters, states, replay, part, losses))
            self.losses += losses
            parameters = after
        self.parameters = parameters

    def pullback(self, cotangents: Sequence[Tensor | None]) -> Gradients:
        """(dφ*/dθ)ᵀ of ``cotangents``, one entry per learned outer parameter.

        Raises
        ------
        ValueError
            When a step taken again has another loss.
        """
        through: Gradients = [None] * len(self._inputs.learned)
        at_parameters, at_moments = list(cotangents), Moments()
        while self._segments:
            found, at_parameters, at_moments = self._through(self._segments.pop(), at_parameters, at_moments)
            through = [sum_of(a, b) for a, b in zip(through, found, strict=True)]
        self._inputs.model.release()
        return through

    def _through(
        self, segment: _Segment, at_parameters: Gradients, at_moments: Moments
    ) -> tuple[Gradients, Gradients, Moments]:
        """Derivatives in θ, and in φ and the moments at the segment's start, from those at its end."""
        start = [p.detach().requires_grad_(p.requires_grad) for p in segment.parameters]
        moments = moments_of(segment.states)
        for moment in moments.values():
            moment.requires_grad_()
        end = self._steps(segment, start)
        end_moments = moments_of(self._again.state)
        learned = list(self._inputs.learned.values())
        found = pull(
            [*end, *end_moments.values()],
            [*at_parameters, *(at_moments.get(key) for key in end_moments)],
            [*learned, *(p if p.requires_grad else None for p in start), *moments.values()],
        )
        n, m = len(learned), len(learned) + len(start)
        return found[:n], found[n:m], dict(zip(moments, found[m:], strict=True))

    def _steps(self, segment: _Segment, parameters: list[Tensor]) -> list[Tensor]:
        """Take the segment's steps from leaves, with their graph; ``_again`` has the moments after them."""
        inputs = self._inputs
        load_states(self._again, segment.states)
        with segment.replay.again():
            for batch, before in zip(segment.batches, segment.losses, strict=True):
                loss = inputs.inner_loss(parameters, batch)
                require_equal_losses(before, loss, "Unrolled(remat=True)")
                gradients = gradient_of(loss, parameters, create_graph=True)
                parameters = inputs.update.apply(self._again, parameters, gradients, inputs.outer)
        return parameters
