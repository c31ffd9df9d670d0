"""Strategies for one inner step, in three separate parts, of which the second derivative is one."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from metasynth.bilevel.derivatives import Gradients, sum_of
from metasynth.bilevel.hypergradient import HypergradientStrategy, InnerStep
from metasynth.bilevel.patched.replay import Replay
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.update.updates import loss_and_gradient, update_of


@dataclass(frozen=True)
class InnerPass:
    """The inner loss at φ, with what is to be differentiated of it.

    Attributes
    ----------
    loss : tensor
        Detached.
    gradients : list of (tensor or None)
        g = ∂L_inner/∂φ.
    product : callable
        Maps w, one entry per parameter, to (∂g/∂θ)ᵀ w, one entry per learned outer parameter. May be called once.
    """

    loss: Tensor
    gradients: Gradients
    product: Callable[[Gradients], Gradients]


@dataclass(frozen=True)
class Point:
    """Where a mixed derivative is taken.

    Attributes
    ----------
    inputs : StepInputs
        With the one batch that the inner loss is evaluated on.
    parameters : list of tensor
        φ, leaves.
    replay : Replay
        What the passes start from.
    loss : tensor or None
        The inner loss at φ, detached, by which a pass that does not repeat it can be told; None if it is not known.
    gradients : list of (tensor or None), or None
        g at φ, if it is known.
    diagnostics : dict
        For what the strategy reports of its accuracy.
    """

    inputs: StepInputs
    parameters: list[Tensor]
    replay: Replay
    loss: Tensor | None = None
    gradients: Gradients | None = None
    diagnostics: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, inputs: StepInputs) -> "Point":
        """The model's present state, with its flags and buffers taken over."""
        parameters = inputs.model.refresh()
        return cls(inputs, parameters, Replay(inputs.model, inputs.outer, parameters))

    @property
    def batch(self) -> Any:
        """What the inner loss is evaluated on."""
        return self.inputs.batches[0]

    @property
    def learned(self) -> list[Tensor]:
        """The learned outer parameters θ."""
        return list(self.inputs.learned.values())

    def inner_loss(self, parameters: Sequence[Tensor]) -> Tensor:
        """L_inner on the batch, at φ or at other parameters."""
        return self.inputs.inner_loss(parameters, self.batch)


class ProductStrategy(HypergradientStrategy):
    """One inner step; the hypergradient as the product of three parts (`metasynth.bilevel.hypergradient`).

    Concrete strategies say how (∂g/∂θ)ᵀ w is computed.
    """

    @property
    def inner_steps(self) -> int:
        """Always one."""
        return 1

    @property
    def needs_hessian(self) -> bool:
        """No: φ is a constant of a single step."""
        return False

    @abstractmethod
    def mixed_derivative(self, point: Point, direction: Gradients) -> Gradients:
        """The product (∂g/∂θ)ᵀ w by passes of its own, one entry per learned outer parameter.

        ``direction`` is w, one entry per parameter, not all None.
        """

    def inner_pass(self, point: Point) -> InnerPass:
        """Loss and gradient at φ; here by an ordinary backward pass, of which no graph is kept."""
        loss, gradients = loss_and_gradient(point.inputs, point.parameters, point.batch)
        known = replace(point, loss=loss, gradients=gradients)
        return InnerPass(loss, gradients, lambda direction: self.mixed_derivative(known, direction))

    def inner_step(self, inputs: StepInputs) -> InnerStep:
        """See `HypergradientStrategy.inner_step`."""
        model = inputs.model
        point = Point.of(inputs)
        first = self.inner_pass(point)
        taken = update_of(inputs, point.parameters, first.gradients)

        def pullback(cotangents: Sequence[Tensor | None]) -> Gradients:
            direction, direct = taken.pull(cotangents)
            if all(w is None for w in direction):
                return direct
            found = first.product(direction)
            model.release()
            return [sum_of(a, b) for a, b in zip(found, direct, strict=True)]

        return InnerStep(
            parameters=[p.detach() for p in taken.parameters],
            buffers=model.buffers(),
            optimizer=taken.optimizer,
            losses=(first.loss,),
            pullback=pullback,
            diagnostics=point.diagnostics,
        )
