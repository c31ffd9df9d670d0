"""The core of this repository: two losses, an optimiser for each level, and a strategy."""

from collections.abc import Callable

from benchmarks.peers.problem import Problem
from metasynth.bilevel import BilevelProblem, BilevelSolver, ConjugateGradient, Implicit, Unrolled


def one_step(given: Problem) -> Callable[[], object]:
    """`Mixed`, the default."""
    losses = BilevelProblem(given.inner_loss, given.outer_loss)
    solver = BilevelSolver(losses, given.model, given.optimizer, given.outer, given.outer_optimizer)
    return lambda: solver.step([next(given.train)], next(given.held_out))


def several_steps(given: Problem) -> Callable[[], object]:
    """`Unrolled`, with the graphs of all K steps."""
    losses, way = BilevelProblem(given.inner_loss, given.outer_loss), Unrolled(given.steps)
    solver = BilevelSolver(losses, given.model, given.optimizer, given.outer, given.outer_optimizer, way)
    return lambda: solver.step([next(given.train) for _ in range(given.steps)], next(given.held_out))


def from_a_start(given: Problem) -> Callable[[], object]:
    """The same, with the inner model begun anew."""
    step = several_steps(given)

    def restarted() -> None:
        given.restart()
        step()

    return restarted


def at_the_minimum(given: Problem) -> Callable[[], object]:
    """K plain steps, and conjugate gradients on the Hessian."""
    losses = BilevelProblem(given.inner_loss, given.outer_loss)
    way = Implicit(ConjugateGradient(max_steps=40, tolerance=1e-6), steps=given.steps)
    solver = BilevelSolver(losses, given.model, given.optimizer, given.outer, given.outer_optimizer, way)
    return lambda: solver.step([next(given.train) for _ in range(given.steps)], next(given.held_out))


SOLVERS = {
    "ridge": at_the_minimum,
    "cleaning": one_step,
    "sinusoid": from_a_start,
    "digits": several_steps,
    "noise": one_step,
}
UNABLE: dict[str, str] = {}
