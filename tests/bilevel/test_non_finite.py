"""A loss or gradient that is not finite stops the solver, and nothing has moved."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bilevel.identical import assert_identical
from bilevel.segmentation import PROBLEM, Batch, Residual, batch, segmenter
from support.strategies import taken
from torch import Tensor, nn

from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.outer_step import OuterStep
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver, NonFiniteError
from metasynth.bilevel.strategies.implicit import Implicit
from metasynth.bilevel.strategies.linear_solve import Neumann
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.strategies.unrolled import Unrolled

STRATEGIES = taken("mixed", "unrolled-3")


def spoiled(given: Batch, value: float) -> Batch:
    images = given.images.clone()
    images[0, 0, 0, 0] = value
    return Batch(images, given.labels, given.draws)


def with_steep_outer(model: nn.Module, outer: nn.Module, given: Batch) -> Tensor:
    """A finite loss whose gradient in sigma is infinite."""
    return PROBLEM.outer_loss(model, outer, given) + (outer.sigma - outer.sigma.detach()).sqrt()


def solver_of(strategy: HypergradientStrategy, problem: BilevelProblem = PROBLEM) -> BilevelSolver:
    model, outer = segmenter(norm="batch"), Residual()
    return BilevelSolver(
        problem,
        model,
        torch.optim.Adam(model.parameters(), lr=1e-2),
        outer,
        torch.optim.Adam(outer.parameters(), lr=1e-2),
        strategy,
        OuterStep(average=2, clip=3.0, memory=0.5),
    )


def batches_of(solver: BilevelSolver, start: int) -> list[Batch]:
    return [batch(start + k) for k in range(solver.strategy.inner_steps)]


def refused(solver: BilevelSolver, call: Callable[[], Any]) -> NonFiniteError:
    """The error of ``call``, after checking that it left everything as it was and that training can go on."""
    before = copy.deepcopy(solver.state_dict())
    with pytest.raises(NonFiniteError) as caught:
        call()
    assert_identical(solver.state_dict(), before)
    assert all(p.grad is None for p in (*solver.model.parameters(), *solver.outer.parameters()))
    assert math.isfinite(solver.step(batches_of(solver, 60), batch(70), batch(71)).hypergradient_norm)
    return caught.value


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("which", ["inner loss", "outer loss", "reference loss"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_loss(strategy: str, which: str, value: float) -> None:
    solver = solver_of(STRATEGIES[strategy])
    for index in (0, 10, 20):
        solver.step(batches_of(solver, index), batch(index + 5), batch(index + 6))
    expected = solver.inner_steps + solver.strategy.inner_steps
    inner, outer, reference = batches_of(solver, 30), batch(40), batch(41)
    if which == "inner loss":
        inner[-1] = spoiled(inner[-1], value)
    elif which == "outer loss":
        outer = spoiled(outer, value)
    else:
        reference = spoiled(reference, value)
    error = refused(solver, lambda: solver.step(inner, outer, reference))
    assert (error.term, error.step) == (which, expected)
    assert str(error) == f"{which} is nan at step {expected}"


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("strategy", [Unrolled(3), Unrolled(3, last=1), Implicit(Neumann(steps=2), steps=3)])
def test_the_first_step_that_cannot_be_taken_is_named(strategy: HypergradientStrategy, position: int) -> None:
    solver = solver_of(strategy)
    solver.step(batches_of(solver, 0), batch(5))
    solver.inner_step(batch(9))
    inner = batches_of(solver, 30)
    inner[position] = spoiled(inner[position], math.inf)
    error = refused(solver, lambda: solver.step(inner, batch(40)))
    assert (error.term, error.step) == ("inner loss", 4 + position + 1)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_hypergradient(strategy: str) -> None:
    problem = BilevelProblem(PROBLEM.inner_loss, lambda m, o, b: outer_losses[-1](m, o, b))
    outer_losses = [PROBLEM.outer_loss]
    solver = solver_of(STRATEGIES[strategy], problem)
    solver.step(batches_of(solver, 0), batch(5))
    expected = solver.inner_steps + solver.strategy.inner_steps
    outer_losses.append(with_steep_outer)

    def call() -> None:
        try:
            solver.step(batches_of(solver, 10), batch(15))
        finally:
            outer_losses.pop()

    error = refused(solver, call)
    assert (error.term, error.step) == ("hypergradient of sigma", expected)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_plain_inner_loss(value: float) -> None:
    solver = solver_of(Mixed())
    solver.inner_step(batch(0))
    error = refused(solver, lambda: solver.inner_step(spoiled(batch(1), value)))
    assert (error.term, error.step) == ("inner loss", 2)


def test_plain_inner_gradient() -> None:
    """A finite loss of infinite slope must not reach the weights."""

    def steep(model: nn.Module, outer: nn.Module, given: Batch) -> Tensor:
        loss = PROBLEM.inner_loss(model, outer, given)
        return loss + (loss - loss.detach()).sqrt() if steep_now else loss

    steep_now = False
    solver = solver_of(Mixed(), BilevelProblem(steep, PROBLEM.outer_loss))
    solver.inner_step(batch(0))

    def call() -> None:
        nonlocal steep_now
        steep_now = True
        try:
            solver.inner_step(batch(1))
        finally:
            steep_now = False

    error = refused(solver, call)
    assert (error.term, error.step) == ("inner gradient", 2)


def test_inner_parameters_that_the_outer_loss_does_not_see() -> None:
    """Its value and the hypergradient are finite; what would be committed is not."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen, self.unseen = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))

    def inner_loss(model: nn.Module, outer: Tensor, given: float) -> Tensor:
        return (outer * model.seen.square()).sum() + (model.unseen - given).square().sqrt().sum()

    model, outer = Heads(), torch.tensor(1.0, requires_grad=True)
    problem = BilevelProblem(inner_loss, lambda m, o, b: m.seen.square().sum())
    solver = BilevelSolver(
        problem, model, torch.optim.SGD(model.parameters(), lr=0.5), outer, torch.optim.SGD([outer], lr=0.1), Mixed()
    )
    solver.step([3.0], None)
    assert model.unseen.tolist() == [1.5, 1.5]
    before = copy.deepcopy(solver.state_dict())
    with pytest.raises(NonFiniteError) as caught:
        solver.step([1.5], None)
    assert str(caught.value) == "norm of the updated inner parameters is nan at step 2"
    assert_identical(solver.state_dict(), before)
