"""Values of the outer loss elsewhere than at φ*, for strategies that need them besides its gradient."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from metasynth.bilevel.derivatives import Gradients, difference_of
from metasynth.bilevel.patched.functional import Buffers
from metasynth.bilevel.patched.replay import Replay
from metasynth.bilevel.step_inputs import StepInputs


@dataclass(frozen=True)
class OuterValues:
    """The function of φ whose gradient at φ* is what is pulled back; evaluated with the draws that it had there.

    Without more it is L_outer(φ, θ). A reference batch takes L_inner(φ, θ; reference) from it, with θ held. Where
    another vector m is pulled back than its gradient v, such as a running mean, (m - v)ᵀ (φ - φ*) is added.

    Attributes
    ----------
    inputs : StepInputs
        The problem, the patched model and θ.
    outer_batch, reference_batch : any
        Handed to the losses; no reference: None.
    replays : sequence of Replay
        What the outer pass and, if there is one, the reference pass started from.
    at : sequence of tensor
        φ*.
    tilt : list of (tensor or None)
        m - v.
    """

    inputs: StepInputs
    outer_batch: Any
    reference_batch: Any
    replays: Sequence[Replay]
    at: Sequence[Tensor]
    tilt: Gradients

    def __call__(
        self,
        parameters: Sequence[Tensor],
        buffers: Buffers,
        within: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> Tensor:
        """The value, tensor () float64.

        Parameters
        ----------
        parameters, buffers :
            φ, and the model's buffers with it.
        within : callable
            Gives a context for the evaluation of L_outer alone, in which θ or what is drawn may be others.
        """
        inputs, phi = self.inputs, [p.detach() for p in parameters]
        with self.replays[0].again(), within():
            inputs.model.load_buffers(buffers)
            value = inputs.problem.outer_value(inputs.model.bind(phi), inputs.outer, self.outer_batch).detach().double()
        if self.reference_batch is not None:
            with self.replays[1].again():
                inputs.model.load_buffers(buffers)
                value = value - inputs.inner_loss(phi, self.reference_batch).detach().double()
        inputs.model.release()
        for slope, here, there in zip(self.tilt, phi, self.at, strict=True):
            if slope is not None:
                moved = (here - there.detach()).double()
                value = value + (slope.detach().double() * moved).sum().to(value.device)
        return value


def tilt_of(combined: Gradients, cotangents: Gradients) -> Gradients:
    """The difference m - v, None wherever nothing was put in the place of v."""
    pairs = zip(combined, cotangents, strict=True)
    return [None if m is v else difference_of(m, v) for m, v in pairs]
