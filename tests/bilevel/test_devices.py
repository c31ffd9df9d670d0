"""The core on a device gives what it gives on the CPU: `make gpu` holds a GPU against it, other runs the CPU itself."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from bilevel import segmentation
from bilevel.against_mixed import REPLAYING, network
from bilevel.identical import assert_identical
from bilevel.segmentation import AROUND, OPTIMISERS, PROBLEM, Batch, Residual, batch, segmenter
from support.problems import MakeOptimiser
from support.strategies import STRATEGIES, each
from torch import Tensor, nn
from torch.distributions import Normal

from metasynth.augment.noise import GaussianNoise
from metasynth.bilevel.draws import draw
from metasynth.bilevel.hypergradient import Hypergradient, HypergradientStrategy, InnerStep, hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem, Outer
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.strategies.score_function import ScoreFunction
from metasynth.bilevel.update.inner_update import InnerUpdate
from metasynth.running.checkpoint import load_checkpoint, save_checkpoint

WITHIN = 1e-9
BY_DIFFERENCES = 1e-5
"""Of what differences of values give, in which rounding is divided by a step; see the contract test."""

OWN = {"nadam": torch.optim.NAdam, "radam": torch.optim.RAdam, "asgd": torch.optim.ASGD}
"""Those that torch rounds otherwise on a GPU, unless told not to."""


def on(device: str, given: Batch) -> Batch:
    return Batch(*(getattr(given, each.name).to(device) for each in fields(given)))


def computed(
    device: str, strategy: HypergradientStrategy, make: MakeOptimiser = OPTIMISERS["adam"], around: str = "plain"
) -> tuple[Hypergradient, InnerStep]:
    """A hypergradient with warm moments, all on the device from the start."""
    model, outer = segmenter().to(device), Residual().to(device)
    inner = make(model.parameters())
    for index in range(3):
        segmentation.native_step(model, inner, outer, on(device, batch(500 + index)))
    update = InnerUpdate(inner, **AROUND[around])
    batches = [on(device, batch(k)) for k in range(strategy.inner_steps)]
    torch.manual_seed(0)
    inputs = StepInputs(PROBLEM, FunctionalModel(model), update, outer, batches)
    return hypergradient(inputs, on(device, batch(99)), strategy)


def flat(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return torch.cat([t.detach().flatten() for t in tensors])


def assert_as_on_the_cpu(
    device: str, strategy: HypergradientStrategy, make: MakeOptimiser = OPTIMISERS["adam"], around: str = "plain"
) -> None:
    (own, step), (truth, its_step) = (computed(d, strategy, make, around) for d in (device, "cpu"))
    h, expected = flat(list(own.gradients.values())), flat(list(truth.gradients.values()))
    assert h.device.type == device
    assert h.dtype == torch.float64
    bound = BY_DIFFERENCES if strategy.mode == "differences" else WITHIN
    assert expected.norm() > 0
    assert (h.cpu() - expected).norm() <= bound * expected.norm()
    torch.testing.assert_close(flat(step.parameters).cpu(), flat(its_step.parameters), rtol=1e-12, atol=1e-13)
    assert own.outer_loss.item() == pytest.approx(truth.outer_loss.item(), rel=1e-11)
    assert [loss.item() for loss in own.inner_losses] == pytest.approx(
        [loss.item() for loss in truth.inner_losses], rel=1e-11
    )
    assert own.diagnostics.keys() == truth.diagnostics.keys()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy(strategy: str, device: str) -> None:
    assert_as_on_the_cpu(device, STRATEGIES[strategy])


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_every_optimiser_that_is_used_most(optimiser: str, around: str, device: str) -> None:
    """With what torch chooses by itself there, such as a step of all parameters at once on a GPU."""
    assert_as_on_the_cpu(device, Mixed(), OPTIMISERS[optimiser], around)


@pytest.mark.parametrize("optimiser", OWN)
def test_an_optimiser_that_rounds_otherwise_there_says_what_to_set(optimiser: str, device: str) -> None:
    """On the CPU it is what a GPU takes by itself that is refused."""
    kind, by_itself = OWN[optimiser], None if device == "cuda" else True
    assert_as_on_the_cpu(device, Mixed(), lambda parameters: kind(parameters, foreach=False))
    told = rf"^{kind.__name__}\(foreach={by_itself}\) rounds otherwise .* expected foreach=False$"
    with pytest.raises(ValueError, match=told):
        computed(device, Mixed(), lambda parameters: kind(parameters, foreach=by_itself))


@pytest.mark.parametrize("strategy", REPLAYING)
def test_draws_of_the_device_are_replayed(strategy: str, device: str) -> None:
    """Dropout draws from the global stream of the device that it is on."""
    found = []
    for chosen in (Mixed(), REPLAYING[strategy]):
        model, outer = network(nn.ReLU(), nn.Dropout(0.5)).to(device), GaussianNoise(0.2).double().to(device)
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.manual_seed(3)
        inputs = StepInputs(PROBLEM, FunctionalModel(model), InnerUpdate(inner), outer, [on(device, batch(0))])
        result, _ = hypergradient(inputs, on(device, batch(99)), chosen)
        found.append((result, torch.rand(4, device=device)))
    (mixed, after), (other, its_after) = found
    expected, error = mixed.gradients["raw_sigma"].item(), other.diagnostics.get("error", 0.0)
    assert expected != 0
    assert other.gradients["raw_sigma"].item() == pytest.approx(expected, rel=WITHIN, abs=error)
    assert error < BY_DIFFERENCES * abs(expected)
    assert torch.equal(after, its_after)


class Location(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))


def test_scores_of_draws_that_are_made_on_the_device(device: str) -> None:
    """They are drawn anew for every trial, the same again from the same random state, and leave the stream alone."""

    def inner_loss(model: nn.Module, outer: Outer, given: Batch) -> Tensor:
        return PROBLEM.outer_loss(model, outer, given) * draw(Normal(outer.mean, 0.2))

    problem = BilevelProblem(inner_loss, PROBLEM.outer_loss)

    def once() -> tuple[Tensor, Tensor]:
        model, outer = segmenter().to(device), Location().to(device)
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        inputs = StepInputs(problem, FunctionalModel(model), InnerUpdate(inner), outer, [on(device, batch(0))])
        result, _ = hypergradient(inputs, on(device, batch(99)), ScoreFunction())
        return result.gradients["mean"], result.inner_losses[0]

    torch.manual_seed(3)
    first, loss = once()
    torch.manual_seed(3)
    again, its_loss = once()
    assert first.device.type == device
    assert first.item() == pytest.approx(again.item(), rel=1e-9)
    assert first.item() != 0
    assert loss.item() == pytest.approx(its_loss.item(), rel=1e-11)


def solver(device: str, strategy: HypergradientStrategy) -> BilevelSolver:
    model, outer = segmenter().to(device), Residual().to(device)
    inner, its_outer = torch.optim.Adam(model.parameters(), lr=3e-3), torch.optim.Adam(outer.parameters(), lr=1e-3)
    return BilevelSolver(PROBLEM, model, inner, outer, its_outer, strategy)


def take(chosen: BilevelSolver, device: str, first: int, stop: int) -> None:
    for step in range(first, stop):
        batches = [on(device, batch(step + k)) for k in range(chosen.strategy.inner_steps)]
        chosen.step(batches, on(device, batch(99)), reference_batch=on(device, batch(98)))


@pytest.mark.parametrize("strategy", each(without=("in_parts",)))
def test_a_solver_goes_on_from_its_checkpoint(strategy: str, configured: str, tmp_path: Path) -> None:
    """Bit for bit, by kernels that are deterministic."""
    whole = solver(configured, STRATEGIES[strategy])
    torch.manual_seed(0)
    take(whole, configured, 0, 2)
    save_checkpoint(tmp_path / "half.pt", whole.state_dict())
    torch.manual_seed(1)
    take(whole, configured, 2, 4)

    resumed = solver(configured, STRATEGIES[strategy])
    resumed.load_state_dict(load_checkpoint(tmp_path / "half.pt"))
    torch.manual_seed(1)
    take(resumed, configured, 2, 4)
    assert_identical(resumed.state_dict(), whole.state_dict())
    assert next(resumed.model.parameters()).device.type == configured
