"""The update of the inner parameters by itself, with its vector-Jacobian product; and steps that keep no graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metasynth.bilevel.derivatives import Gradients, gradient_of, pull
from metasynth.bilevel.step_inputs import StepInputs


@dataclass(frozen=True)
class Update:
    """φ* = U(φ, g, θ; state), differentiable in g and, where θ sets hyperparameters of the update, in θ.

    Attributes
    ----------
    parameters : list of tensor
        φ*, with the (elementwise, cheap) graph of the update.
    gradients : list of (tensor or None)
        g, leaves of that graph.
    learned : list of tensor
        The learned outer parameters θ, which may be leaves of it too.
    optimizer : higher.optim.DifferentiableOptimizer
        Holds the optimiser's state after the update.
    """

    parameters: list[Tensor]
    gradients: Gradients
    learned: list[Tensor]
    optimizer: Any

    def pull(self, cotangents: Sequence[Tensor | None]) -> tuple[Gradients, Gradients]:
        """The products w = (∂U/∂g)ᵀ v and (∂U/∂θ)ᵀ v; None where there is no dependence. May be called once."""
        found = pull(self.parameters, cotangents, [*self.gradients, *self.learned])
        return found[: len(self.gradients)], found[len(self.gradients) :]


def update_of(inputs: StepInputs, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Update:
    """One update from φ (``parameters``) by g (``gradients``, averaged over processes here), each as a constant.

    Raises
    ------
    ValueError
        From `InnerUpdate.start` or `InnerUpdate.apply`.
    """
    update = inputs.update
    averaged = update.average([None if g is None else g.detach() for g in gradients])
    leaves = [None if g is None else g.requires_grad_() for g in averaged]
    twin = update.start(list(inputs.model.model.parameters()))
    moved = update.apply(twin, [p.detach() for p in parameters], leaves, inputs.outer)
    return Update(moved, leaves, list(inputs.learned.values()), twin)


def loss_and_gradient(
    inputs: StepInputs, parameters: list[Tensor], batch: Any, as_differentiated: bool = False
) -> tuple[Tensor, Gradients]:
    """The inner loss (detached) and its gradient at φ by an ordinary backward pass, of which no graph is kept.

    With ``as_differentiated`` the gradient is, to the bit, that of a pass whose graph is kept: torch may compute one
    that can be differentiated in another order.
    """
    loss = inputs.inner_loss(parameters, batch)
    gradients = gradient_of(loss, parameters, create_graph=as_differentiated)
    return loss.detach(), [None if g is None else g.detach() for g in gradients]


def undifferentiated_steps(
    inputs: StepInputs, twin: Any, parameters: list[Tensor], batches: Sequence[Any], as_differentiated: bool = False
) -> tuple[list[Tensor], list[Tensor]]:
    """Take ordinary inner steps from φ: each costs a plain training step, and no graph outlives it.

    ``batches`` are those of ``inputs`` or a part of them, one a step. ``twin`` is a differentiable optimiser, whose
    state moves on with the steps; ``parameters`` are leaves, as `FunctionalModel.refresh` returns them. Returned are φ
    after the steps, leaves again, and one detached loss a step. ``as_differentiated``: see `loss_and_gradient`.
    """
    update, losses = inputs.update, []
    for batch in batches:
        loss, gradients = loss_and_gradient(inputs, parameters, batch, as_differentiated)
        with torch.no_grad():
            moved = update.apply(twin, [p.detach() for p in parameters], update.average(gradients), inputs.outer)
        parameters = [p.detach().requires_grad_(old.requires_grad) for p, old in zip(moved, parameters, strict=True)]
        losses.append(loss)
    return parameters, losses
