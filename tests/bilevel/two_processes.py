"""What each of two processes does in tests, and the same done by one on whole batches."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from bilevel.segmentation import Batch, Residual, batch, learned_rates, segmenter
from support.strategies import taken
from torch import Tensor, nn

from metasynth.bilevel.batches import take_samples
from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.outer_step import OuterStep
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.processes.processes import Processes
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.step_report import StepReport
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.update.inner_update import InnerUpdate
from metasynth.segment.losses import soft_dice_loss

COUNT = 2
STEPS = 4


def inner_loss(model: nn.Module, outer: nn.Module, given: Batch) -> Tensor:
    """A mean over samples."""
    return soft_dice_loss(model(outer(given.images, given.draws)), given.labels, batch=False)


def outer_loss(model: nn.Module, outer: nn.Module, given: Batch) -> Tensor:
    return soft_dice_loss(model(given.images), given.labels, batch=False)


PROBLEM = BilevelProblem(inner_loss, outer_loss)

STRATEGIES = taken("mixed", "forward", "finite_difference-reporting", "implicit-solved", "in_parts-of-1") | taken(
    "unrolled-3", "unrolled-3-last-2", "unrolled-remat-5"
)

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, lr=0.3, momentum=0.9),
    "adam": partial(torch.optim.Adam, lr=1e-2, eps=1e-3),
}


@dataclass(frozen=True)
class Case:
    """A training of a few steps."""

    strategy: HypergradientStrategy
    optimiser: str
    around: Mapping[str, Any] = field(default_factory=dict)
    outer_step: OuterStep = field(default_factory=OuterStep)
    plain_steps: bool = False


CASES = {
    **{f"{name}-{kind}": Case(strategy, kind) for name, strategy in STRATEGIES.items() for kind in OPTIMISERS},
    "everything-on": Case(
        Mixed(),
        "adam",
        {"clip_norm": 0.02, "hyperparameters": learned_rates},
        OuterStep(average=2, clip=1.01, clip_decay=0.5, memory=0.5),
        plain_steps=True,
    ),
}


def whole(seed: int) -> Batch:
    """Four samples."""
    pairs = batch(seed), batch(10_000 + seed)
    return Batch(*(torch.cat([getattr(pair, name) for pair in pairs]) for name in ("images", "labels", "draws")))


def share_of(given: Batch, rank: int | None) -> Batch:
    """The part of one process; the whole for None."""
    return given if rank is None else take_samples(given, torch.arange(rank, 4, COUNT))


def solver_of(case: Case, processes: Processes, seed: int, **options: Any) -> BilevelSolver:
    """Processes other than the first begin elsewhere, and must not stay there."""
    model, outer = options.pop("model", None) or segmenter(seed), Residual(seed)
    update = InnerUpdate(OPTIMISERS[case.optimiser](model.parameters()), processes, **case.around)
    outer_optimiser = torch.optim.Adam(outer.parameters(), lr=1e-2)
    return BilevelSolver(PROBLEM, model, update, outer, outer_optimiser, case.strategy, case.outer_step, **options)


def trained(case: Case, processes: Processes, rank: int | None) -> dict[str, Any]:
    """State and reports after every step."""
    solver = solver_of(case, processes, rank or 0)
    reports: list[StepReport] = []
    for step in range(0, 100 * STEPS, 100):
        inner = [share_of(whole(step + k), rank) for k in range(case.strategy.inner_steps)]
        reports.append(solver.step(inner, share_of(whole(step + 50), rank), share_of(whole(step + 51), rank)))
        if case.plain_steps:
            reports.append(solver.inner_step(share_of(whole(step + 60), rank)))
    return {"state": solver.state_dict(), "reports": [asdict(report) for report in reports]}


class Heads(nn.Module):
    """One head for each kind of sample, and one for a kind that never comes."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.trunk = nn.Parameter(torch.randn(3, dtype=torch.float64, generator=generator))
        self.heads = nn.ParameterDict(
            {kind: nn.Parameter(torch.randn(3, dtype=torch.float64, generator=generator)) for kind in ("a", "b", "c")}
        )

    def forward(self, kind: str, x: Tensor) -> Tensor:
        return torch.tanh(x * self.trunk) @ self.heads[kind]


def of_kinds(seed: int, rank: int | None) -> list[tuple[str, Tensor]]:
    """Two samples of different kinds, of which a process has one; which of them, changes."""
    generator = torch.Generator().manual_seed(seed)
    both = [(kind, torch.randn(3, dtype=torch.float64, generator=generator)) for kind in ("a", "b")]
    return both if rank is None else [both[(rank + seed) % 2]]


def by_kind(model: nn.Module, outer: Mapping[str, Tensor], given: list[tuple[str, Tensor]]) -> Tensor:
    return torch.stack([(model(kind, x) - outer[kind] * x.sum()).square() for kind, x in given]).mean()


def of_heads(model: nn.Module, outer: Mapping[str, Tensor], given: list[tuple[str, Tensor]]) -> Tensor:
    return torch.stack([(model(kind, x) - x.prod()).square() for kind, x in given]).mean()


def trained_by_kind(strategy: HypergradientStrategy, processes: Processes, rank: int | None) -> dict[str, Any]:
    """Weights and outer parameters that a process' own batch often does not reach."""
    model = Heads()
    outer = {kind: torch.tensor(0.3, dtype=torch.float64, requires_grad=True) for kind in ("a", "b", "c")}
    update = InnerUpdate(torch.optim.AdamW(model.parameters(), lr=0.05, eps=1e-2, weight_decay=0.1), processes)
    outer_optimiser = torch.optim.Adam(outer.values(), lr=0.1)
    problem = BilevelProblem(by_kind, of_heads)
    solver = BilevelSolver(problem, model, update, outer, outer_optimiser, strategy, check=False)
    for step in range(0, 60, 10):
        inner = [of_kinds(step + step // 20 + k, rank) for k in range(strategy.inner_steps)]
        solver.step(inner, of_kinds(step + 5, rank), of_kinds(step + 6, rank))
        solver.inner_step(of_kinds(step + 8, rank))
    return {"state": solver.state_dict()}


BY_KIND = taken("mixed", "forward", "finite_difference", "implicit-damped", "unrolled-2", "unrolled-remat-5")


class Normalised(nn.Module):
    """A segmenter with batch normalisation, and a buffer that is no statistic."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.segmenter = segmenter(seed, norm="batch")
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf, 0.1], dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        return self.segmenter(images)


class NormalisedOuter(Residual):
    """A residual whose input is normalised by running statistics."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.norm = nn.BatchNorm2d(1).double()

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        return super().forward(self.norm(images), draws)


def normalised(processes: Processes, rank: int) -> dict[str, Any]:
    """Buffers after one plain step and after a step."""
    model, outer = Normalised(rank), NormalisedOuter(rank)
    update = InnerUpdate(torch.optim.SGD(model.parameters(), lr=0.1), processes)
    solver = BilevelSolver(PROBLEM, model, update, outer, torch.optim.SGD(outer.parameters(), lr=0.1))
    solver.inner_step(share_of(whole(0), rank))
    plain = {name: value.clone() for name, value in (*model.named_buffers(), *outer.named_buffers())}
    solver.step([share_of(whole(1), rank)], share_of(whole(2), rank))
    return {"plain": plain, "state": solver.state_dict()}


def spoiled(given: Batch, rank: int) -> Batch:
    """Not a number in one voxel of the second process' part."""
    if rank == 0:
        return given
    images = given.images.clone()
    images[0, 0, 0, 0] = torch.nan
    return replace(given, images=images)


def raised(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def not_finite(strategy: HypergradientStrategy, processes: Processes, rank: int) -> dict[str, Any]:
    """The errors, the states after them, and that of a step after all."""
    model, outer = Normalised(rank), NormalisedOuter(rank)
    update = InnerUpdate(torch.optim.Adam(model.parameters(), lr=1e-2), processes)
    outer_optimiser = torch.optim.Adam(outer.parameters(), lr=1e-2)
    options = OuterStep(average=2, clip=2.0, memory=0.5)
    solver = BilevelSolver(PROBLEM, model, update, outer, outer_optimiser, strategy, options)

    def step(index: int, **bad: Any) -> StepReport:
        parts = {"inner": 0, "outer": 50, "reference": 51}
        given = {name: share_of(whole(index + k), rank) for name, k in parts.items()}
        given.update({name: spoiled(given[name], rank) for name in bad})
        inner = [given["inner"]] * strategy.inner_steps
        return solver.step(inner, given["outer"], given["reference"])

    step(0)
    states = [copy.deepcopy(solver.state_dict())]
    messages = []
    for index, name in enumerate(("inner", "outer", "reference"), start=1):
        messages.append(raised(lambda index=index, name=name: step(100 * index, **{name: True})))
        states.append(copy.deepcopy(solver.state_dict()))
    messages.append(raised(lambda: solver.inner_step(spoiled(share_of(whole(0), rank), rank))))
    states.append(copy.deepcopy(solver.state_dict()))
    report = step(500)
    return {"messages": messages, "states": states, "report": asdict(report), "state": solver.state_dict()}


NOT_FINITE = taken("mixed", "forward", "finite_difference-limited", "implicit-damped")


def means(processes: Processes, rank: int) -> dict[str, Any]:
    """Lists with missing entries, of several types."""
    full = torch.arange(6, dtype=torch.float64).view(2, 3) + 10 * rank
    single = torch.tensor([1.0, 2.0]) * (rank + 1)
    leaf = torch.tensor(3.0 + rank, dtype=torch.float64, requires_grad=True)
    spoilt = torch.tensor([1.0, torch.nan if rank else 1.0])
    given = [full, None, single if rank else None, None if rank else single.double(), leaf**2, spoilt, torch.zeros(0)]
    found = processes.mean(given)
    return {
        "mean": found,
        "given": [None if t is None else t.detach() for t in given],
        "nothing": [processes.mean([]), processes.mean([None, None])],
        "messages": [raised(lambda: processes.mean([torch.zeros(2 + rank)]))],
    }


def refusals(processes: Processes, rank: int) -> dict[str, str]:
    """What is wrong in one process alone stops both, or both are told."""
    plain = Case(Mixed(), "sgd")
    first, second = share_of(whole(0), rank), share_of(whole(1), rank)

    def unlike() -> None:
        solver_of(plain, processes, 0, model=segmenter() if rank == 0 else segmenter(norm="batch"))

    def other_rate() -> None:
        solver = solver_of(plain, processes, 0)
        solver.optimizer.param_groups[0]["lr"] = 0.3 + rank
        solver.inner_step(first)

    def loaded_by_one() -> None:
        solver = solver_of(plain, processes, 0)
        solver.inner_step(first)
        before = copy.deepcopy(solver.state_dict())
        solver.inner_step(first)
        if rank == 1:
            before["inner_steps"] = 0
        solver.load_state_dict(before)
        solver.step([first], second)

    def cut_in_one() -> None:
        problem = BilevelProblem(
            lambda m, o, b: inner_loss(m, o if rank == 0 else lambda images, draws: o(images, draws).detach(), b),
            outer_loss,
        )
        solver = solver_of(plain, processes, 0)
        solver.problem = problem
        solver.step([first], second)

    def raised_in_one() -> None:
        def refusing(model: nn.Module, outer: Any, batch: Any) -> Tensor:
            if rank == 1:
                raise ValueError("a batch that is none")
            return inner_loss(model, outer, batch)

        solver = solver_of(plain, processes, 0)
        solver.problem = BilevelProblem(refusing, outer_loss)
        solver.step([first], second)

    group = dist.new_group([0])
    return {
        "unlike": raised(unlike),
        "other rate": raised(other_rate),
        "loaded by one": raised(loaded_by_one),
        "cut in one": raised(cut_in_one),
        "raised in one": raised(raised_in_one),
        "no member": raised(lambda: Processes(group)),
    }


def everything(rank: int, store: str, folder: str) -> None:
    """The whole of what process ``rank`` does; results go to a file."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=COUNT, timeout=timedelta(seconds=120)
    )
    try:
        processes = Processes.current()
        found = {
            "trained": {name: trained(case, processes, rank) for name, case in CASES.items()},
            "by kind": {name: trained_by_kind(strategy, processes, rank) for name, strategy in BY_KIND.items()},
            "normalised": normalised(processes, rank),
            "not finite": {name: not_finite(strategy, processes, rank) for name, strategy in NOT_FINITE.items()},
            "means": means(processes, rank),
            "refusals": refusals(processes, rank),
        }
        torch.save(found, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
