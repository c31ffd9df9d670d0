"""How the inner parameters move, given their gradient: the optimiser and what is done around it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metasynth.bilevel.derivatives import Gradients
from metasynth.bilevel.optimizers import apply_update, commit_state, differentiable
from metasynth.bilevel.problem import Outer
from metasynth.bilevel.processes import Processes


@dataclass(frozen=True)
class InnerUpdate:
    """φ* = U(φ, g; state), with U an optimiser's step.

    Attributes
    ----------
    optimizer : torch.optim.Optimizer
        Of a type registered with `higher`; made on parameters of the inner model.
    processes : Processes
        The gradient g is averaged over them before anything else.
    """

    optimizer: torch.optim.Optimizer
    processes: Processes = field(default_factory=Processes)

    def start(self, parameters: Sequence[Tensor]) -> Any:
        """A differentiable twin of the optimiser, with a copy of its state.

        Parameters
        ----------
        parameters : sequence of tensor
            The model's own, all of them, in order.

        Raises
        ------
        ValueError
            If the optimiser cannot be differentiated; see `metasynth.bilevel.optimizers.differentiable`.
        """
        return differentiable(self.optimizer, parameters)

    def apply(
        self, twin: Any, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None], outer: Outer
    ) -> list[Tensor]:
        """φ* from φ and g (already averaged); differentiable in both. The twin's state moves on."""
        return apply_update(twin, parameters, gradients)

    def average(self, gradients: Sequence[Tensor | None]) -> Gradients:
        """The gradient over all processes."""
        return self.processes.mean(gradients)

    def commit(self, twin: Any) -> None:
        """Write the twin's state into the optimiser, as if it had stepped."""
        commit_state(self.optimizer, twin)
