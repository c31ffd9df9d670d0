"""The tasks, the network and its adaptation, and how a start for it is learned."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from metasynth.experiments.sinusoid.settings import SHOWN, SinusoidConfig
from torch import Tensor, nn

from metasynth.bilevel.outer_step import OuterStep
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.strategies.unrolled import Unrolled
from metasynth.running.prepared import PreparedData
from metasynth.running.progress import Progress
from metasynth.running.seeding import generator_for
from metasynth.running.study import built_in
from metasynth.sizes import require_memory

LOW, HIGH = -5.0, 5.0

Points = tuple[Tensor, Tensor]
"""Inputs and targets, (T, n, 1) each: n points of T tasks."""


def draw(count: int, sizes: Sequence[int], generator: torch.Generator, device: str) -> list[Points]:
    """``count`` tasks, A uniform in [0.1, 5] and p in [0, π]; for each of ``sizes`` so many points, x in [-5, 5]."""
    amplitude, phase = torch.rand(2, count, 1, 1, generator=generator)
    drawn = []
    for size in sizes:
        x = LOW + (HIGH - LOW) * torch.rand(count, size, 1, generator=generator)
        drawn.append((x.to(device), ((0.1 + 4.9 * amplitude) * torch.sin(x + math.pi * phase)).to(device)))
    return drawn


class Start(nn.Module):
    """The weights that adaptation starts from, and the logarithms of the scales α of its steps, one a tensor."""

    def __init__(self, widths: Sequence[int], learn_rates: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.weights = nn.ParameterList()
        for inputs, outputs in pairwise((1, *widths, 1)):
            for shape in ((inputs, outputs), (1, outputs)):
                uniform = 2 * torch.rand(shape, generator=generator) - 1
                self.weights.append(nn.Parameter(uniform / math.sqrt(inputs)))
        self.log_scales = nn.Parameter(torch.zeros(len(self.weights)), requires_grad=learn_rates)


class Offsets(nn.Module):
    """φ: for each of T tasks, what is added to the start."""

    def __init__(self, start: Start, tasks: int) -> None:
        super().__init__()
        self.offsets = nn.ParameterList([w.detach().new_zeros(tasks, *w.shape) for w in start.weights])

    def forward(self, weights: Sequence[Tensor], scales: Tensor, x: Tensor) -> Tensor:
        """The networks' outputs (T, n, 1) at x (T, n, 1)."""
        adapted = [w + s * o for w, s, o in zip(weights, scales, self.offsets, strict=True)]
        for layer, (weight, bias) in enumerate(zip(adapted[::2], adapted[1::2], strict=True)):
            x = torch.baddbmm(bias, torch.relu(x) if layer else x, weight)
        return x


def errors(model: nn.Module, start: Start, points: Points, fixed: bool = False) -> Tensor:
    """Mean squared error of every task, (T,); θ counts as constant where it is ``fixed``."""
    weights = [w.detach() if fixed else w for w in start.weights]
    scales = (start.log_scales.detach() if fixed else start.log_scales).exp()
    return (model(weights, scales, points[0]) - points[1]).square().mean(dim=(1, 2))


def make_problem(first_order: bool) -> BilevelProblem:
    """Inner loss: the sum over tasks, so that each task's gradient is its own; outer loss: their mean.

    To first order θ is fixed in the inner loss; what is left of the hypergradient is the direct part, of θ in θ + α φ.
    """
    return BilevelProblem(
        inner_loss=lambda model, start, points: errors(model, start, points, fixed=first_order).sum(),
        outer_loss=lambda model, start, points: errors(model, start, points).mean(),
    )


def new_start(config: SinusoidConfig, seed: int, device: str) -> Start:
    """The random start, the same for all variants."""
    return Start(config.widths, config.learn_rates, generator_for(seed, "start")).to(device)


def meta_learn(config: SinusoidConfig, variant: str, start: Start, seed: int, device: str) -> Iterator[float]:
    """Improve the start in place; gives the loss on the query points of every outer step."""
    model = Offsets(start, config.tasks)
    inner = torch.optim.SGD(model.parameters(), lr=config.inner_lr)
    outer = torch.optim.Adam([p for p in start.parameters() if p.requires_grad], lr=config.outer_lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(outer, config.steps)
    # A task whose adaptation nearly diverges has a hypergradient that outweighs all others.
    clipped, way = OuterStep(clip=config.clip), Unrolled(config.inner_steps)
    solver = BilevelSolver(make_problem(variant == "first-order"), model, inner, start, outer, way, clipped)
    for step in range(config.steps):
        for offset in model.parameters():
            offset.data.zero_()
        generator = generator_for(seed, "tasks", step)
        support, query = draw(config.tasks, (config.shots, config.queries), generator, device)
        report = solver.step([support] * config.inner_steps, query)
        schedule.step()
        yield 0.0 if report.outer_loss is None else report.outer_loss


def adapt(config: SinusoidConfig, start: Start, seed: int, device: str) -> dict[str, Any]:
    """Errors on new tasks after 0 to ``test_steps`` gradient steps, and the fits of the first few tasks."""
    generator = generator_for(seed, "test")
    support, query = draw(config.test_tasks, (config.shots, 100), generator, device)
    grid = torch.linspace(LOW, HIGH, 101, device=device).expand(config.test_tasks, -1)[..., None]
    model = Offsets(start, config.test_tasks)
    inner = torch.optim.SGD(model.parameters(), lr=config.inner_lr)
    outer = torch.optim.SGD([p for p in start.parameters() if p.requires_grad])  # never steps
    solver = BilevelSolver(make_problem(first_order=False), model, inner, start, outer)
    curve, fits = [], {}
    for step in range(config.test_steps + 1):
        with torch.no_grad():
            curve.append(errors(model, start, query).mean().item())
            if step in (0, config.inner_steps):
                fits[str(step)] = model(list(start.weights), start.log_scales.exp(), grid)[:SHOWN, :, 0].tolist()
        if step < config.test_steps:
            solver.inner_step(support)
    return {"curve": curve, "fits": fits, "support": [part[:SHOWN, :, 0].tolist() for part in support]}


def prepare(config: SinusoidConfig, data: Path | None, progress: Progress) -> PreparedData:
    """The tasks are drawn here."""
    weights = sum(a * b for a, b in pairwise((1, *config.widths, 1)))
    for name, tasks in (("tasks", config.tasks), ("test_tasks", config.test_tasks)):
        size = 4 * tasks * (weights + config.shots + config.queries)
        require_memory(size, f"adapting to {tasks} tasks", f"widths, shots, queries, {name}")
    return built_in(Path(__file__), data)
