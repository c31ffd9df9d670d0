"""With the outer parameters frozen, committed solver steps are native `torch.optim` steps."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from bilevel.segmentation import PROBLEM, Batch, batch, native_step, segmenter
from support.problems import MakeOptimiser
from support.strategies import STRATEGIES
from torch import Tensor, nn

from metasynth.augment.noise import GaussianNoise
from metasynth.bilevel.solver import BilevelSolver
from metasynth.segment.unet import UNet

N = 12
TOLERANCE = 1e-12

OPTIMISERS: dict[str, MakeOptimiser] = {
    "sgd": partial(torch.optim.SGD, lr=0.3),
    "sgd-decay": partial(torch.optim.SGD, lr=0.3, weight_decay=0.01),
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9, dampening=0.2),
    "nesterov": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": partial(torch.optim.Adam, lr=3e-3),
    "adam-decay": partial(torch.optim.Adam, lr=3e-3, weight_decay=0.01),
    "adamw": partial(torch.optim.AdamW, lr=3e-3, weight_decay=0.1),
    "rmsprop": partial(torch.optim.RMSprop, lr=3e-3, weight_decay=0.01),
    "rmsprop-centred": partial(torch.optim.RMSprop, lr=3e-3, alpha=0.9, momentum=0.5, centered=True),
}
ADAM = OPTIMISERS["adam"]

Plan = list[tuple[str, int]]
"""Solver calls in order: ("step" or "inner_step", how many inner batches it takes)."""

PLANS: dict[str, tuple[str, Plan]] = {
    "mixed": ("mixed", [("step", 1)] * N),
    "unrolled-2": ("unrolled-2", [("step", 2)] * (N // 2)),
    "mixed and plain": ("mixed", [("step", 1), ("inner_step", 1), ("inner_step", 1), ("step", 1)] * (N // 4)),
    "plain": ("mixed", [("inner_step", 1)] * N),
}
"""A strategy's name, and how the solver is called."""


class TiedNet(nn.Module):
    """Two convolutions with one weight, one BatchNorm used after each, and a frozen scale."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.inward = nn.Conv2d(1, 3, 3, padding=1)
            self.first, self.second = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
            self.head = nn.Conv2d(3, 3, 1)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm2d(3)
        self.again = self.norm
        self.scale = nn.Parameter(torch.tensor(0.7), requires_grad=False)
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.first(self.inward(images))))
        return self.head(self.scale * torch.relu(self.again(self.second(hidden))))


def unet() -> UNet:
    return segmenter(norm="batch")


def run(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    strategy: str,
    between: Callable[[int], None] = lambda _: None,
) -> None:
    """N committed steps; ``between`` is told how many have been taken after each call."""
    outer = GaussianNoise(0.2).double()
    frozen = torch.optim.SGD(outer.parameters(), lr=0.0)
    name, plan = PLANS[strategy]
    solver = BilevelSolver(PROBLEM, model, optimiser, outer, frozen, STRATEGIES[name])
    for call, takes in plan:
        batches = [batch(solver.inner_steps + k) for k in range(takes)]
        if call == "step":
            solver.step(batches, batch(999 + solver.inner_steps))
        else:
            solver.inner_step(batches[0])
        between(solver.inner_steps)
    assert solver.inner_steps == N
    assert outer.sigma.item() == GaussianNoise(0.2).double().sigma.item()


def run_natively(
    model: nn.Module, optimiser: torch.optim.Optimizer, between: Callable[[int], None] = lambda _: None
) -> None:
    outer = GaussianNoise(0.2).double()
    for index in range(N):
        native_step(model, optimiser, outer, batch(index))
        between(index + 1)


def assert_equal(
    model: nn.Module, optimiser: torch.optim.Optimizer, other: nn.Module, native: torch.optim.Optimizer
) -> None:
    """Weights, buffers and the optimisers' whole state."""
    assert_close(dict(model.state_dict()), dict(other.state_dict()))
    states, wanted = optimiser.state_dict(), native.state_dict()
    assert states["param_groups"] == wanted["param_groups"]
    assert states["state"].keys() == wanted["state"].keys()
    for index, state in wanted["state"].items():
        assert_close(states["state"][index], state)


def assert_close(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if value is None:
            assert found[name] is None, name
            continue
        assert found[name].dtype == value.dtype, name
        assert not found[name].requires_grad, name
        torch.testing.assert_close(found[name], value, rtol=0, atol=TOLERANCE, msg=name)


def compare(build: Callable[[], nn.Module], make: Callable[[nn.Module], torch.optim.Optimizer], strategy: str) -> None:
    model, other = build(), build()
    optimiser, native = make(model), make(other)
    run(model, optimiser, strategy)
    run_natively(other, native)
    assert_equal(model, optimiser, other, native)


# On a small problem for every strategy, optimiser and schedule, with clipping and learned rates:
# test_inner_update_parity.py.
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("strategy", ["unrolled-2", "mixed and plain"])
def test_steps_are_native_steps(strategy: str, optimiser: str) -> None:
    compare(unet, lambda model: OPTIMISERS[optimiser](model.parameters()), strategy)


@pytest.mark.parametrize("optimiser", ["nesterov", "adamw"])
@pytest.mark.parametrize("strategy", PLANS)
def test_tied_weights_shared_norm_and_frozen_parameter(strategy: str, optimiser: str) -> None:
    compare(TiedNet, lambda model: OPTIMISERS[optimiser](model.parameters()), strategy)


@pytest.mark.parametrize("strategy", PLANS)
def test_groups_of_their_own_rates(strategy: str) -> None:
    def groups(model: nn.Module) -> torch.optim.Optimizer:
        early, late = list(model.parameters())[:5], list(model.parameters())[5:]
        return torch.optim.AdamW([{"params": late, "lr": 1e-2}, {"params": early, "weight_decay": 0.3}], lr=1e-3)

    compare(unet, groups, strategy)


@pytest.mark.parametrize("strategy", PLANS)
def test_optimiser_of_some_parameters(strategy: str) -> None:
    def some(model: nn.Module) -> torch.optim.Optimizer:
        return ADAM(list(model.parameters())[3:9])

    compare(unet, some, strategy)
    model = unet()
    before = [p.detach().clone() for p in model.parameters()]
    run(model, some(model), strategy)
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert moved == [3 <= index < 9 for index in range(len(before))]
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("strategy", ["unrolled-2", "mixed and plain"])
def test_scheduler_on_the_inner_optimiser(strategy: str) -> None:
    def scheduled(optimiser: torch.optim.Optimizer) -> Callable[[int], None]:
        scheduler = torch.optim.lr_scheduler.StepLR(optimiser, step_size=2, gamma=0.6)
        seen = 0

        def advance(taken: int) -> None:
            nonlocal seen
            if taken // 4 > seen:
                seen = taken // 4
                scheduler.step()

        return advance

    model, other = unet(), unet()
    optimiser, native = ADAM(model.parameters()), ADAM(other.parameters())
    run(model, optimiser, strategy, scheduled(optimiser))
    run_natively(other, native, scheduled(native))
    assert optimiser.param_groups[0]["lr"] < 3e-3
    assert_equal(model, optimiser, other, native)


@pytest.mark.parametrize("strategy", PLANS)
def test_native_steps_can_follow(strategy: str) -> None:
    model, other = unet(), unet()
    optimiser, native = ADAM(model.parameters()), ADAM(other.parameters())
    run(model, optimiser, strategy)
    run_natively(model, optimiser)
    run_natively(other, native)
    run_natively(other, native)
    assert_equal(model, optimiser, other, native)


@pytest.mark.parametrize("strategy", ["mixed", "unrolled-2"])
def test_real_examples_touch_nothing_but_the_outer_parameters(strategy: str) -> None:
    """Statistics of BatchNorm and weights do not depend on the outer batches, though their passes run in train mode."""
    ends = []
    for seed in (0, 100):
        model = unet()
        outer = GaussianNoise(0.2).double()
        solver = BilevelSolver(
            PROBLEM,
            model,
            ADAM(model.parameters()),
            outer,
            torch.optim.SGD(outer.parameters(), lr=0.0),
            STRATEGIES[strategy],
        )
        takes = solver.strategy.inner_steps
        for index in range(4):
            real = scaled(batch(700 + seed + index), 1.0 + seed)
            report = solver.step([batch(takes * index + k) for k in range(takes)], real, batch(800 + seed + index))
        assert model.training
        ends.append((copy.deepcopy(model.state_dict()), report.outer_loss))
    (first, first_loss), (second, second_loss) = ends
    assert first_loss != second_loss
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def scaled(given: Batch, factor: float) -> Batch:
    return Batch(given.images * factor, given.labels, given.draws)


def test_outer_loss_sees_the_committed_statistics() -> None:
    """In eval mode the outer loss uses the running statistics that the inner step has just made."""

    def evaluated(model: nn.Module, outer: nn.Module, given: Batch) -> Tensor:
        model.eval()
        loss = PROBLEM.outer_loss(model, outer, given)
        model.train()
        return loss

    problem = type(PROBLEM)(PROBLEM.inner_loss, evaluated)
    model, outer = unet(), GaussianNoise(0.2).double()
    solver = BilevelSolver(problem, model, ADAM(model.parameters()), outer, torch.optim.SGD(outer.parameters(), lr=0.0))
    for index in range(3):
        report = solver.step([batch(index)], batch(99))
        with torch.no_grad():
            assert report.outer_loss == pytest.approx(evaluated(model, outer, batch(99)).item(), rel=1e-12)
