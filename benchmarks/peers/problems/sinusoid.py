"""Few-shot sinusoid regression by MAML: the weights from which five gradient steps fit a new sine wave.

A task is y = A sin(x + p) with A in [0.1, 5] and p in [0, π], of which ten points are given (Finn et al., ICML 2017,
section 5.1). θ is the start of a network 1-40-40-1; φ holds what each task adds to it, zero before its first step, so
that all tasks of a meta-batch adapt at once. A library that copies a start for each task takes `Start` alone.
"""

import math
from itertools import cycle, repeat

import torch
from torch import Tensor, nn

from benchmarks.peers.problem import Problem

QUESTION = "MAML: the start of a network 1-40-40-1, 5 steps of SGD on each of 10 sinusoids"
STEPS = 5

Points = tuple[Tensor, Tensor]
"""Inputs and targets, (T, n, 1) each: n points of T tasks."""


class Start(nn.Module):
    """θ: weights (inputs, outputs) and biases (1, outputs) of a network 1-width-width-1."""

    def __init__(self, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = [nn.Linear(1, width), nn.Linear(width, width), nn.Linear(width, 1)]
        given = [p.detach().to(dtype) for layer in layers for p in (layer.weight.T.contiguous(), layer.bias[None])]
        self.weights = nn.ParameterList(given)

    def forward(self, x: Tensor) -> Tensor:
        """The network's outputs, of a shape as x (..., 1)."""
        return evaluate(list(self.weights), x)


class Offsets(nn.Module):
    """φ: what each of T tasks adds to the start."""

    def __init__(self, start: Start, tasks: int) -> None:
        super().__init__()
        self.offsets = nn.ParameterList([p.detach().new_zeros(tasks, *p.shape) for p in start.weights])

    def forward(self, start: Start, x: Tensor) -> Tensor:
        """Outputs (T, n, 1) of the adapted networks at x (T, n, 1)."""
        return evaluate([p + o for p, o in zip(start.weights, self.offsets, strict=True)], x)

    def clear(self) -> None:
        """Begin anew."""
        for parameter in self.parameters():
            parameter.data.zero_()


def evaluate(weights: list[Tensor], x: Tensor) -> Tensor:
    """A network with tanh, which has all derivatives."""
    w1, b1, w2, b2, w3, b3 = weights
    return torch.tanh(torch.tanh(x @ w1 + b1) @ w2 + b2) @ w3 + b3


def error(given: Tensor, points: Points) -> Tensor:
    """Mean squared error of each task (T,)."""
    return (given - points[1]).square().mean(dim=(1, 2))


def inner_loss(model: nn.Module, outer: nn.Module, points: Points) -> Tensor:
    """The sum over tasks, so that each task's gradient is its own."""
    return error(model(outer, points[0]), points).sum()


def outer_loss(model: nn.Module, outer: nn.Module, points: Points) -> Tensor:
    """The mean over tasks."""
    return error(model(outer, points[0]), points).mean()


def draw(tasks: int, shots: int, dtype: torch.dtype, generator: torch.Generator) -> tuple[Points, Points]:
    """Points to adapt to, and others of the same tasks to judge by."""
    amplitude, phase = torch.rand(2, tasks, 1, 1, generator=generator, dtype=torch.float64)
    x = 10 * torch.rand(2, tasks, shots, 1, generator=generator, dtype=torch.float64) - 5
    y = (0.1 + 4.9 * amplitude) * torch.sin(x + math.pi * phase)
    (xs, xq), (ys, yq) = x.to(dtype), y.to(dtype)
    return (xs, ys), (xq, yq)


def make(tiny: bool, dtype: torch.dtype) -> Problem:
    """Twenty meta-batches, which come round again."""
    width, tasks, shots = (4, 2, 4) if tiny else (40, 10, 10)
    generator = torch.Generator().manual_seed(0)
    drawn = [draw(tasks, shots, dtype, generator) for _ in range(20)]
    start = Start(width, dtype)
    model = Offsets(start, tasks)
    return Problem(
        model=model,
        outer=start,
        inner_loss=inner_loss,
        outer_loss=outer_loss,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        outer_optimizer=torch.optim.Adam(start.parameters(), lr=0.001),
        steps=STEPS,
        train=cycle([points for points, _ in drawn for points in repeat(points, STEPS)]),
        held_out=cycle([points for _, points in drawn]),
        restart=model.clear,
    )
