"""`higher`: a patched copy of the model, stepped by a differentiable twin of the optimiser."""

from collections.abc import Callable

import higher
import torch
from torch import nn

from benchmarks.peers.problem import Problem


def unrolled(given: Problem) -> Callable[[], object]:
    """K steps of an optimiser without state; the trained weights are copied back."""
    theta = list(given.outer.parameters())

    def step() -> None:
        with higher.innerloop_ctx(given.model, given.optimizer) as (fast, optimizer):
            for _ in range(given.steps):
                optimizer.step(given.inner_loss(fast, given.outer, next(given.train)))
            loss = given.outer_loss(fast, given.outer, next(given.held_out))
            given.outer_optimizer.zero_grad()
            loss.backward(inputs=theta)
            given.outer_optimizer.step()
            copy_weights(given.model, fast)

    return step


def from_a_start(given: Problem) -> Callable[[], object]:
    """K steps from a start that θ holds; nothing is kept of them."""
    theta = list(given.outer.parameters())

    def step() -> None:
        with higher.innerloop_ctx(given.model, given.optimizer) as (fast, optimizer):
            for _ in range(given.steps):
                optimizer.step(given.inner_loss(fast, given.outer, next(given.train)))
            loss = given.outer_loss(fast, given.outer, next(given.held_out))
            given.outer_optimizer.zero_grad()
            loss.backward(inputs=theta)
            given.outer_optimizer.step()

    return step


def with_moments(given: Problem) -> Callable[[], object]:
    """K steps of an optimiser with a state, which is copied back too: the context drops it."""
    theta = list(given.outer.parameters())

    def step() -> None:
        with higher.innerloop_ctx(given.model, given.optimizer) as (fast, optimizer):
            for _ in range(given.steps):
                optimizer.step(given.inner_loss(fast, given.outer, next(given.train)))
            loss = given.outer_loss(fast, given.outer, next(given.held_out))
            given.outer_optimizer.zero_grad()
            loss.backward(inputs=theta)
            given.outer_optimizer.step()
            copy_weights(given.model, fast)
            copy_moments(given.optimizer, optimizer)

    return step


def copy_weights(model: nn.Module, fast: nn.Module) -> None:
    """From the patched copy to the model."""
    with torch.no_grad():
        for own, trained in zip(model.parameters(), fast.parameters(), strict=True):
            own.copy_(trained)


def copy_moments(own: torch.optim.Optimizer, twin: higher.optim.DifferentiableOptimizer) -> None:
    """From the twin to the optimiser, without their graphs."""
    for group, states in zip(own.param_groups, twin.state, strict=True):
        for index, parameter in enumerate(group["params"]):
            values = states[index].items()
            own.state[parameter] = {name: v.detach() if torch.is_tensor(v) else v for name, v in values}


SOLVERS = {
    "ridge": unrolled,
    "cleaning": unrolled,
    "sinusoid": from_a_start,
    "digits": unrolled,
    "noise": with_moments,
}
UNABLE: dict[str, str] = {}
