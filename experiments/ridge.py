"""Ridge regression: is the weight decay that hypergradients learn the one that dense linear algebra finds?

The inner problem is ridge regression, φ*(λ) = argmin |Xφ - y|² / n + λ |φ|², the outer loss the mean squared error on
held-out rows, and λ = exp(θ) is learned, by differentiating through the inner steps or by the implicit function
theorem. φ*(λ) has a closed form, so that the best λ is known without either.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from metasynth.augment.bijections import Exp
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.strategies.implicit import Implicit
from metasynth.bilevel.strategies.unrolled import Unrolled
from metasynth.errors import RunError
from metasynth.report.figures import Series, trajectory
from metasynth.report.html import ReportContent, ReportFigure
from metasynth.report.style import COLORS, new_figure, style
from metasynth.report.tables import Table
from metasynth.running.prepared import PreparedData
from metasynth.running.progress import Progress
from metasynth.running.records import METRICS, RESULTS, RunFolder
from metasynth.running.seeding import generator_for
from metasynth.running.study import Experiment, StudyContext, built_in
from metasynth.schema import COUNT, NUMBER, TEXT, entries, listing
from metasynth.sizes import require_memory
from metasynth.training.reach import LARGEST_UNCONSTRAINED, require_rate, within_reach

CURVES = "curves.json"
GRID = np.geomspace(1e-3, 100, 151)

Rows = tuple[Tensor, Tensor]
"""Inputs (n, features) and targets (n, 1), in float64."""


@dataclass(frozen=True)
class RidgeConfig:
    """Settings of the study.

    Attributes
    ----------
    features : int
        Inputs of the regression.
    train : int
        Rows of the inner loss.
    validation : int
        Rows of the outer loss.
    noise : float
        Standard deviation of the targets about the true regression, whose own is 1.
    strategies : tuple of str
        How hypergradients are computed.
    start : tuple of float
        Where λ starts.
    steps : int
        Outer steps.
    inner_steps : int
        Inner steps before each outer step.
    lr : float
        Learning rate of the inner SGD.
    momentum : float
        Momentum of the inner SGD.
    outer_lr : float
        Learning rate of Adam on θ, falling to zero along a cosine.
    problems : int
        Regressions drawn.
    """

    features: int = 20
    train: int = 40
    validation: int = 100
    noise: float = 1.0
    strategies: tuple[Literal["unrolled", "implicit"], ...] = ("unrolled", "implicit")
    start: tuple[float, ...] = (0.01, 1.0)
    steps: int = 80
    inner_steps: int = 40
    lr: float = 0.1
    momentum: float = 0.7
    outer_lr: float = 0.3
    problems: int = 2

    def __post_init__(self) -> None:
        for name in ("features", "train", "validation", "steps", "inner_steps", "problems"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("noise", "lr", "outer_lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        require_rate(LARGEST_UNCONSTRAINED, outer_lr=self.outer_lr)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}")
        if not self.strategies or len(set(self.strategies)) != len(self.strategies):
            raise ValueError(f"strategies must list at least one, each once, got {self.strategies}")
        if not self.start or min(self.start) <= 0 or len(set(self.start)) != len(self.start):
            raise ValueError(f"start must list positive numbers, each once, got {self.start}")


PRESETS = {"quick": RidgeConfig(), "standard": RidgeConfig(start=(1e-3, 0.01, 0.1, 1.0), steps=100, problems=5)}


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


def run(context: StudyContext) -> dict[str, Any]:
    """Learn λ of every regression, from every start and by every strategy; a resumed run begins anew."""
    config: RidgeConfig = context.config
    context.folder.truncate(0)
    rows, curves = [], []
    cases = list(product(config.strategies, config.start))
    with context.progress.task("ridge", config.problems * len(cases) * config.steps) as task:
        for problem in range(config.problems):
            train, validation = draw(config, context.seed, problem)
            optimum = best_decay(train, validation)
            curves.append([held_out_loss(decay, train, validation) for decay in GRID])
            for strategy, start in cases:
                case = {"problem": problem, "strategy": strategy, "start": start}
                solver, theta = solver_of(config, strategy, start, train)
                schedule = CosineAnnealingLR(solver.outer_optimizer, config.steps)
                for _ in range(config.steps):
                    with within_reach({"λ": (Exp(), theta)}, "outer_lr"):
                        step = solver.step([train] * config.inner_steps, validation)
                    schedule.step()
                    context.folder.append({**case, "outer_step": step.outer_steps, "decay": theta.exp().item()})
                    task.advance(note=f"λ {theta.exp().item():.4f}")
                learned = theta.exp().item()
                found = {"learned": learned, "optimum": optimum, "relative_error": abs(learned / optimum - 1)}
                losses = {"loss": step.outer_loss, "least_loss": held_out_loss(optimum, train, validation)}
                rows.append({**case, **found, **losses})
    context.folder.write_json(CURVES, curves)
    return {"rows": rows}


def report(folder: RunFolder) -> ReportContent:
    """Learned and optimal λ, the course of λ, and the held-out loss over λ."""
    rows, records = folder.results["rows"], folder.read_metrics()
    table = [{**row, "percent": 100 * row["relative_error"]} for row in rows]
    worst = max(row["percent"] for row in table)
    headings = {"problem": "regression", "strategy": "strategy", "start": "start", "learned": "learned λ"}
    headings |= {"optimum": "optimal λ", "percent": "error (%)"}
    headings |= {"loss": "held-out loss", "least_loss": "least held-out loss"}
    return ReportContent(
        title="A weight decay, learned by hypergradients",
        summary=[
            f"The λ of {rows[-1]['problem'] + 1} ridge regressions was learned from the held-out loss. The optimum is "
            "that of the closed-form solution, found without hypergradients. The largest relative error of a learned "
            f"λ is {worst:.2g} %.",
        ],
        tables=[Table.from_records("Learned and optimal weight decay.", table, headings)],
        figures=[
            ReportFigure("decay", "λ against outer steps, first regression.", _courses(rows, records)),
            ReportFigure("loss", "Held-out loss over λ (lines), and what was found.", _curves(rows, folder)),
        ],
    )


def _courses(rows: list[dict[str, Any]], records: list[dict[str, Any]]) -> Figure:
    series = []
    for row in (row for row in rows if row["problem"] == 0):
        case = [r for r in records if all(r[key] == row[key] for key in ("problem", "strategy", "start"))]
        label = f"{row['strategy']} from {row['start']:g}"
        steps, values = [0, *(r["outer_step"] for r in case)], [row["start"], *(r["decay"] for r in case)]
        series.append(Series(label, steps, values, row["optimum"]))
    return trajectory(series, ylabel="λ")


def _curves(rows: list[dict[str, Any]], folder: RunFolder) -> Figure:
    with style():
        figure = new_figure(5.0, 3.2)
        axes = figure.add_subplot()
        for problem, (color, curve) in enumerate(zip(COLORS, folder.read_json(CURVES), strict=False)):
            found = [row for row in rows if row["problem"] == problem]
            axes.plot(GRID, curve, color=color, label=f"regression {problem}")
            axes.plot([r["learned"] for r in found], [r["loss"] for r in found], "o", color=color, mfc="none")
        axes.set(xscale="log", xlabel="λ", ylabel="held-out mean squared error")
        axes.legend()
        return figure


def check(config: RidgeConfig, prepared: PreparedData, seed: int) -> None:
    """RunError unless each of the regressions that a seed draws has an optimum to be found."""
    for problem in range(config.problems):
        best_decay(*draw(config, seed, problem))


def prepare(config: RidgeConfig, data: Path | None, progress: Progress) -> PreparedData:
    """The regressions are drawn here."""
    size = 8 * config.features * (config.features + config.train + config.validation)
    require_memory(size, "one regression", "features, train, validation")
    return built_in(Path(__file__), data)


QUESTION = "Is the weight decay that hypergradients learn the one that linear algebra finds?"
_CASE = {"problem": COUNT, "strategy": TEXT, "start": NUMBER}
_FOUND = dict.fromkeys(("learned", "optimum", "relative_error", "loss", "least_loss"), NUMBER)
CONTENTS = {
    METRICS: listing(entries({**_CASE, "outer_step": COUNT, "decay": NUMBER}), least=1),
    RESULTS: entries({"rows": listing(entries({**_CASE, **_FOUND}), least=1)}),
    CURVES: listing(listing(NUMBER, length=len(GRID)), least=1),
}
EXPERIMENT = Experiment("ridge", QUESTION, PRESETS, prepare, run, report, contents=CONTENTS, check=check)
