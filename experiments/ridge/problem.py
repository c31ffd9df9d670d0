"""The regressions, their best λ by dense linear algebra, and the bilevel problem that has to find it."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from metasynth.experiments.ridge.settings import RidgeConfig
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from metasynth.augment.bijections import Exp
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.strategies.implicit import Implicit
from metasynth.bilevel.strategies.unrolled import Unrolled
from metasynth.errors import RunError
from metasynth.running.prepared import PreparedData
from metasynth.running.progress import Progress
from metasynth.running.seeding import generator_for
from metasynth.running.study import built_in
from metasynth.sizes import require_memory
from metasynth.training.reach import within_reach

GRID = np.geomspace(1e-3, 100, 151)

Rows = tuple[Tensor, Tensor]
"""Inputs (n, features) and targets (n, 1), in float64."""


class Decay(NamedTuple):
    """λ after an outer step, and the held-out loss that the step descended."""

    value: float
    loss: float | None


def draw(config: RidgeConfig, seed: int, problem: int) -> tuple[Rows, Rows]:
    """Rows to train on and rows to validate on, of one regression."""
    generator = generator_for(seed, "ridge", problem)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    truth = normal(config.features, 1) / config.features**0.5

    def rows(n: int) -> Rows:
        x = normal(n, config.features)
        return x, x @ truth + config.noise * normal(n, 1)

    return rows(config.train), rows(config.validation)


def solve(decay: float, train: Rows) -> Tensor:
    """φ*(λ) = (XᵀX / n + λ)⁻¹ Xᵀy / n, (features, 1)."""
    x, y = train
    gram = x.T @ x / len(x) + decay * torch.eye(x.shape[1], dtype=x.dtype)
    return torch.linalg.solve(gram, x.T @ y / len(x))


def held_out_loss(decay: float, train: Rows, validation: Rows) -> float:
    """Mean squared error of φ*(λ) on the validation rows."""
    return (validation[0] @ solve(decay, train) - validation[1]).square().mean().item()


def best_decay(train: Rows, validation: Rows) -> float:
    """The λ with the least held-out loss: the best of a grid, refined between its neighbours (Brent's method).

    Raises
    ------
    RunError
        If the least loss is at an end of the grid, so that there is no optimum to be found.
    """
    at = int(np.argmin([held_out_loss(decay, train, validation) for decay in GRID]))
    if at in (0, len(GRID) - 1):
        raise RunError(
            f"ridge: the held-out loss is least at λ = {GRID[at]:g} or beyond; choose another --seed or noise"
        )
    low, high = np.log(GRID[at - 1]), np.log(GRID[at + 1])
    found = minimize_scalar(
        lambda log: held_out_loss(np.exp(log), train, validation),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return float(np.exp(found.x))


def fit_loss(model: nn.Module, theta: Tensor, rows: Rows) -> Tensor:
    """Mean squared error."""
    return (model(rows[0]) - rows[1]).square().mean()


def ridge_loss(model: nn.Module, theta: Tensor, rows: Rows) -> Tensor:
    """Mean squared error and exp(theta) times the squared norm of the weights."""
    penalty = torch.stack([p.square().sum() for p in model.parameters()]).sum()
    return fit_loss(model, theta, rows) + theta.exp() * penalty


def solver_of(config: RidgeConfig, strategy: str, start: float, train: Rows) -> tuple[BilevelSolver, Tensor]:
    """A solver of the problem, with the inner model at its optimum for the starting λ, and θ."""
    model = nn.Linear(config.features, 1, bias=False, dtype=torch.float64)
    model.weight.data.copy_(solve(start, train).T)
    inner = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=config.momentum)
    theta = torch.tensor(float(np.log(start)), dtype=torch.float64, requires_grad=True)
    # The gradient is exact and shrinks a hundredfold on the way: a long memory of its size would stop θ early.
    outer = torch.optim.Adam([theta], lr=config.outer_lr, betas=(0.5, 0.9))
    steps = config.inner_steps
    way = Unrolled(steps) if strategy == "unrolled" else Implicit(steps=steps)
    return BilevelSolver(BilevelProblem(ridge_loss, fit_loss), model, inner, theta, outer, way), theta


def learn_decay(config: RidgeConfig, strategy: str, start: float, train: Rows, validation: Rows) -> Iterator[Decay]:
    """Learn λ from a start; what every outer step gave."""
    solver, theta = solver_of(config, strategy, start, train)
    schedule = CosineAnnealingLR(solver.outer_optimizer, config.steps)
    for _ in range(config.steps):
        with within_reach({"λ": (Exp(), theta)}, "outer_lr"):
            report = solver.step([train] * config.inner_steps, validation)
        schedule.step()
        yield Decay(theta.exp().item(), report.outer_loss)


def check(config: RidgeConfig, prepared: PreparedData, seed: int) -> None:
    """RunError unless each of the regressions that a seed draws has an optimum to be found."""
    for problem in range(config.problems):
        best_decay(*draw(config, seed, problem))


def prepare(config: RidgeConfig, data: Path | None, progress: Progress) -> PreparedData:
    """The regressions are drawn here."""
    size = 8 * config.features * (config.features + config.train + config.validation)
    require_memory(size, "one regression", "features, train, validation")
    return built_in(Path(__file__), data)
