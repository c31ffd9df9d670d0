"""A solver saved to disk and restored into fresh objects goes on bit for bit."""

import copy
import io
from typing import Any

import pytest
import torch
from bilevel.identical import assert_identical
from bilevel.segmentation import PROBLEM, Residual, batch, segmenter
from support.problems import ClosedForm
from torch import Tensor, nn

from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.outer_step import OuterStep
from metasynth.bilevel.patched.buffers import BufferPolicy
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.strategies.unrolled import Unrolled

OUTER_STEPS = {
    "plain": OuterStep(),
    "all": OuterStep(average=3, clip=1.5, clip_decay=0.8, memory=0.7),
}


def build(
    seed: int, strategy: HypergradientStrategy, outer_step: OuterStep, adam: bool, buffers: BufferPolicy = "commit"
) -> BilevelSolver:
    model, outer = segmenter(seed, norm="batch"), Residual(seed)
    inner: torch.optim.Optimizer
    if adam:
        inner = torch.optim.AdamW(model.parameters(), lr=1e-2)
    else:
        inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    outer_optimiser = torch.optim.Adam(outer.parameters(), lr=1e-2)
    return BilevelSolver(PROBLEM, model, inner, outer, outer_optimiser, strategy, outer_step, buffers=buffers)


def advance(solver: BilevelSolver, calls: range) -> list[Any]:
    takes = solver.strategy.inner_steps
    reports = []
    for call in calls:
        inner = [batch(1000 * call + k) for k in range(takes)]
        reports.append(solver.step(inner, batch(1000 * call + 500), batch(1000 * call + 501)))
        reports.append(solver.inner_step(batch(1000 * call + 502)))
    return reports


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


@pytest.mark.parametrize("adam", [True, False], ids=["adamw", "momentum"])
@pytest.mark.parametrize("outer_step", OUTER_STEPS)
@pytest.mark.parametrize("strategy", [Mixed(), Unrolled(2)], ids=["mixed", "unrolled-2"])
@pytest.mark.parametrize("stop", [0, 4])
def test_resumed_is_uninterrupted(strategy: HypergradientStrategy, outer_step: str, adam: bool, stop: int) -> None:
    options = OUTER_STEPS[outer_step]
    whole = build(0, strategy, options, adam)
    first = advance(whole, range(stop))
    state = through_a_file(whole.state_dict())  # in the middle of an average of three
    rest = advance(whole, range(stop, 8))

    resumed = build(1, strategy, options, adam)
    resumed.load_state_dict(state)
    assert advance(resumed, range(stop, 8)) == rest
    assert_identical(resumed.state_dict(), whole.state_dict())
    assert len(first) == 2 * stop
    assert rest[-1].outer_steps == 8 // options.average


@pytest.mark.parametrize("buffers", ["freeze", "batch"])
def test_resumed_with_buffers_that_stay(buffers: BufferPolicy) -> None:
    """They stay at those of the state, not at those the new model was built with."""
    strategy, options = Unrolled(2), OUTER_STEPS["all"]
    whole = build(0, strategy, options, adam=True, buffers=buffers)
    first = whole.model.encoder[0].norms[0]
    with torch.no_grad():
        first.running_mean.add_(0.3)
        first.running_var.mul_(1.7)
    advance(whole, range(2))
    state = through_a_file(whole.state_dict())
    rest = advance(whole, range(2, 5))
    resumed = build(1, strategy, options, adam=True, buffers=buffers)
    resumed.load_state_dict(state)
    assert advance(resumed, range(2, 5)) == rest
    assert_identical(resumed.state_dict(), whole.state_dict())
    assert resumed.model.encoder[0].norms[0].running_mean[0] == 0.3


def test_a_state_is_not_changed_by_going_on_from_it() -> None:
    solver = build(0, Mixed(), OUTER_STEPS["all"], adam=True)
    advance(solver, range(2))
    state = through_a_file(solver.state_dict())
    copy = through_a_file(state)
    other = build(1, Mixed(), OUTER_STEPS["all"], adam=True)
    other.load_state_dict(state)
    advance(other, range(2, 4))
    assert_identical(state, copy)


@pytest.mark.parametrize("container", ["mapping", "sequence", "tensor"])
def test_outer_parameters_without_a_module(container: str) -> None:
    case = ClosedForm()

    def made(offset: float) -> tuple[BilevelSolver, Any]:
        theta = [p.detach() + offset for p in case.outer().values()]
        leaves = [p.requires_grad_() for p in theta]
        outers: dict[str, Any] = {
            "mapping": dict(zip(("shift", "stiffness"), leaves, strict=True)),
            "sequence": leaves,
            "tensor": torch.cat([p.detach() for p in theta]).requires_grad_(),
        }
        outer = outers[container]
        held = [outer] if container == "tensor" else leaves
        model = case.model()
        problem = case.problem()
        adapted = type(problem)(
            lambda m, o, b: problem.inner_loss(m, named(o), b), lambda m, o, b: problem.outer_loss(m, named(o), b)
        )
        return BilevelSolver(
            adapted,
            model,
            torch.optim.Adam(model.parameters(), lr=0.05),
            outer,
            torch.optim.Adam(held, lr=0.05),
        ), outer

    def named(outer: Any) -> dict[str, Tensor]:
        if container == "mapping":
            return outer
        parts = outer if container == "sequence" else (outer[:2], outer[2:])
        return dict(zip(("shift", "stiffness"), parts, strict=True))

    def go(solver: BilevelSolver, steps: range) -> None:
        for index in steps:
            solver.step([case.inner_batch(index)], case.outer_batch(index))

    whole, _ = made(0.0)
    go(whole, range(3))
    state = through_a_file(whole.state_dict())
    go(whole, range(3, 6))
    resumed, outer = made(1.0)
    identities = [id(p) for p in named(outer).values()] if container != "tensor" else [id(outer)]
    resumed.load_state_dict(state)
    go(resumed, range(3, 6))
    assert_identical(resumed.state_dict(), whole.state_dict())
    after = [id(p) for p in named(outer).values()] if container != "tensor" else [id(outer)]
    assert after == identities


def test_a_state_of_other_outer_parameters_is_refused() -> None:
    case = ClosedForm()
    model = case.model()
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    outer = case.outer()
    solver = BilevelSolver(case.problem(), model, inner, outer, torch.optim.SGD(outer.values(), lr=0.1))
    state = solver.state_dict()
    renamed = {**state, "outer": {"shift": state["outer"]["shift"], "other": state["outer"]["stiffness"]}}
    with pytest.raises(ValueError, match=r"outer state must name \['shift', 'stiffness'\], got \['other', 'shift'\]"):
        solver.load_state_dict(renamed)
    sums = {"sums": {"other": None}, "count": 0, "scale": None}
    with pytest.raises(ValueError, match=r"hypergradients must name \['shift', 'stiffness'\], got \['other'\]"):
        solver.load_state_dict({**state, "accumulator": sums})


@pytest.mark.parametrize("kind", [torch.optim.NAdam, torch.optim.ASGD])
@pytest.mark.parametrize("value", [torch.ones((), dtype=torch.float64), torch.ones(3, dtype=torch.bfloat16)], ids=str)
def test_single_numbers_of_a_state_come_back_as_they_were(kind: type[torch.optim.Optimizer], value: Tensor) -> None:
    """torch gives them the parameter's precision when it loads them."""
    weight = nn.Parameter(value.clone())

    def solver(parameter: nn.Parameter) -> BilevelSolver:
        problem = BilevelProblem(lambda *_: torch.zeros(()), lambda *_: torch.zeros(()))
        model, outer = nn.Linear(1, 1), {"theta": parameter}
        return BilevelSolver(problem, model, torch.optim.SGD(model.parameters()), outer, kind([parameter]), check=False)

    before = solver(weight)
    for _ in range(3):
        weight.grad = torch.ones_like(weight)
        before.outer_optimizer.step()
    after = solver(nn.Parameter(value.clone()))
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    (ours,), (theirs,) = before.outer_optimizer.state.values(), after.outer_optimizer.state.values()
    assert_identical(theirs, ours)
    assert {name: v.dtype for name, v in theirs.items()} == {name: v.dtype for name, v in ours.items()}
