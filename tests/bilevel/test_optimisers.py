"""The differentiable twins: bit for bit `torch.optim`, open to other optimisers, used by `higher` as well."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import higher
import pytest
import torch
from higher.optim import DifferentiableOptimizer
from support.problems import ClosedForm
from support.strategies import EXACT
from torch import Tensor, nn

from metasynth.bilevel.hypergradient import hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.update.inner_update import InnerUpdate
from metasynth.bilevel.update.optimizers import commit_state, differentiable
from metasynth.bilevel.update.rules import adam_update, adamw_update, rmsprop_update, sgd_update, sqrt_flat_at_zero

VARIANTS = {
    "sgd": (sgd_update, partial(torch.optim.SGD, lr=0.1, weight_decay=0.01)),
    "momentum": (sgd_update, partial(torch.optim.SGD, lr=0.1, momentum=0.9, dampening=0.1)),
    "nesterov": (sgd_update, partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True)),
    "adam": (adam_update, partial(torch.optim.Adam, lr=0.01, weight_decay=0.01)),
    "adam-decoupled": (
        adam_update,
        partial(torch.optim.Adam, lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
    ),
    "adamw": (adamw_update, partial(torch.optim.AdamW, lr=0.01, betas=(0.7, 0.9), eps=1e-6)),
    "rmsprop": (rmsprop_update, partial(torch.optim.RMSprop, lr=0.01, alpha=0.9)),
    "rmsprop-decay": (rmsprop_update, partial(torch.optim.RMSprop, lr=0.01, weight_decay=0.01, centered=True)),
    "rmsprop-momentum": (
        rmsprop_update,
        partial(torch.optim.RMSprop, lr=0.01, alpha=0.8, eps=1e-4, momentum=0.9, centered=True),
    ),
}


@pytest.mark.parametrize("tensors", [False, True], ids=["numbers", "tensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("variant", VARIANTS)
def test_update_rules_round_as_torch_does(variant: str, dtype: torch.dtype, tensors: bool) -> None:
    """Also with tensors that are to be differentiated for learning rate and weight decay."""
    rule, make = VARIANTS[variant]
    generator = torch.Generator().manual_seed(0)
    native = nn.Parameter(torch.randn(50, dtype=dtype, generator=generator))
    optimiser = make([native], foreach=False)
    parameter, state = native.detach().clone(), {}
    for step in range(20):
        gradient = torch.randn(50, dtype=dtype, generator=generator) * 10.0 ** (-step % 7)
        gradient[:5] = 0
        native.grad = gradient
        optimiser.step()
        options = dict(optimiser.param_groups[0])
        if tensors:
            for name in ("lr", "weight_decay"):
                options[name] = torch.tensor(options[name], dtype=torch.float64, requires_grad=True)
        parameter, state = rule(parameter, gradient, state, options)
        assert parameter.requires_grad == tensors
        assert torch.equal(parameter, native)
        assert list(state) == list(optimiser.state[native])
        assert all(torch.equal(state[key], value) for key, value in optimiser.state[native].items())


@pytest.mark.parametrize("variant", VARIANTS)
def test_rules_are_differentiable_in_rate_and_decay(variant: str) -> None:
    """Also in a weight decay of zero, at the third of three steps that share them."""
    rule, make = VARIANTS[variant]
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(6, dtype=torch.float64, generator=generator)
    gradients = torch.randn(3, 6, dtype=torch.float64, generator=generator)
    options = dict(make([nn.Parameter(start)]).param_groups[0])
    rates = [torch.tensor(options[name], dtype=torch.float64, requires_grad=True) for name in ("lr", "weight_decay")]

    def moved(lr: Tensor, weight_decay: Tensor) -> Tensor:
        parameter, state = start, {}
        for gradient in gradients:
            parameter, state = rule(parameter, gradient, state, {**options, "lr": lr, "weight_decay": weight_decay})
        return parameter

    assert torch.autograd.gradcheck(moved, rates)


def test_a_variance_below_zero_by_rounding_counts_as_zero() -> None:
    """Where `torch.optim.RMSprop` takes a square root of it."""
    options = dict(torch.optim.RMSprop([nn.Parameter(torch.zeros(2))], centered=True, eps=0.5).param_groups[0])
    mean = torch.tensor([1.0, 0.0], dtype=torch.float64)
    state = {"step": torch.tensor(9.0), "square_avg": mean * (1 - 1e-15), "grad_avg": mean}
    gradient = mean.clone().requires_grad_()
    updated, left = rmsprop_update(torch.zeros(2, dtype=torch.float64), gradient, state, options)
    assert left["square_avg"][0] < left["grad_avg"][0] ** 2
    assert updated.tolist() == [-0.01 / 0.5, 0.0]
    (slope,) = torch.autograd.grad(updated.sum(), gradient)
    assert slope.tolist() == [-0.01 / 0.5, -0.01 / 0.5]
    assert torch.equal(sqrt_flat_at_zero(torch.tensor([-1.0, 0.0, 4.0])), torch.tensor([0.0, 0.0, 2.0]))


REFUSED = {
    "Adam.amsgrad=True": lambda p: torch.optim.Adam([p], amsgrad=True),
    "AdamW.maximize=True": lambda p: torch.optim.AdamW([p], maximize=True),
    "RMSprop.maximize=True": lambda p: torch.optim.RMSprop([p], maximize=True),
    "RMSprop.capturable=True": lambda p: torch.optim.RMSprop([p], capturable=True),
    "RMSprop.differentiable=True": lambda p: torch.optim.RMSprop([p], differentiable=True),
    "SGD.fused=True": lambda p: torch.optim.SGD([p], fused=True),
    r"RMSprop\(lr=...\) must be a number": lambda p: torch.optim.RMSprop([p], lr=torch.tensor(0.1)),
    r"Adam\(betas=...\) must be two numbers": lambda p: torch.optim.Adam(
        [p], betas=(torch.tensor(0.9), torch.tensor(0.999)), foreach=False
    ),
    "SGD has step hooks": lambda p: _with_hook(torch.optim.SGD([p])),
    "SGD holds a complex parameter": lambda p: torch.optim.SGD([p.data.to(torch.complex64).requires_grad_()]),
}


def _with_hook(optimiser: torch.optim.Optimizer) -> torch.optim.Optimizer:
    optimiser.register_step_post_hook(lambda *_: None)
    return optimiser


@pytest.mark.parametrize("message", REFUSED)
def test_what_a_twin_would_not_honour_is_refused(message: str) -> None:
    optimiser = REFUSED[message](nn.Parameter(torch.ones(2)))
    with pytest.raises(ValueError, match=message) as caught:
        differentiable(optimiser, optimiser.param_groups[0]["params"])
    assert "\n" not in str(caught.value)


def test_foreach_is_fine() -> None:
    optimiser = torch.optim.RMSprop([nn.Parameter(torch.ones(2))], foreach=True)
    differentiable(optimiser, optimiser.param_groups[0]["params"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_twins_start_from_a_copy_of_the_state(variant: str) -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimiser = VARIANTS[variant][1]([parameter])
    parameter.grad = torch.ones(3)
    optimiser.step()
    before = copy.deepcopy(optimiser.state_dict())
    twin = differentiable(optimiser, [parameter])
    leaf = torch.ones(3, requires_grad=True)
    (updated,) = twin.step(leaf.square().sum(), params=[leaf])
    assert str(optimiser.state_dict()) == str(before)
    assert updated.requires_grad
    commit_state(optimiser, twin)
    assert all(not value.requires_grad for value in optimiser.state[parameter].values())


@pytest.mark.parametrize("make", [variant[1] for variant in VARIANTS.values()], ids=VARIANTS)
def test_highers_own_loop_uses_the_twins(make: Callable[..., torch.optim.Optimizer]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    other = copy.deepcopy(model)
    optimiser, native = make(model.parameters()), make(other.parameters())
    batches = torch.randn(10, 6, 4, dtype=torch.float64)
    with higher.innerloop_ctx(model, optimiser) as (patched, twin):
        for given in batches:
            twin.step(patched(given).square().mean())
        found = list(patched.parameters())
    for given in batches:
        native.zero_grad()
        other(given).square().mean().backward()
        native.step()
    for a, b in zip(found, other.parameters(), strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=0, atol=1e-14)


class Signum(torch.optim.Optimizer):
    """A user's optimiser: φ <- φ - lr tanh(sharpness * running mean of g), counting its steps as a plain integer."""

    def __init__(self, parameters: Any, lr: float = 0.1, sharpness: float = 2.0) -> None:
        super().__init__(parameters, {"lr": lr, "sharpness": sharpness})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for options in self.param_groups:
            for parameter in options["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    mean = 0.5 * state.get("mean", torch.zeros_like(parameter)) + 0.5 * parameter.grad
                    state["mean"], state["taken"] = mean, state.get("taken", 0) + 1
                    parameter.sub_(options["lr"] * torch.tanh(options["sharpness"] * mean))


class DifferentiableSignum(DifferentiableOptimizer):
    def _update(self, grouped_grads: list[list[Tensor | None]], **_: Any) -> None:
        for index, (options, grads) in enumerate(zip(self.param_groups, grouped_grads, strict=True)):
            for position, (parameter, grad) in enumerate(zip(options["params"], grads, strict=True)):
                if grad is not None:
                    state = self.state[index][position]
                    mean = 0.5 * state.get("mean", torch.zeros_like(parameter)) + 0.5 * grad
                    state["mean"], state["taken"] = mean, state.get("taken", 0) + 1
                    moved = options["lr"] * torch.tanh(options["sharpness"] * mean)
                    options["params"][position] = parameter - moved


@pytest.mark.parametrize("strategy", [name for name in EXACT if name != "in_parts"])  # batches of no samples
def test_a_registered_optimiser_works_everywhere(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(higher.optim._opt_mapping, Signum, DifferentiableSignum)
    case, chosen = ClosedForm(), EXACT[strategy]
    model, outer = case.model(), case.outer()
    optimiser = Signum(model.parameters())
    solver = BilevelSolver(case.problem(), model, optimiser, outer, torch.optim.SGD(outer.values(), lr=0.0), chosen)
    other, native = case.model(), None
    native = Signum(other.parameters())

    def native_steps(net: nn.Module, held: Signum, theta: dict[str, Tensor], batches: list[Tensor]) -> None:
        for given in batches:
            held.zero_grad()
            case.problem().inner_loss(net, theta, given).backward()
            held.step()

    for call in range(3):
        batches = [case.inner_batch(10 * call + k) for k in range(chosen.inner_steps)]
        solver.step(batches, case.outer_batch(call))
        native_steps(other, native, outer, batches)
    assert torch.allclose(model(), other(), rtol=0, atol=1e-14)
    assert optimiser.state[model.head]["taken"] == native.state[other.head]["taken"] == solver.inner_steps

    def after(by: float) -> float:
        theta = {"shift": outer["shift"].detach() + by, "stiffness": outer["stiffness"].detach()}
        net, held = copy.deepcopy((model, optimiser))
        native_steps(net, held, theta, batches)
        return case.problem().outer_loss(net, theta, case.outer_batch()).item()

    wide, narrow = ((after(s) - after(-s)) / (2 * s) for s in (1e-3, 5e-4))
    result, _ = hypergradient(
        StepInputs(case.problem(), FunctionalModel(model), InnerUpdate(optimiser), outer, batches),
        case.outer_batch(),
        chosen,
    )
    assert result.gradients["shift"].sum().item() == pytest.approx((4 * narrow - wide) / 3, rel=1e-8)


def test_shared_buffer_is_committed() -> None:
    """Two modules that register one buffer tensor."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 1)
            scale = torch.tensor([1.0, 2.0])
            self.a.register_buffer("scale", scale)
            self.b.register_buffer("scale", scale)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x * self.a.scale) * self.b.scale)

    model, outer = Shared(), torch.tensor(0.5, requires_grad=True)
    problem = BilevelProblem(lambda m, o, b: m(o * b).square().mean(), lambda m, o, b: m(b).square().mean())
    solver = BilevelSolver(
        problem, model, torch.optim.Adam(model.parameters()), outer, torch.optim.SGD([outer], lr=0.1)
    )
    solver.step([torch.ones(3, 2)], torch.ones(3, 2))
    assert model.a.scale is model.b.scale
    assert model.a.scale.tolist() == [1.0, 2.0]
