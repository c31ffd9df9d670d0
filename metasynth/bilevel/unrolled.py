"""Reverse mode through K differentiable updates of a `higher` monkeypatched model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metasynth.bilevel.functional import FunctionalModel
from metasynth.bilevel.hypergradient import HypergradientStrategy, InnerStep, pull
from metasynth.bilevel.optimizers import differentiable
from metasynth.bilevel.problem import BilevelProblem, Outer, named_outer_parameters, scalar_loss


@dataclass(frozen=True)
class Unrolled(HypergradientStrategy):
    """K inner steps, differentiated in reverse from the last to the first.

    General and exact: the parameters and the optimiser's moments are followed through every step. Memory grows
    with K, as the graphs of all K steps are kept until the pullback.

    Parameters
    ----------
    steps : int
        K >= 1.
    """

    steps: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps must be an integer of at least 1, got {self.steps!r}")

    @property
    def inner_steps(self) -> int:
        """K."""
        return self.steps

    def inner_step(
        self,
        problem: BilevelProblem,
        model: FunctionalModel,
        optimizer: torch.optim.Optimizer,
        outer: Outer,
        batches: Sequence[Any],
    ) -> InnerStep:
        """See `HypergradientStrategy.inner_step`."""
        parameters = model.refresh()
        twin = differentiable(optimizer, list(model.model.parameters()))
        losses = []
        for batch in batches:
            loss = scalar_loss(problem.inner_loss, "inner_loss", model.bind(parameters), outer, batch)
            parameters = list(twin.step(loss, params=parameters))
            losses.append(loss.detach())
        learned = list(named_outer_parameters(outer).values())

        def pullback(cotangents: Sequence[Tensor | None]) -> list[Tensor | None]:
            return pull(parameters, cotangents, learned)

        return InnerStep(
            parameters=[p.detach() for p in parameters],
            buffers=model.buffers(),
            optimizer=twin,
            losses=tuple(losses),
            pullback=pullback,
        )
