"""A hypergradient by central differences over whole trainings with native optimisers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from metasynth.bilevel.problem import BilevelProblem

THETA = {"gain": 0.7, "shift": 0.2}


def outer_parameters() -> dict[str, Tensor]:
    """The two outer parameters at ``THETA``, in float64."""
    return {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in THETA.items()}


def by_training_again(
    problem: BilevelProblem,
    make_model: Callable[[], nn.Module],
    make_optimizer: Callable[[Any], torch.optim.Optimizer],
    batch: Tensor,
    steps: int,
    step: float = 1e-5,
) -> Tensor:
    """The hypergradient in the two outer parameters, from the same draws each time."""

    def trained_loss(theta: Tensor) -> float:
        model, outer = make_model(), dict(zip(THETA, theta, strict=True))
        optimizer = make_optimizer(model.parameters())
        torch.manual_seed(1)
        for _ in range(steps):
            optimizer.zero_grad()
            problem.inner_loss(model, outer, batch).backward()
            optimizer.step()
        return problem.outer_loss(model, outer, batch).item()

    theta = torch.tensor(list(THETA.values()), dtype=torch.float64)
    found = [
        (trained_loss(theta + e) - trained_loss(theta - e)) / (2 * step) for e in step * torch.eye(2, dtype=theta.dtype)
    ]
    return torch.tensor(found, dtype=torch.float64)
