"""TorchOpt: the model's parameters become results of differentiable steps, and are cut off after the outer step."""

from collections.abc import Callable
from typing import Any

import torch
import torchopt

from benchmarks.peers.problem import Problem


def by_sgd(given: Problem) -> Callable[[], object]:
    """K differentiable steps."""
    return unrolled(given, torchopt.MetaSGD(given.model, lr=given.rate))


def by_adam(given: Problem) -> Callable[[], object]:
    """The same with Adam."""
    return unrolled(given, torchopt.MetaAdam(given.model, lr=given.rate))


def unrolled(given: Problem, optimizer: Any) -> Callable[[], object]:
    """K steps, of which nothing has to be copied."""
    theta = list(given.outer.parameters())

    def step() -> None:
        for _ in range(given.steps):
            optimizer.step(given.inner_loss(given.model, given.outer, next(given.train)))
        loss = given.outer_loss(given.model, given.outer, next(given.held_out))
        given.outer_optimizer.zero_grad()
        loss.backward(inputs=theta)
        given.outer_optimizer.step()
        torchopt.stop_gradient(given.model)
        torchopt.stop_gradient(optimizer)

    return step


def from_a_start(given: Problem) -> Callable[[], object]:
    """The same, with the inner model begun anew."""
    step = by_sgd(given)

    def restarted() -> None:
        given.restart()
        step()

    return restarted


def at_the_minimum(given: Problem) -> Callable[[], object]:
    """K plain steps, and conjugate gradients on the Hessian."""
    conjugate_gradients = torchopt.linear_solve.solve_cg(maxiter=40, rtol=1e-6)

    class Inner(torchopt.nn.ImplicitMetaGradientModule, linear_solve=conjugate_gradients):
        def __init__(self, outer: torch.nn.Module) -> None:
            super().__init__()
            self.outer, self.model = outer, given.model

        def objective(self, batch: Any) -> torch.Tensor:
            return given.inner_loss(self.model, self.outer, batch)

        def solve(self, batch: Any) -> None:
            phi = list(self.model.parameters())
            optimizer = torch.optim.SGD(phi, lr=given.rate)
            with torch.enable_grad():
                for _ in range(given.steps):
                    optimizer.zero_grad()
                    self.objective(batch).backward(inputs=phi)
                    optimizer.step()

    inner, theta = Inner(given.outer), list(given.outer.parameters())

    def step() -> None:
        torchopt.stop_gradient(inner)
        inner.solve(next(given.train))
        loss = given.outer_loss(inner.model, inner.outer, next(given.held_out))
        given.outer_optimizer.zero_grad()
        loss.backward(inputs=theta)
        given.outer_optimizer.step()

    return step


SOLVERS = {
    "ridge": at_the_minimum,
    "cleaning": by_sgd,
    "sinusoid": from_a_start,
    "digits": by_sgd,
    "noise": by_adam,
}
UNABLE: dict[str, str] = {}
