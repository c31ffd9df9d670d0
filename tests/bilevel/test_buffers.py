"""What inner and outer passes do with running statistics, for each policy: by hand, and against native steps."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from support.strategies import BIASED, each
from torch import Tensor, nn

from metasynth.bilevel.checks.preflight import preflight
from metasynth.bilevel.hypergradient import hypergradient
from metasynth.bilevel.patched.buffers import BufferPolicy
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.finite_difference import FiniteDifference
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.strategies.parts import InParts
from metasynth.bilevel.update.inner_update import InnerUpdate

N = 7
POLICIES: tuple[BufferPolicy, ...] = ("commit", "freeze", "batch")
STRATEGIES = each(without=("in_parts",))  # batch statistics
ADAM = partial(torch.optim.Adam, lr=1e-2)


class Counting(nn.Module):
    """A layer with statistics of its own kind: it scales by a running size, which training moves."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("size", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.size.mul_(0.9).add_(0.1 * x.detach().abs().mean())
        return x / self.size


def network(other: type[nn.Module] = Counting) -> nn.Sequential:
    """Smooth, and with every kind of layer with statistics; one normalisation is used twice."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shared = nn.BatchNorm2d(3, momentum=0.3)
        model = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1),
            shared,
            nn.Tanh(),
            nn.Conv2d(3, 3, 3, padding=1),
            shared,
            nn.Tanh(),
            nn.InstanceNorm2d(3, affine=True, track_running_stats=True),
            nn.InstanceNorm2d(3),
            other(),
            nn.Conv2d(3, 1, 1),
        ).double()
        with torch.no_grad():
            for _ in range(3):  # running statistics unlike those of any batch
                model(2 + 3 * torch.randn(4, 1, 5, 5, dtype=torch.float64))
    return model


NORMALISATIONS = (1, 4, 6)
"""The positions of those with running statistics."""


def batch(index: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(index)
    images, draws = torch.randn(2, 3, 1, 5, 5, dtype=torch.float64, generator=generator)
    return images, draws


def loss(model: nn.Module, images: Tensor) -> Tensor:
    return (model(images) - images.sin()).square().mean()


def inner_loss(model: nn.Module, outer: Tensor, given: tuple[Tensor, Tensor]) -> Tensor:
    return loss(model, given[0] + outer * given[1])


def outer_loss(model: nn.Module, outer: Tensor, given: tuple[Tensor, Tensor]) -> Tensor:
    return loss(model, given[0])


PROBLEM = BilevelProblem(inner_loss, outer_loss)


def sigma() -> Tensor:
    return torch.tensor(0.3, dtype=torch.float64, requires_grad=True)


def as_policy_says(model: nn.Module, policy: str) -> nn.Module:
    """A copy of the model, in the modes in which the policy would have it."""
    model = copy.deepcopy(model)
    if policy == "freeze":
        for position in NORMALISATIONS:
            model[position].eval()
    return model


def native_step(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    theta: Tensor,
    index: int,
    policy: str,
    objective: Any = inner_loss,
) -> None:
    """As a user would write it; ``model`` is in the policy's modes."""
    kept = {name: value.clone() for name, value in model.named_buffers()}
    optimiser.zero_grad()
    objective(model, theta.detach(), batch(index)).backward()
    optimiser.step()
    if policy != "commit":
        for name, value in model.named_buffers():
            value.copy_(kept[name])


def steps_of(solver: BilevelSolver, n: int, plain: Callable[[int], bool]) -> None:
    """n inner steps on the batches 0, 1, ...; ``plain`` tells of each call whether it is a plain step."""
    call = 0
    while solver.inner_steps < n:
        done = solver.inner_steps
        if plain(call) or n - done < solver.strategy.inner_steps:
            solver.inner_step(batch(done))
        else:
            inner = [batch(done + k) for k in range(solver.strategy.inner_steps)]
            solver.step(inner, batch(500 + done), batch(700 + done))
        call += 1


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("strategy", [*STRATEGIES, "plain", "mixed and plain"])
def test_steps_are_native_steps(strategy: str, policy: BufferPolicy) -> None:
    model = network()
    native = as_policy_says(model, policy)
    other = ADAM(native.parameters())
    for index in range(N):
        native_step(native, other, sigma(), index, policy)

    before = {name: value.clone() for name, value in model.named_buffers()}
    theta, inner = sigma(), ADAM(model.parameters())
    frozen = torch.optim.SGD([theta], lr=0.0)
    chosen = STRATEGIES.get(strategy, Mixed())
    solver = BilevelSolver(PROBLEM, model, inner, theta, frozen, chosen, buffers=policy)
    steps_of(
        solver, N, {"plain": lambda _: True, "mixed and plain": lambda k: k % 2 == 1}.get(strategy, lambda _: False)
    )
    for (name, found), wanted in zip(model.state_dict().items(), native.state_dict().values(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12, msg=name)
    for held, kept in zip(inner.state_dict()["state"].values(), other.state_dict()["state"].values(), strict=True):
        for key, value in kept.items():
            torch.testing.assert_close(held[key], value, rtol=0, atol=1e-12)
    moved = {name for name, value in model.named_buffers() if not torch.equal(value, before[name])}
    assert moved == (before.keys() - {"6.num_batches_tracked"} if policy == "commit" else set())
    assert all(module.training for module in model.modules())


def test_policies_differ() -> None:
    ends = []
    for policy in POLICIES:
        model, theta = network(), sigma()
        inner = ADAM(model.parameters())
        solver = BilevelSolver(PROBLEM, model, inner, theta, torch.optim.SGD([theta], lr=0.0), buffers=policy)
        steps_of(solver, 3, lambda _: False)
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert not torch.allclose(ends[0], ends[1], rtol=1e-4)
    assert not torch.allclose(ends[0], ends[2], rtol=1e-6)  # by the layer that divides by its running size


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name not in BIASED])
def test_hypergradient(strategy: str, policy: BufferPolicy) -> None:
    """Central differences of native steps, then of the outer loss of a model in the same modes."""
    chosen, model, theta = STRATEGIES[strategy], network(nn.Identity), sigma()
    inner = torch.optim.SGD(model.parameters(), lr=0.3)

    def after(shift: float) -> float:
        native = as_policy_says(model, policy)
        optimiser = torch.optim.SGD(native.parameters(), lr=0.3)
        for index in range(chosen.inner_steps):
            native_step(native, optimiser, theta.detach() + shift, index, policy)
        return outer_loss(native, theta, batch(90)).item()

    wide, narrow = ((after(s) - after(-s)) / (2 * s) for s in (1e-3, 5e-4))
    truth = (4 * narrow - wide) / 3
    batches = [batch(k) for k in range(chosen.inner_steps)]
    functional = FunctionalModel(model, policy)
    result, _ = hypergradient(StepInputs(PROBLEM, functional, InnerUpdate(inner), theta, batches), batch(90), chosen)
    tolerance = 1e-5 if strategy == "finite_difference" else 1e-7
    assert result.gradients["outer"].item() == pytest.approx(truth, rel=tolerance)
    assert result.outer_loss.item() == pytest.approx(after(0.0), rel=1e-12)


@pytest.mark.parametrize("policy", POLICIES)
def test_which_statistics_the_outer_pass_uses(policy: BufferPolicy) -> None:
    """Those of its own batch unless frozen; and it moves nothing."""
    ends = []
    for scale in (1.0, 5.0):
        model, theta = network(), sigma()
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        solver = BilevelSolver(PROBLEM, model, inner, theta, torch.optim.SGD([theta], lr=0.0), buffers=policy)
        images, draws = batch(50)
        report = solver.step([batch(0)], (scale * images + scale, draws), batch(60))
        ends.append(copy.deepcopy(model.state_dict()))
        with torch.no_grad():
            expected = loss(as_policy_says(model, policy), scale * images + scale).item()
            in_other_modes = loss(
                as_policy_says(model, "batch" if policy == "freeze" else "freeze"), scale * images + scale
            )
        assert report.outer_loss == pytest.approx(expected, rel=1e-12)
        assert report.outer_loss != pytest.approx(in_other_modes.item(), rel=1e-3)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("strategy", ["mixed", "unrolled-3", "finite_difference"])
def test_losses_that_change_modes(strategy: str, policy: BufferPolicy) -> None:
    """Running statistics asked for by ``eval()``: those of the inner passes so far, or those that never change."""

    def settled(model: nn.Module, outer: Tensor, given: tuple[Tensor, Tensor]) -> Tensor:
        first = inner_loss(model, outer, given)
        modes = [module.training for module in model.modules()]
        model.eval()
        second = inner_loss(model, outer, given)
        model.train()
        assert policy == "freeze" or [module.training for module in model.modules()] == modes
        return first + second

    problem, model, theta = BilevelProblem(settled, settled), network(), sigma()
    native = as_policy_says(model, policy)
    other = torch.optim.SGD(native.parameters(), lr=0.1)

    def in_modes(net: nn.Module, outer: Tensor, given: tuple[Tensor, Tensor]) -> Tensor:
        evaluating = copy.deepcopy(net).eval()
        first = inner_loss(net, outer, given)
        for own, copied in zip(net.parameters(), evaluating.parameters(), strict=True):
            copied.data = own.data
        evaluating.load_state_dict(net.state_dict())
        second = torch.func.functional_call(evaluating, dict(net.named_parameters()), (given[0] + outer * given[1],))
        return first + (second - (given[0] + outer * given[1]).sin()).square().mean()

    for index in range(6):
        native_step(native, other, theta, index, policy, in_modes)
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    chosen = STRATEGIES[strategy]
    solver = BilevelSolver(problem, model, inner, theta, torch.optim.SGD([theta], lr=0.0), chosen, buffers=policy)
    steps_of(solver, 6, lambda call: call == 1)
    for (name, found), wanted in zip(model.state_dict().items(), native.state_dict().values(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12, msg=name)
    assert all(module.training for module in model.modules())


def test_a_mode_asked_for_in_a_plain_step_is_taken() -> None:
    for policy in POLICIES:
        model, theta = network(), sigma()

        def leaving_it(net: nn.Module, outer: Tensor, given: tuple[Tensor, Tensor]) -> Tensor:
            return inner_loss(net.eval(), outer, given)

        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        problem = BilevelProblem(leaving_it, outer_loss)
        solver = BilevelSolver(problem, model, inner, theta, torch.optim.SGD([theta], lr=0.0), buffers=policy)
        solver.inner_step(batch(0))
        assert not any(module.training for module in model.modules())
        assert all("train" not in module.__dict__ for module in model.modules())
        model.train()
        assert all(module.training for module in model.modules())


def test_frozen_statistics_leave_dropout_in_training() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Conv2d(3, 1, 1)
    ).double()
    for strategy in (Mixed(), FiniteDifference()):
        theta, inner = sigma(), torch.optim.SGD(model.parameters(), lr=0.0)
        solver = BilevelSolver(
            PROBLEM, model, inner, theta, torch.optim.SGD([theta], lr=0.0), strategy, buffers="freeze"
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found = {solver.step([batch(0)], batch(1)).inner_loss for _ in range(3)}
            plain = {solver.inner_step(batch(0)).inner_loss for _ in range(3)}
        assert len(found) == len(plain) == 3


def test_modes_reach_every_use_of_a_shared_layer() -> None:
    """The twin has one module for each use; after eval() all of them evaluate."""
    model = network()
    functional = FunctionalModel(model)
    model.eval()
    with torch.no_grad():
        found = functional.bind(functional.refresh())(batch(0)[0])
        torch.testing.assert_close(found, model(batch(0)[0]), rtol=0, atol=0)


def test_frozen_statistics_do_not_couple_samples() -> None:
    """So the second-order part may be taken on parts of the batch, which batch statistics forbid."""
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Tanh(), nn.Conv2d(3, 1, 1)).double()
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    call = partial(preflight, PROBLEM, model, inner, sigma(), batch(0), batch(1), InParts(chunk=1))
    call(buffers="freeze")
    for policy in ("commit", "batch"):
        with pytest.raises(ValueError, match="InParts needs an inner_loss that is the mean over the samples"):
            call(buffers=policy)
    theta = sigma()
    outer_optimizer = torch.optim.SGD([theta], lr=0.1)
    solver = BilevelSolver(PROBLEM, model, inner, theta, outer_optimizer, InParts(chunk=1), buffers="freeze")
    assert solver.step([batch(0)], batch(1)).outer_stepped


@pytest.mark.parametrize("policy", POLICIES)
def test_preflight_accepts_every_policy_and_changes_nothing(policy: BufferPolicy) -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    preflight(PROBLEM, model, inner, sigma(), batch(0), batch(1), Mixed(), policy)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_no_such_policy() -> None:
    model = network()
    with pytest.raises(ValueError, match="buffers must be one of commit, freeze, batch, got 'keep'"):
        FunctionalModel(model, "keep")  # type: ignore[arg-type]
