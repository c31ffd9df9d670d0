"""Committed bilevel steps are native steps bit for bit: any optimiser, schedule, clipping and learned rates."""

from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
import torch
from bilevel.identical import assert_identical
from support.problems import AROUND, OPTIMISERS, ClosedForm
from support.strategies import each, taken
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, StepLR

from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.strategies.implicit import Implicit
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.update.inner_update import InnerUpdate

N = 16
CASE = ClosedForm()

SCHEDULES: dict[str, Callable[[torch.optim.Optimizer], LRScheduler] | None] = {
    "constant": None,
    "steps": partial(StepLR, step_size=3, gamma=0.7),
    "cosine": partial(CosineAnnealingLR, T_max=10),
    "one cycle": partial(OneCycleLR, max_lr=0.1, total_steps=N),
}
STRATEGIES = each(without=("in_parts",)) | taken("implicit-2")  # its batches are no samples


def scheduled(name: str, optimiser: torch.optim.Optimizer) -> LRScheduler | None:
    make = SCHEDULES[name]
    if make is None:
        return None
    moved = optimiser.defaults.get("momentum") or "betas" in optimiser.defaults
    return make(optimiser, cycle_momentum=bool(moved)) if name == "one cycle" else make(optimiser)


def committed(
    strategy: HypergradientStrategy, optimiser: str, around: str, schedule: str
) -> tuple[nn.Module, InnerUpdate]:
    """N steps, bilevel and plain ones in turn, with the schedule moved on between."""
    model, outer = CASE.model(), CASE.outer()
    update = InnerUpdate(OPTIMISERS[optimiser](model.parameters()), **limited(around))
    frozen = torch.optim.SGD(outer.values(), lr=0.0)
    solver = BilevelSolver(CASE.problem(), model, update, outer, frozen, strategy)
    scheduler = scheduled(schedule, update.optimizer)
    while solver.inner_steps < N:
        index = solver.inner_steps
        if index % 4 == 3 or index + strategy.inner_steps > N:
            solver.inner_step(CASE.inner_batch(index))
        else:
            solver.step([CASE.inner_batch(index + k) for k in range(strategy.inner_steps)], CASE.outer_batch())
        if scheduler is not None and solver.inner_steps < N:
            scheduler.step()
    return model, update


def native(
    strategy: HypergradientStrategy, optimiser: str, around: str, schedule: str
) -> tuple[nn.Module, InnerUpdate]:
    model, outer = CASE.model(), CASE.outer()
    update = InnerUpdate(OPTIMISERS[optimiser](model.parameters()), **limited(around))
    scheduler, taken = scheduled(schedule, update.optimizer), 0
    while taken < N:
        together = 1 if taken % 4 == 3 or taken + strategy.inner_steps > N else strategy.inner_steps
        CASE.native_steps(model, update, outer, [CASE.inner_batch(taken + k) for k in range(together)])
        taken += together
        if scheduler is not None and taken < N:
            scheduler.step()
    return model, update


def limited(around: str) -> dict[str, object]:
    """The limit below the gradients of all N steps."""
    options = dict(AROUND[around])
    return {**options, "clip_norm": 0.1} if "clip_norm" in options else options


def assert_same(found: tuple[nn.Module, InnerUpdate], wanted: tuple[nn.Module, InnerUpdate]) -> None:
    assert_identical(dict(found[0].state_dict()), dict(wanted[0].state_dict()))
    assert_identical(found[1].optimizer.state_dict(), wanted[1].optimizer.state_dict())
    assert not any(isinstance(v, Tensor) for group in found[1].optimizer.param_groups for v in group.values())


@pytest.mark.parametrize(
    ("around", "schedule"),
    [*product(AROUND, ["constant"]), *product(["plain", "clipped and learned"], ["steps", "cosine", "one cycle"])],
)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_steps_are_native_steps(optimiser: str, around: str, schedule: str) -> None:
    assert_same(committed(Mixed(), optimiser, around, schedule), native(Mixed(), optimiser, around, schedule))


@pytest.mark.parametrize("optimiser", ["nesterov", "adamw", "rmsprop-centred"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_steps_of_every_strategy(strategy: str, optimiser: str) -> None:
    around = "clipped" if isinstance(STRATEGIES[strategy], Implicit) else "clipped and learned"
    arguments = (STRATEGIES[strategy], optimiser, around, "one cycle")
    assert_same(committed(*arguments), native(*arguments))


def test_one_cycle_moves_more_than_the_rate() -> None:
    for optimiser, name in (("momentum", "momentum"), ("adam", "betas"), ("rmsprop-centred", "momentum")):
        _, update = committed(Mixed(), optimiser, "plain", "one cycle")
        fresh = OPTIMISERS[optimiser](CASE.model().parameters())
        assert update.optimizer.param_groups[0][name] != fresh.param_groups[0][name]


def test_factors_multiply_the_schedule() -> None:
    """Twice the rate of every step of a schedule is a schedule from twice the rate."""
    model, outer = CASE.model(), CASE.outer()
    update = InnerUpdate(
        torch.optim.SGD(model.parameters(), lr=0.04),
        hyperparameters=lambda outer, group: {"lr": torch.tensor(2 * group["lr"], dtype=torch.float64)},
    )
    solver = BilevelSolver(CASE.problem(), model, update, outer, torch.optim.SGD(outer.values(), lr=0.0))
    other = CASE.model()
    plain = InnerUpdate(torch.optim.SGD(other.parameters(), lr=0.08))
    schedules = [CosineAnnealingLR(held.optimizer, T_max=10) for held in (update, plain)]
    for index in range(12):
        solver.step([CASE.inner_batch(index)], CASE.outer_batch())
        CASE.native_steps(other, plain, outer, [CASE.inner_batch(index)])
        for schedule in schedules:
            schedule.step()
    assert torch.allclose(model(), other(), rtol=1e-13, atol=0)
