"""The contract of every strategy, for one model: against central differences over native trainings in float64."""

from collections.abc import Callable
from typing import Any

import torch
from bilevel.native_training import by_training_again, outer_parameters
from support.strategies import BIASED, EACH
from torch import Tensor, nn

from metasynth.bilevel.hypergradient import HypergradientStrategy, hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.implicit import Implicit
from metasynth.bilevel.strategies.linear_solve import ConjugateGradient
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.update.inner_update import InnerUpdate

Make = Callable[[], nn.Module]
"""Makes a model of (B, *) float64 to (B, 2), the same each time."""


def inner_loss(model: nn.Module, outer: dict[str, Tensor], given: Tensor) -> Tensor:
    return (model(given * outer["gain"] + outer["shift"]) - given.flatten(1)[:, :2]).square().mean()


def outer_loss(model: nn.Module, outer: dict[str, Tensor], given: Tensor) -> Tensor:
    return (model(given) - given.flatten(1)[:, :2].abs()).square().mean()


PROBLEM = BilevelProblem(inner_loss, outer_loss)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.02, eps=0.01)


def require_contract(make: Make, batch: Tensor, strategy: str, step: float = 1e-5) -> None:
    """One of `EACH` gives for a model what it gives for any; ``step`` is that of the differences."""
    chosen = EACH[strategy]
    found, error = solved(make(), batch, chosen)
    assert found.abs().max() > 1e-7
    if strategy not in BIASED:
        expected = by_training_again(PROBLEM, make, adam, batch, chosen.inner_steps, step)
        torch.testing.assert_close(found, expected, rtol=2e-5, atol=1e-9)
    elif strategy == "unrolled-3-last-1":
        torch.testing.assert_close(found, solved(make(), batch, Mixed(), before=2)[0], rtol=1e-9, atol=1e-13)
    elif strategy == "evolution_strategies":
        assert error is not None
        assert (found - solved(make(), batch, Mixed())[0]).norm() < 5 * error
    else:
        require_limit_of_one_small_step(make, batch)


def solved(
    model: nn.Module, batch: Tensor, strategy: HypergradientStrategy, before: int = 0
) -> tuple[Tensor, float | None]:
    """The hypergradient that a solver moves by after ``before`` plain steps, and the standard error it reports."""
    outer = outer_parameters()
    started = torch.stack([t.detach().clone() for t in outer.values()])
    own = torch.optim.SGD(outer.values(), lr=1.0)
    solver = BilevelSolver(PROBLEM, model, adam(model.parameters()), outer, own, strategy)
    torch.manual_seed(1)
    for _ in range(before):
        solver.inner_step(batch)
    report = solver.step([batch] * strategy.inner_steps, batch)
    return started - torch.stack([t.detach() for t in outer.values()]), report.diagnostics.get("standard_error")


def require_limit_of_one_small_step(make: Make, batch: Tensor) -> None:
    """`Implicit` with damping d far above the curvature has x = v / d: that of one step of rate 1 / d."""
    damping = 1e7

    def computed(strategy: HypergradientStrategy) -> Tensor:
        model = make()
        update = InnerUpdate(torch.optim.SGD(model.parameters(), lr=1 / damping))
        inputs = StepInputs(PROBLEM, FunctionalModel(model), update, outer_parameters(), [batch])
        result, _ = hypergradient(inputs, batch, strategy)
        assert result.diagnostics.get("converged", 1.0) == 1.0
        return torch.stack([g for g in result.gradients.values() if g is not None])

    implicit, mixed = computed(Implicit(ConjugateGradient(damping=damping))), computed(Mixed())
    assert (implicit - mixed).norm() < 1e-3 * mixed.norm()
