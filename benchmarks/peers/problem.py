"""A bilevel problem as every library gets it, and the value and derivatives that all are held to."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

Loss = Callable[[nn.Module, nn.Module, Any], Tensor]
"""``(model, outer, batch) -> scalar``."""


def nothing() -> None:
    """Inner models go on from step to step."""


@dataclass(frozen=True)
class Problem:
    """One outer step is ``steps`` inner steps, the derivative of the outer loss after them, and a move of θ.

    Attributes
    ----------
    model : torch.nn.Module
        The inner model φ.
    outer : torch.nn.Module
        Holds the outer parameters θ.
    inner_loss, outer_loss : callable
    optimizer : torch.optim.Optimizer
        Of the inner model, with one group.
    outer_optimizer : torch.optim.Optimizer
    steps : int
        K, inner steps for one outer step.
    train, held_out : iterator
        Batches of the inner and of the outer loss, without an end; each is a tuple of tensors.
    restart : callable
        Called before each outer step where inner models are begun anew.
    optimum : callable or None
        Makes of the model the minimum of the inner loss on a batch, ``(model, outer, batch)``. With it the
        hypergradient is that of the minimum; without, of the K steps.
    """

    model: nn.Module
    outer: nn.Module
    inner_loss: Loss
    outer_loss: Loss
    optimizer: torch.optim.Optimizer
    outer_optimizer: torch.optim.Optimizer
    steps: int
    train: Iterator[Any]
    held_out: Iterator[Any]
    restart: Callable[[], None] = nothing
    optimum: Callable[[nn.Module, nn.Module, Any], None] | None = None

    @property
    def rate(self) -> float:
        """The learning rate of the inner optimiser."""
        return float(self.optimizer.param_groups[0]["lr"])

    def with_steepest_descent(self, rate: float) -> "Problem":
        """The same problem with θ <- θ - rate * h."""
        return replace(self, outer_optimizer=torch.optim.SGD(self.outer.parameters(), lr=rate))


Make = Callable[[bool, torch.dtype], Problem]
"""``(tiny, dtype) -> problem``: the same at every call."""


def values_of(outer: nn.Module) -> Tensor:
    """A copy of θ, flat."""
    return nn.utils.parameters_to_vector([p.detach() for p in outer.parameters()])


def set_values(outer: nn.Module, values: Tensor) -> None:
    """Θ from a flat vector."""
    nn.utils.vector_to_parameters(values, outer.parameters())


def directions(outer: nn.Module, most: int = 24) -> Tensor:
    """Unit vectors (n, dim θ): the coordinates where they are few, otherwise ``most`` random ones."""
    example = values_of(outer)
    if len(example) <= most:
        return torch.eye(len(example), dtype=example.dtype)
    drawn = torch.randn(most, len(example), dtype=example.dtype, generator=torch.Generator().manual_seed(0))
    return drawn / drawn.norm(dim=1, keepdim=True)


def advance(problem: Problem, batches: Sequence[Any]) -> None:
    """Inner steps by the `torch.optim` optimiser itself."""
    problem.restart()
    parameters = list(problem.model.parameters())
    for batch in batches:
        loss = problem.inner_loss(problem.model, problem.outer, batch)
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.grad = g
        problem.optimizer.step()


def next_batches(problem: Problem) -> tuple[list[Any], Any]:
    """The K inner batches of an outer step, and its outer batch."""
    return [next(problem.train) for _ in range(problem.steps)], next(problem.held_out)


def differences(problem: Problem, before: int, along: Tensor, step: float = 1e-3) -> Tensor:
    """Central differences (n,) of the outer loss along unit vectors of θ, in float64 and of fourth order.

    Parameters
    ----------
    problem : Problem
        In float64, fresh; it is used up.
    before : int
        Outer steps with θ as it is that come before.
    along : tensor (n, dim θ)
    step : float
        In units of θ.

    Returns
    -------
    tensor (n,)
        dL(θ + e d)/de for every direction d.
    """
    for _ in range(before):
        advance(problem, next_batches(problem)[0])
    start = copy.deepcopy((problem.model.state_dict(), problem.optimizer.state_dict()))
    inner, held_out = next_batches(problem)
    theta = values_of(problem.outer)

    def value(shift: Tensor) -> float:
        set_values(problem.outer, theta + shift)
        model, optimizer = copy.deepcopy(start)
        problem.model.load_state_dict(model)
        problem.optimizer.load_state_dict(optimizer)
        if problem.optimum is None:
            advance(problem, inner)
        else:
            problem.optimum(problem.model, problem.outer, inner[-1])
        with torch.no_grad():
            return problem.outer_loss(problem.model, problem.outer, held_out).item()

    def slope(d: Tensor) -> float:
        near, far = (value(n * step * d) - value(-n * step * d) for n in (1, 2))
        return (8 * near - far) / (12 * step)

    return torch.tensor([slope(d) for d in along], dtype=torch.float64)
