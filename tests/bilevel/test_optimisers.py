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
from metasynth.bilevel.update.rules.adam import adam_update, adamax_update, adamw_update, nadam_update, radam_update
from metasynth.bilevel.update.rules.adaptive import adadelta_update, adagrad_update, rmsprop_update
from metasynth.bilevel.update.rules.arithmetic import sqrt_flat_at_zero
from metasynth.bilevel.update.rules.descent import asgd_update, rprop_update, sgd_update
from metasynth.bilevel.update.rules.matrix import adafactor_update, muon_update

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
    "adam-amsgrad": (adam_update, partial(torch.optim.Adam, lr=0.01, betas=(0.8, 0.7), amsgrad=True, maximize=True)),
    "adamw-amsgrad": (adamw_update, partial(torch.optim.AdamW, lr=0.01, betas=(0.8, 0.7), amsgrad=True)),
    "nadam": (nadam_update, partial(torch.optim.NAdam, lr=0.01, weight_decay=0.01)),
    "nadam-decoupled": (
        nadam_update,
        partial(
            torch.optim.NAdam, lr=0.01, momentum_decay=0.1, weight_decay=0.1, decoupled_weight_decay=True, maximize=True
        ),
    ),
    # Its mean is long enough to be rectified from the fourth step on.
    "radam": (radam_update, partial(torch.optim.RAdam, lr=0.01, betas=(0.9, 0.95), weight_decay=0.01)),
    "radam-decoupled": (
        radam_update,
        partial(torch.optim.RAdam, lr=0.01, weight_decay=0.1, decoupled_weight_decay=True, maximize=True),
    ),
    "adamax": (adamax_update, partial(torch.optim.Adamax, lr=0.01, weight_decay=0.01, maximize=True)),
    "adagrad": (adagrad_update, partial(torch.optim.Adagrad, lr=0.01, lr_decay=0.1)),
    "adagrad-decay": (
        adagrad_update,
        partial(torch.optim.Adagrad, weight_decay=0.01, initial_accumulator_value=0.1, maximize=True),
    ),
    "adadelta": (adadelta_update, partial(torch.optim.Adadelta, lr=0.5, rho=0.8, weight_decay=0.01, maximize=True)),
    "asgd": (asgd_update, partial(torch.optim.ASGD, lr=0.01, weight_decay=0.01)),
    "asgd-averaging": (asgd_update, partial(torch.optim.ASGD, lr=0.1, lambd=0.1, alpha=0.5, t0=2, maximize=True)),
    "adafactor": (adafactor_update, partial(torch.optim.Adafactor, lr=0.5, weight_decay=0.01)),
    "adafactor-limited": (
        adafactor_update,
        partial(torch.optim.Adafactor, lr=0.05, beta2_decay=-0.5, eps=(1e-4, 1e-2), d=1.1, maximize=True),
    ),
    "muon": (muon_update, partial(torch.optim.Muon, lr=0.01)),
    "muon-plain": (
        muon_update,
        partial(torch.optim.Muon, lr=0.01, weight_decay=0.0, nesterov=False, adjust_lr_fn="match_rms_adamw"),
    ),
    "rprop": (rprop_update, partial(torch.optim.Rprop, lr=0.01, etas=(0.4, 1.3), step_sizes=(0.005, 0.02))),
    "rmsprop": (rmsprop_update, partial(torch.optim.RMSprop, lr=0.01, alpha=0.9)),
    "rmsprop-decay": (rmsprop_update, partial(torch.optim.RMSprop, lr=0.01, weight_decay=0.01, centered=True)),
    "rmsprop-momentum": (
        rmsprop_update,
        partial(torch.optim.RMSprop, lr=0.01, alpha=0.8, eps=1e-4, momentum=0.9, centered=True),
    ),
}


def without_foreach(variant: str) -> dict[str, bool]:
    """Muon is never taken on all parameters at once, and has no such option."""
    return {} if variant.startswith("muon") else {"foreach": False}


SHAPES = {"vector": (50,), "tall": (10, 5), "wide": (5, 10), "number": (), "kernel": (3, 2, 5)}


@pytest.mark.parametrize("tensors", [False, True], ids=["numbers", "tensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("variant", "shape"),  # Muon takes matrices alone
    [(v, s) for v in VARIANTS for s in SHAPES if not v.startswith("muon") or s in ("tall", "wide")],
)
def test_update_rules_round_as_torch_does(variant: str, shape: str, dtype: torch.dtype, tensors: bool) -> None:
    """Also with tensors that are to be differentiated for learning rate and weight decay."""
    rule, make = VARIANTS[variant]
    generator = torch.Generator().manual_seed(0)
    native = nn.Parameter(torch.randn(SHAPES[shape], dtype=dtype, generator=generator))
    optimiser = make([native], **without_foreach(variant))
    parameter, state = native.detach().clone(), {}
    for step in range(20):
        gradient = torch.randn(SHAPES[shape], dtype=dtype, generator=generator) * 10.0 ** (-step % 7)
        if gradient.dim():
            gradient.view(-1)[:5] = 0
        native.grad = gradient
        optimiser.step()
        options = dict(optimiser.param_groups[0])
        if tensors:
            for name in {"lr", "weight_decay"} & options.keys():
                options[name] = torch.tensor(options[name], dtype=torch.float64, requires_grad=True)
        parameter, state = rule(parameter, gradient, state, options)
        assert parameter.requires_grad == tensors
        assert torch.equal(parameter, native)
        assert list(state) == list(optimiser.state[native])
        assert all(torch.equal(state[key], value) for key, value in optimiser.state[native].items())
        assert all(state[key].dtype == value.dtype for key, value in optimiser.state[native].items())


@pytest.mark.parametrize("variant", VARIANTS)
def test_rules_go_on_from_a_state_that_torch_has_loaded(variant: str) -> None:
    """It gives single numbers of a state the parameter's type."""
    rule, make = VARIANTS[variant]
    generator = torch.Generator().manual_seed(0)
    native = nn.Parameter(torch.randn(5, 3, dtype=torch.float64, generator=generator))
    optimiser = make([native])
    for _ in range(6):
        native.grad = torch.randn(5, 3, dtype=torch.float64, generator=generator)
        before, state = native.detach().clone(), copy.deepcopy(dict(optimiser.state[native]))
        parameter, state = rule(before, native.grad.clone(), state, optimiser.param_groups[0])
        optimiser.step()
        assert torch.equal(parameter, native)
        assert all(torch.equal(state[key], value) for key, value in optimiser.state[native].items())
        assert all(state[key].dtype == value.dtype for key, value in optimiser.state[native].items())
        optimiser.load_state_dict(copy.deepcopy(optimiser.state_dict()))


@pytest.mark.usefixtures("_scalars_in_double_precision")
@pytest.mark.parametrize("variant", [name for name in VARIANTS if not name.startswith("muon")])
def test_rules_are_differentiable_in_rate_and_decay(variant: str) -> None:
    """Also in a weight decay of zero, at the third of three steps that share them. Muon's values are in bfloat16."""
    rule, make = VARIANTS[variant]
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, 3, dtype=torch.float64, generator=generator)
    gradients = torch.randn(3, 2, 3, dtype=torch.float64, generator=generator)
    options = dict(make([nn.Parameter(start)]).param_groups[0])
    names = [name for name in ("lr", "weight_decay") if name in options]
    rates = [torch.tensor(options[name], dtype=torch.float64, requires_grad=True) for name in names]

    def moved(*rates: Tensor) -> Tensor:
        parameter, state = start, {}
        for gradient in gradients:
            parameter, state = rule(parameter, gradient, state, {**options, **dict(zip(names, rates, strict=True))})
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
    "Adam.capturable=True": lambda p: torch.optim.Adam([p], capturable=True),
    "AdamW.differentiable=True": lambda p: torch.optim.AdamW([p], differentiable=True),
    "Adagrad.fused=True": lambda p: torch.optim.Adagrad([p], fused=True),
    r"NAdam\(foreach=True\) rounds otherwise .* expected foreach=False": lambda p: torch.optim.NAdam([p], foreach=True),
    "RAdam.foreach=True": lambda p: torch.optim.RAdam([p], foreach=True),
    "ASGD.foreach=True": lambda p: torch.optim.ASGD([p], foreach=True),
    "Adafactor.foreach=True": lambda p: torch.optim.Adafactor([p], foreach=True),
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("variant", [name for name in VARIANTS if not name.startswith("muon")])  # it has no foreach
def test_foreach_is_taken_where_it_rounds_as_the_rule_does(variant: str, dtype: torch.dtype) -> None:
    rule, make = VARIANTS[variant]
    generator = torch.Generator().manual_seed(0)
    native = [nn.Parameter(torch.randn(n, 13, dtype=dtype, generator=generator)) for n in (5, 67)]
    optimiser = make(native, foreach=True)
    if isinstance(optimiser, torch.optim.NAdam | torch.optim.RAdam | torch.optim.ASGD | torch.optim.Adafactor):
        with pytest.raises(ValueError, match="foreach=True"):
            differentiable(optimiser, native)
        return
    differentiable(optimiser, native)
    moved = [(p.detach().clone(), {}) for p in native]
    for step in range(12):
        gradients = [torch.randn(p.shape, dtype=dtype, generator=generator) * 10.0 ** (-step % 5) for p in native]
        for parameter, gradient in zip(native, gradients, strict=True):
            parameter.grad = gradient.clone()  # which torch changes
        optimiser.step()
        options = optimiser.param_groups[0]
        moved = [rule(p, g, state, options) for (p, state), g in zip(moved, gradients, strict=True)]
        assert all(torch.equal(found, wanted) for (found, _), wanted in zip(moved, native, strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_twins_start_from_a_copy_of_the_state(variant: str) -> None:
    parameter = nn.Parameter(torch.ones(3, 1))
    optimiser = VARIANTS[variant][1]([parameter])
    parameter.grad = torch.ones(3, 1)
    optimiser.step()
    before = copy.deepcopy(optimiser.state_dict())
    twin = differentiable(optimiser, [parameter])
    leaf = torch.ones(3, 1, requires_grad=True)
    (updated,) = twin.step(leaf.square().sum(), params=[leaf])
    assert str(optimiser.state_dict()) == str(before)
    assert updated.requires_grad
    commit_state(optimiser, twin)
    assert all(not value.requires_grad for value in optimiser.state[parameter].values())


@pytest.mark.parametrize("make", [variant[1] for variant in VARIANTS.values()], ids=VARIANTS)
def test_highers_own_loop_uses_the_twins(make: Callable[..., torch.optim.Optimizer]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Tanh(), nn.Linear(5, 1, bias=False)).double()
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
