"""A step that would move nothing is no step: it raises, in one line, and leaves all as it was."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bilevel.identical import assert_identical
from bilevel.segmentation import PROBLEM, Batch, Residual, batch, segmenter
from support.strategies import EACH
from torch import Tensor, nn

from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.outer_step import OuterStep
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.strategies.parts import InParts

STRATEGIES = EACH
INNER = (
    "inner_loss depends on no parameter that the inner Adam holds, so the step would move nothing; it may be detached, "
    "or evaluated under torch.no_grad"
)


def no_hypergradient(of: str) -> str:
    return (
        f"{of} depends on no parameter that is learned, so there is no hypergradient; it may be detached, or evaluated "
        "under torch.no_grad"
    )


def without_grad(loss: Callable[..., Tensor], *given: Any) -> Tensor:
    with torch.no_grad():
        return loss(*given)


CUTS: dict[str, Callable[..., Tensor]] = {
    "detached": lambda loss, *given: loss(*given).detach(),
    "no_grad": without_grad,
    "a new tensor": lambda loss, *given: torch.tensor(loss(*given).item(), dtype=torch.float64),
    "of a constant": lambda loss, *given: torch.ones((), dtype=torch.float64, requires_grad=True) * 2,
}


CASES = [*((strategy, "detached") for strategy in STRATEGIES), *(("mixed", how) for how in CUTS if how != "detached")]


class Cut:
    """A loss that is cut on request, for some of its batches."""

    def __init__(self, loss: Callable[..., Tensor]) -> None:
        self.loss = loss
        self.how: str | None = None
        self.which: Callable[[Batch], bool] = lambda given: True

    def __call__(self, model: nn.Module, outer: nn.Module, given: Batch) -> Tensor:
        if self.how is None or not self.which(given):
            return self.loss(model, outer, given)
        return CUTS[self.how](self.loss, model, outer, given)


def solver_of(strategy: HypergradientStrategy) -> tuple[BilevelSolver, Cut, Cut]:
    """Of losses that can be cut; its Dice couples samples, which the checks of `InParts` would refuse."""
    inner, outer = Cut(PROBLEM.inner_loss), Cut(PROBLEM.outer_loss)
    model, theta = segmenter(norm="batch"), Residual()
    theta.register_buffer("passes", torch.tensor(0.0))
    solver = BilevelSolver(
        BilevelProblem(inner, outer),
        model,
        torch.optim.Adam(model.parameters(), lr=1e-2),
        theta,
        torch.optim.Adam(theta.parameters(), lr=1e-2),
        strategy,
        OuterStep(average=2, clip=3.0, memory=0.5),
        check=not isinstance(strategy, InParts),
    )
    return solver, inner, outer


def batches(solver: BilevelSolver, start: int) -> list[Batch]:
    return [batch(start + k) for k in range(solver.strategy.inner_steps)]


def refuse(solver: BilevelSolver, call: Callable[[], Any], message: str) -> None:
    before = copy.deepcopy(solver.state_dict())
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()
    assert_identical(solver.state_dict(), before)
    assert all(p.grad is None for p in (*solver.model.parameters(), *solver.outer.parameters()))


@pytest.mark.parametrize(("strategy", "how"), CASES)
def test_an_inner_loss_that_is_cut_after_the_checks(strategy: str, how: str) -> None:
    solver, inner, _ = solver_of(STRATEGIES[strategy])
    solver.step(batches(solver, 0), batch(5), batch(6))
    inner.how = how
    refuse(solver, lambda: solver.step(batches(solver, 10), batch(15), batch(16)), INNER)
    refuse(solver, lambda: solver.inner_step(batch(20)), INNER)
    inner.how = None
    assert solver.step(batches(solver, 30), batch(35), batch(36)).outer_stepped


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("strategy", ["unrolled-3", "unrolled-3-last-1", "implicit-neumann-3"])
def test_any_of_several_inner_steps(strategy: str, position: int) -> None:
    solver, inner, _ = solver_of(STRATEGIES[strategy])
    solver.step(batches(solver, 0), batch(5))
    given = batches(solver, 10)
    inner.how, inner.which = "detached", lambda seen: seen is given[position]
    refuse(solver, lambda: solver.step(given, batch(15)), INNER)


@pytest.mark.parametrize(("strategy", "how"), CASES)
def test_an_outer_loss_that_is_cut_after_the_checks(strategy: str, how: str) -> None:
    """Also with a reference batch, which would leave the pull away from it alone."""
    solver, _, outer = solver_of(STRATEGIES[strategy])
    solver.step(batches(solver, 0), batch(5), batch(6))
    outer.how = how
    refuse(solver, lambda: solver.step(batches(solver, 10), batch(15), batch(16)), no_hypergradient("outer_loss"))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_reference_that_is_cut(strategy: str) -> None:
    """Without its gradient the hypergradient would be another one."""
    solver, inner, _ = solver_of(STRATEGIES[strategy])
    solver.step(batches(solver, 0), batch(5), batch(6))
    reference = batch(16)
    inner.how, inner.which = "detached", lambda seen: seen is reference
    message = no_hypergradient("inner_loss of the reference batch")
    refuse(solver, lambda: solver.step(batches(solver, 10), batch(15), reference), message)


@pytest.mark.parametrize("strategy", ["mixed", "forward", "finite_difference", "unrolled-3", "implicit-neumann-3"])
def test_outer_parameters_that_are_cut(strategy: str) -> None:
    """A loss that goes on training the model, but knows nothing of what shapes its images."""
    solver, inner, _ = solver_of(STRATEGIES[strategy])
    solver.step(batches(solver, 0), batch(5))
    uncut = inner.loss

    def without_theta(model: nn.Module, outer: nn.Module, given: Batch) -> Tensor:
        return uncut(model, copy.deepcopy(outer).requires_grad_(False), given)

    inner.loss = without_theta
    message = (
        "no outer parameter has a hypergradient: neither the gradient of inner_loss nor outer_loss depends on one; it "
        "may be detached, or used under torch.no_grad"
    )
    refuse(solver, lambda: solver.step(batches(solver, 10), batch(15)), message)


def test_a_loss_of_parameters_that_the_optimiser_does_not_hold() -> None:
    model, outer = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), torch.tensor(1.0, requires_grad=True)
    problem = BilevelProblem(lambda m, o, b: (o * m[0](b)).square().mean(), lambda m, o, b: m(b).square().mean())
    held = torch.optim.SGD(model[1].parameters(), lr=0.1)
    solver = BilevelSolver(problem, model, held, outer, torch.optim.SGD([outer], lr=0.1), check=False)
    for call in (
        lambda: solver.inner_step(torch.ones(3, 2)),
        lambda: solver.step([torch.ones(3, 2)], torch.ones(3, 2)),
    ):
        with pytest.raises(ValueError, match="inner_loss depends on no parameter that the inner SGD holds"):
            call()
    assert solver.inner_steps == 0


@pytest.mark.parametrize("call", ["step", "inner_step"])
def test_an_error_in_a_loss_puts_buffers_back(call: str) -> None:
    """Also those that the loss had moved before it failed."""
    model, outer = nn.BatchNorm1d(2), nn.BatchNorm1d(2)

    def failing(m: nn.Module, o: nn.Module, given: Tensor) -> Tensor:
        m(o(given))
        raise RuntimeError("on the way")

    problem = BilevelProblem(failing, lambda m, o, given: m(given).square().mean())
    solver = BilevelSolver(
        problem, model, torch.optim.SGD(model.parameters()), outer, torch.optim.SGD(outer.parameters()), check=False
    )
    before, given = copy.deepcopy(solver.state_dict()), torch.arange(6.0).reshape(3, 2)
    with pytest.raises(RuntimeError, match="on the way"):
        solver.step([given], given) if call == "step" else solver.inner_step(given)
    assert_identical(solver.state_dict(), before)
