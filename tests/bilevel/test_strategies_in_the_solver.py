"""Every strategy in the solver: nothing is held from step to step, and steps are those of the optimiser."""

import gc

import pytest
import torch
from bilevel.segmentation import PROBLEM, batch
from support.strategies import each, taken
from torch import nn

from metasynth.augment.noise import GaussianNoise
from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.solver import BilevelSolver

STRATEGIES = each(without=("in_parts",)) | taken("finite_difference-limited", "implicit-damped")
"""Without what a Dice over the batch is not for."""


def solver(strategy: HypergradientStrategy, rate: float = 0.1) -> BilevelSolver:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 1, 1), nn.Conv2d(4, 3, 1)
    ).double()
    outer = GaussianNoise(0.2).double()
    outer_optimiser = torch.optim.SGD(outer.parameters(), lr=rate)
    return BilevelSolver(PROBLEM, model, torch.optim.Adam(model.parameters()), outer, outer_optimiser, strategy)


def take(chosen: BilevelSolver, steps: int) -> None:
    for step in range(steps):
        chosen.step([batch((step + k) % 5) for k in range(chosen.strategy.inner_steps)], batch(7))


def tensors() -> int:
    return sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_tensor_outlives_its_step(strategy: str) -> None:
    chosen = solver(STRATEGIES[strategy])
    take(chosen, 3)
    gc.collect()
    gc.disable()  # what a cycle holds must not be hidden by the collector
    try:
        take(chosen, 2)
        early = tensors()
        take(chosen, 20)
        assert tensors() == early
    finally:
        gc.enable()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_steps_are_those_of_the_optimiser(strategy: str) -> None:
    chosen, native = solver(STRATEGIES[strategy], rate=0.0), solver(STRATEGIES[strategy])
    take(chosen, 4)
    for step in range(4):
        for k in range(chosen.strategy.inner_steps):
            native.inner_step(batch((step + k) % 5))
    expected = native.model.state_dict()
    assert all(torch.allclose(v, expected[k], rtol=1e-12, atol=1e-15) for k, v in chosen.model.state_dict().items())
    assert chosen.inner_steps == native.inner_steps


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_loss_of_every_inner_step_is_reported(strategy: str) -> None:
    chosen, native = solver(STRATEGIES[strategy], rate=0.0), solver(STRATEGIES[strategy])
    batches = [batch(k) for k in range(chosen.strategy.inner_steps)]
    report = chosen.step(batches, batch(7))
    assert report.inner_losses == pytest.approx([native.inner_step(one).inner_loss for one in batches], rel=1e-12)
    assert report.inner_loss == report.inner_losses[-1]
