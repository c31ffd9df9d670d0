"""Few-shot sinusoid regression (Finn et al., Model-Agnostic Meta-Learning, ICML 2017, section 5.1).

A task is y = A sin(x + p), of which a few points are given. The outer parameters θ are the weights a network starts
from, and the inner problem is to adapt them to a task by a few steps of gradient descent. The inner parameters φ
are offsets from the start, zero before the first step: the adapted network has the weights θ + α φ, where φ descends
with rate lr and α, which may be learned too, scales each tensor's steps. All tasks of a meta-batch are adapted
at once: φ holds one network a task, and the inner loss is the sum over tasks.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from metasynth.bilevel.outer_step import OuterStep
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.strategies.unrolled import Unrolled
from metasynth.report.html import ReportContent, ReportFigure
from metasynth.report.style import COLORS, FAINT, INK, new_figure, style
from metasynth.report.tables import Table
from metasynth.running.prepared import PreparedData
from metasynth.running.progress import Progress
from metasynth.running.records import CONFIG, METRICS, RESULTS, RunFolder
from metasynth.running.seeding import generator_for
from metasynth.running.study import Experiment, StudyContext, built_in
from metasynth.schema import COUNT, FLAG, NUMBER, TEXT, both, entries, json_value, listing, mapping
from metasynth.sizes import require_memory
from metasynth.training.reach import require_rate

CURVES = "curves.json"
LOW, HIGH = -5.0, 5.0
SHOWN = 3

Points = tuple[Tensor, Tensor]
"""Inputs and targets, (T, n, 1) each: n points of T tasks."""


@dataclass(frozen=True)
class SinusoidConfig:
    """Settings of the study.

    Attributes
    ----------
    variants : tuple of str
        'maml': hypergradients through all inner steps; 'first-order': the second derivatives left out.
    learn_rates : bool
        Whether α, a step size for each weight tensor, is learned too; else it is 1.
    widths : tuple of int
        Units of the hidden layers.
    shots : int
        Points that a task is adapted to.
    queries : int
        Other points of it that it is judged by.
    inner_steps : int
        Gradient steps of the adaptation.
    inner_lr : float
        Learning rate of the adaptation.
    tasks : int
        Tasks of a meta-batch.
    steps : int
        Outer steps.
    outer_lr : float
        Learning rate of Adam on θ, falling to zero along a cosine.
    clip : float
        Limit of a hypergradient's norm, in units of its running scale.
    test_tasks : int
        New tasks to test on.
    test_steps : int
        Gradient steps that are followed there.
    """

    variants: tuple[Literal["maml", "first-order"], ...] = ("maml", "first-order")
    learn_rates: bool = True
    widths: tuple[int, ...] = (40, 40)
    shots: int = 5
    queries: int = 10
    inner_steps: int = 5
    inner_lr: float = 0.01
    tasks: int = 25
    steps: int = 2500
    outer_lr: float = 0.005
    clip: float = 2.0
    test_tasks: int = 500
    test_steps: int = 10

    def __post_init__(self) -> None:
        counts = ("shots", "queries", "inner_steps", "tasks", "steps", "test_tasks")
        for name in (*counts, "inner_lr", "outer_lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        require_rate(outer_lr=self.outer_lr)
        if not self.clip > 1:
            raise ValueError(f"clip must be above 1, got {self.clip}")
        if min(self.widths, default=1) < 1:
            raise ValueError(f"widths must be at least 1, got {self.widths}")
        if not self.variants or len(set(self.variants)) != len(self.variants):
            raise ValueError(f"variants must list at least one, each once, got {self.variants}")
        if self.test_steps < self.inner_steps:
            raise ValueError(f"test_steps must be at least inner_steps = {self.inner_steps}, got {self.test_steps}")
        if self.test_tasks < SHOWN:
            raise ValueError(f"test_tasks must be at least {SHOWN}, got {self.test_tasks}")


PRESETS = {"quick": SinusoidConfig(), "standard": SinusoidConfig(steps=10_000)}


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


def run(context: StudyContext) -> dict[str, Any]:
    """Meta-learn every variant and adapt it, and the random start, to new tasks; a resumed run begins anew."""
    config: SinusoidConfig = context.config
    seed, device = context.seed, context.device
    context.folder.truncate(0)
    adapted = {"random": adapt(config, new_start(config, seed, device), seed, device)}
    with context.progress.task("sinusoid", len(config.variants) * config.steps) as task:
        for variant in config.variants:
            start = new_start(config, seed, device)
            for step, loss in enumerate(meta_learn(config, variant, start, seed, device), start=1):
                context.folder.append({"variant": variant, "outer_step": step, "outer_loss": loss})
                task.advance(note=f"{variant} {loss:.2f}")
            adapted[variant] = adapt(config, start, seed, device)
    context.folder.write_json(CURVES, adapted)
    untrained = adapted["random"]["curve"][0]
    rows = []
    for name, found in adapted.items():
        before, after = found["curve"][0], found["curve"][config.inner_steps]
        rows.append({"start": name, "before": before, "after": after, "fraction": after / untrained})
    return {"rows": rows}


def report(folder: RunFolder) -> ReportContent:
    """Errors before and after adaptation, by gradient step, and the fits of a few tasks."""
    rows, config, adapted = folder.results["rows"], folder.manifest["config"], folder.read_json(CURVES)
    steps, shots = config["inner_steps"], config["shots"]
    headings = {"start": "start", "before": "before adaptation", "after": f"after {steps} gradient steps"}
    headings["fraction"] = "of the random start's before adaptation"
    best = min(rows, key=lambda row: row["after"])
    return ReportContent(
        title="A start from which few steps on few points are enough",
        summary=[
            f"Starts for a network were learned on sinusoids, and then adapted to {config['test_tasks']} new ones by "
            f"gradient descent on {shots} points of each. After {steps} steps the mean squared error on other points "
            f"is {best['after']:.3f} from the best start ({best['start']}), {best['fraction']:.1%} of that of a "
            "random start before adaptation.",
            "'maml' differentiates through all inner steps; 'first-order' leaves out the second derivatives. A step "
            f"size for each weight tensor was {'learned too' if config['learn_rates'] else 'not learned'}.",
        ],
        tables=[Table.from_records("Mean squared error on new tasks.", rows, headings)],
        figures=[
            ReportFigure("steps", "Mean squared error on new tasks by gradient step.", _curves(adapted)),
            ReportFigure(
                "fits", f"The first new tasks: the {shots} points, and the fits.", _fits(adapted, steps, best)
            ),
        ],
    )


def _curves(adapted: dict[str, Any]) -> Figure:
    with style():
        figure = new_figure(5.0, 3.2)
        axes = figure.add_subplot()
        for color, (variant, found) in zip((FAINT, *COLORS), adapted.items(), strict=False):
            axes.plot(found["curve"], "o-", color=color, markersize=3, label=variant)
        axes.set(xlabel="gradient step", ylabel="mean squared error", yscale="log")
        axes.legend(title="start")
        return figure


def _fits(adapted: dict[str, Any], steps: int, best: dict[str, Any]) -> Figure:
    x = torch.linspace(LOW, HIGH, 101).tolist()
    with style():
        figure = new_figure(7.5, 2.6)
        for task, axes in enumerate(figure.subplots(1, SHOWN, sharey=True)):
            for color, name in zip((FAINT, COLORS[0]), ("random", best["start"]), strict=True):
                for style_of, step in ((":", 0), ("-", steps)):
                    label = f"{name}, {step} steps"
                    axes.plot(x, adapted[name]["fits"][str(step)][task], style_of, color=color, label=label)
            points = [part[task] for part in adapted["random"]["support"]]
            axes.plot(*points, "^", color=INK, label="points given")
            axes.set_xlabel("x")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=5)
        return figure


def prepare(config: SinusoidConfig, data: Path | None, progress: Progress) -> PreparedData:
    """The tasks are drawn here."""
    weights = sum(a * b for a, b in pairwise((1, *config.widths, 1)))
    for name, tasks in (("tasks", config.tasks), ("test_tasks", config.test_tasks)):
        size = 4 * tasks * (weights + config.shots + config.queries)
        require_memory(size, f"adapting to {tasks} tasks", f"widths, shots, queries, {name}")
    return built_in(Path(__file__), data)


QUESTION = "Can a network be started so that five steps on five points of a sinusoid are enough?"
_TASKS = listing(listing(NUMBER), length=SHOWN)
_ADAPTED = {"curve": listing(NUMBER, least=1), "fits": mapping(_TASKS), "support": listing(_TASKS, length=2)}
_SETTINGS = {"inner_steps": COUNT, "shots": COUNT, "test_tasks": COUNT, "learn_rates": FLAG}
_ROW = {"start": TEXT, "before": NUMBER, "after": NUMBER, "fraction": NUMBER}
CONTENTS = {
    METRICS: listing(entries({"variant": TEXT, "outer_step": COUNT, "outer_loss": NUMBER}), least=1),
    RESULTS: entries({"rows": listing(entries(_ROW), least=1)}),
    CONFIG: entries({"config": entries(_SETTINGS)}),
    CURVES: both(entries({"random": json_value}), mapping(entries(_ADAPTED))),
}
EXPERIMENT = Experiment("sinusoid", QUESTION, PRESETS, prepare, run, report, contents=CONTENTS)
