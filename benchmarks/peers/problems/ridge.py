"""Ridge regression with a learned decay for every weight (closed form).

    φ*(θ) = argmin |X φ - y|² / n + Σ exp(θᵢ) φᵢ²,      L(φ) = mean squared error on held-out rows.

The inner problem is solved to its minimum: 40 steps of gradient descent come within 1e-8 of it. They would diverge at
decays of about 0.7, which a thousand outer steps at their small rate do not reach. The hypergradient that libraries are
held to is that of the minimum, of which both unrolling and implicit differentiation are ways.
"""

from itertools import repeat

import torch
from torch import Tensor, nn

from benchmarks.peers.problem import Problem

QUESTION = "ridge: a decay for each of 50 weights, 40 steps of SGD to the minimum"

Rows = tuple[Tensor, Tensor]
"""Inputs (n, d) and targets (n, 1)."""


class Decays(nn.Module):
    """θ (d,): logarithms of decays."""

    def __init__(self, count: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.logs = nn.Parameter(torch.full((count,), -2.0, dtype=dtype))


def outer_loss(model: nn.Module, outer: nn.Module, rows: Rows) -> Tensor:
    """Mean squared error."""
    return (model(rows[0]) - rows[1]).square().mean()


def inner_loss(model: nn.Module, outer: nn.Module, rows: Rows) -> Tensor:
    """The same, and the decay."""
    return outer_loss(model, outer, rows) + (outer.logs.exp() * model.weight.square()).sum()


def optimum(model: nn.Module, outer: nn.Module, rows: Rows) -> None:
    """Solve (XᵀX / n + diag(exp θ)) φ = Xᵀy / n."""
    x, y = rows
    with torch.no_grad():
        matrix = x.T @ x / len(x) + outer.logs.exp().diag()
        model.weight.copy_(torch.linalg.solve(matrix, x.T @ y / len(x)).T)


def make(tiny: bool, dtype: torch.dtype) -> Problem:
    """10 n rows of n features each, of a noisy linear relation."""
    count = 5 if tiny else 50
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(count, 1, generator=generator, dtype=torch.float64) / count**0.5

    def draw() -> Rows:
        x = torch.randn(10 * count, count, generator=generator, dtype=torch.float64)
        y = x @ truth + torch.randn(10 * count, 1, generator=generator, dtype=torch.float64)
        return x.to(dtype), y.to(dtype)

    model, outer = nn.Linear(count, 1, bias=False, dtype=dtype), Decays(count, dtype)
    nn.init.zeros_(model.weight)
    return Problem(
        model=model,
        outer=outer,
        inner_loss=inner_loss,
        outer_loss=outer_loss,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.4),
        outer_optimizer=torch.optim.Adam(outer.parameters(), lr=0.001),
        steps=40,
        train=repeat(draw()),
        held_out=repeat(draw()),
        optimum=optimum,
    )
