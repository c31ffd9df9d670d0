"""What is done around the inner optimiser's step: rates that are learned, and clipping."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pytest
import torch
from support.problems import ClosedForm
from support.strategies import EXACT
from torch import Tensor, nn

from metasynth.bilevel.checks.preflight import preflight
from metasynth.bilevel.hypergradient import hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.processes.processes import Processes
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.implicit import Implicit
from metasynth.bilevel.strategies.unrolled import Unrolled
from metasynth.bilevel.update.inner_update import InnerUpdate, clipped

CASE = ClosedForm()


class Pair(nn.Module):
    """φ of two parameters, in groups of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
        self.far = nn.Parameter(torch.tensor([-3.0], dtype=torch.float64))


BOWL = BilevelProblem(
    lambda model, outer, given: 0.5 * model.near.square().sum() + model.far.square().sum(),
    lambda model, outer, given: 0.5 * (model.near.square().sum() + model.far.square().sum()),
)
"""The inner gradient is φ for one and 2 φ for the other; θ is in neither loss."""


def groups(model: Pair, lr: float = 0.1, decay: float = 0.0) -> torch.optim.SGD:
    near, far = {"params": [model.near], "role": "near"}, {"params": [model.far], "role": "far", "lr": 2 * lr}
    return torch.optim.SGD([near, far], lr=lr, weight_decay=decay)


def theta(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("strategy", ["mixed", "forward", "unrolled"])
def test_what_enters_the_update_alone_has_its_direct_part(strategy: str) -> None:
    """φ* = φ - a φ for one, φ - b (2 φ + c φ) for the other: h_a = -φ·φ*, and so on."""

    def rates(outer: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        if group["role"] == "near":
            return {"lr": outer[0]}
        return {"lr": outer[1], "weight_decay": outer[2]}

    model, outer = Pair(), theta(0.2, 0.3, 0.0)
    update = InnerUpdate(groups(model), hyperparameters=rates)
    preflight(BOWL, model, update, outer, None, None)
    chosen = EXACT[strategy]
    result, step = hypergradient(StepInputs(BOWL, FunctionalModel(model), update, outer, [None]), None, chosen)
    near, far = model.near.detach() * 0.8, model.far.detach() * 0.4
    assert torch.allclose(step.parameters[0], near, rtol=1e-15)
    assert torch.allclose(step.parameters[1], far, rtol=1e-14)
    expected = [-(model.near @ near), -2 * model.far @ far, -0.3 * model.far @ far]
    assert result.gradients["outer"].tolist() == pytest.approx([e.item() for e in expected], rel=1e-13)


def test_over_steps_it_is_the_derivative_of_a_power() -> None:
    """K steps leave (1 - θ)^K φ; of truncated ones only the last are followed."""
    for strategy, followed in ((Unrolled(4), 4), (Unrolled(4, last=1), 1), (Unrolled(4, last=3), 3)):
        model, outer = Pair(), theta(0.2)
        update = InnerUpdate(
            torch.optim.SGD([model.near], lr=1.0), hyperparameters=lambda outer, group: {"lr": outer.sum()}
        )
        result, _ = hypergradient(StepInputs(BOWL, FunctionalModel(model), update, outer, [None] * 4), None, strategy)
        expected = -followed * 0.8**7 * model.near.detach().square().sum().item()
        assert result.gradients["outer"].item() == pytest.approx(expected, rel=1e-13)


def test_a_rate_is_learned() -> None:
    """One step on a curvature of 4 from anywhere ends at the optimum for a rate of 1/4."""
    problem = BilevelProblem(
        lambda model, outer, given: 2 * (model.near - given).square().sum(),
        lambda model, outer, given: (model.near - given).square().sum(),
    )
    model, outer = Pair(), {"log_factor": theta(0.0)}
    update = InnerUpdate(
        torch.optim.SGD([model.near], lr=0.1),
        hyperparameters=lambda outer, group: {"lr": group["lr"] * outer["log_factor"].sum().exp()},
    )
    solver = BilevelSolver(problem, model, update, outer, torch.optim.Adam(outer.values(), lr=0.05))
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        given = torch.randn(2, dtype=torch.float64, generator=generator)
        solver.step([given], given)
    assert 0.1 * outer["log_factor"].exp().item() == pytest.approx(0.25, rel=1e-3)
    assert update.optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("call", ["step", "inner_step"])
def test_groups_are_shown_as_schedulers_left_them(call: str) -> None:
    seen: list[Mapping[str, Any]] = []

    def rates(outer: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        seen.append(group)
        return {"lr": 0.5 * group["lr"] * outer.sum()}

    model, outer = Pair(), theta(1.0)
    update = InnerUpdate(groups(model, decay=0.01), hyperparameters=rates)
    solver = BilevelSolver(BOWL, model, update, outer, torch.optim.SGD([outer], lr=0.0), Unrolled(2), check=False)
    scheduler = torch.optim.lr_scheduler.StepLR(update.optimizer, step_size=1, gamma=0.1)
    for _ in range(2):
        solver.step([None, None], None) if call == "step" else solver.inner_step(None)
        scheduler.step()
    times = 2 if call == "step" else 1
    expected = [0.1, 0.2] * times + [0.01, 0.02] * times
    assert [group["lr"] for group in seen] == pytest.approx(expected)
    assert [group["role"] for group in seen] == ["near", "far"] * 2 * times
    assert all(group["weight_decay"] == 0.01 and "params" not in group for group in seen)
    assert all(isinstance(group, MappingProxyType) for group in seen)
    assert [group["lr"] for group in update.optimizer.param_groups] == pytest.approx([0.001, 0.002])


def test_groups_are_restored_where_the_optimiser_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    model, outer = Pair(), theta(1.0)
    update = InnerUpdate(groups(model), hyperparameters=lambda outer, group: {"lr": outer.sum()})

    def fail() -> None:
        assert [group["lr"] for group in update.optimizer.param_groups] == [1.0, 1.0]
        raise KeyboardInterrupt

    monkeypatch.setattr(update.optimizer, "step", fail)
    with pytest.raises(KeyboardInterrupt):
        update.step(list(model.parameters()), [p.detach() for p in model.parameters()], outer)
    assert [group["lr"] for group in update.optimizer.param_groups] == [0.1, 0.2]
    assert all(p.grad is None for p in model.parameters())


BAD: dict[str, tuple[Any, str]] = {
    "another name": ({"rho": 0.5}, "hyperparameters gave 'rho', which the inner optimiser does not have"),
    "a flag": ({"nesterov": 0.5}, "hyperparameters gave 'nesterov', which is no number of the inner update"),
    "a zero that is learned": (
        {"momentum": theta(0.0)[0]},
        "a learned momentum above 0, where the optimiser keeps it, got 0",
    ),
    "too few": ({"lr": [0.1, 0.2]}, "must give lr as a list of one value for each of the group's 1 parameters, got 2"),
    "another shape": (
        {"lr": [torch.ones(3)]},
        r"a 0-d tensor or of the parameter's shape \(\d,\), got .* shape \(3,\)",
    ),
    "one below zero": ({"lr": [torch.tensor(-0.5)]}, "must give lr as a finite number of at least 0, got -0.5"),
    "negative": ({"lr": torch.tensor(-0.5)}, "must give lr as a finite number of at least 0, got -0.5"),
    "not a number": ({"weight_decay": float("nan")}, "must give weight_decay as a finite number .* got nan"),
    "infinite": ({"lr": torch.tensor(torch.inf)}, "must give lr as a finite number of at least 0, got inf"),
    "a vector": ({"lr": torch.ones(1)}, r"must give lr as a number or a 0-d tensor, got a tensor of shape \(1,\)"),
    "a word": ({"lr": "fast"}, "must give lr as a number or a 0-d tensor, got str"),
}


@pytest.mark.parametrize("call", ["step", "inner_step"])
@pytest.mark.parametrize("bad", BAD)
def test_bad_hyperparameters_are_refused_before_anything_moves(bad: str, call: str) -> None:
    given, message = BAD[bad]
    model, outer = Pair(), theta(1.0)
    model.register_buffer("passes", torch.tensor(0))

    def inner_loss(net: nn.Module, outer: Tensor, batch: None) -> Tensor:
        net.passes += 1
        return outer * net.near.square().sum()

    problem = BilevelProblem(inner_loss, BOWL.outer_loss)
    update = InnerUpdate(groups(model), hyperparameters=lambda outer, group: given)
    solver = BilevelSolver(problem, model, update, outer, torch.optim.SGD([outer], lr=0.1), check=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message) as caught:
        solver.step([None], None) if call == "step" else solver.inner_step(None)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert solver.inner_steps == 0
    assert not update.optimizer.state


def test_an_option_that_the_optimiser_lacks_is_refused() -> None:
    model = Pair()
    optimiser = torch.optim.LBFGS(model.parameters())
    update = InnerUpdate(optimiser, hyperparameters=lambda outer, group: {"weight_decay": 0.1})
    with pytest.raises(ValueError, match="gave 'weight_decay', which the inner optimiser does not have"):
        update.given(theta(1.0))


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_limits_out_of_range_are_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="clip_norm must be a finite number above 0 or None, got"):
        InnerUpdate(groups(Pair()), clip_norm=limit)


def test_learned_rates_are_refused_at_an_optimum() -> None:
    model, outer = Pair(), theta(1.0)
    update = InnerUpdate(groups(model), hyperparameters=lambda outer, group: {"lr": outer.sum()})
    with pytest.raises(ValueError, match=r"Implicit differentiates an inner optimum, which .* do not enter"):
        hypergradient(StepInputs(BOWL, FunctionalModel(model), update, outer, [None]), None, Implicit())


def test_clipping_is_that_of_torch() -> None:
    """In both precisions, above and below the limit, with parameters that have no gradient."""
    generator = torch.Generator().manual_seed(0)
    for dtype, limit, scale in ((torch.float32, 1.0, 3.0), (torch.float64, 0.5, 1.0), (torch.float64, 1e3, 1.0)):
        gradients = [scale * torch.randn(n, dtype=dtype, generator=generator) for n in (3, 40, 1)]
        parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients] + [nn.Parameter(torch.zeros(2))]
        for parameter, gradient in zip(parameters, [*gradients, None], strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
        torch.nn.utils.clip_grad_norm_(parameters, limit)
        found = clipped([*gradients, None], limit)
        assert found[3] is None
        assert all(torch.equal(a, p.grad) for a, p in zip(found[:3], parameters[:3], strict=True))


def test_clipping_is_differentiable_also_at_zero() -> None:
    gradients = [torch.tensor([3.0, 1.0], dtype=torch.float64, requires_grad=True), theta(0.0, 0.0, 0.0)]
    assert torch.autograd.gradcheck(lambda *g: tuple(clipped(g, 0.7)), gradients[:1])
    assert torch.autograd.gradcheck(lambda *g: tuple(clipped(g, 100.0)), gradients)
    sums = [g.sum() for g in clipped(gradients, 0.7)]
    assert all(g.isfinite().all() for g in torch.autograd.grad(torch.stack(sums).sum(), gradients))
    zeros = [theta(0.0, 0.0)]
    (slope,) = torch.autograd.grad(clipped(zeros, 0.7)[0].sum(), zeros)
    assert slope.tolist() == [1.0, 1.0]


class Doubled(Processes):
    """As if the mean over processes were twice what this one found."""

    def mean(self, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
        return [None if t is None else 2 * t for t in tensors]


@pytest.mark.parametrize("call", ["step", "inner_step"])
def test_averages_then_clips_then_steps(call: str) -> None:
    """Of g = (1, 2, -6), doubled, clipped to norm 5, with a decay that is added after."""
    model, outer = Pair(), theta(1.0)
    problem = BilevelProblem(lambda m, o, b: o.sum() * BOWL.inner_loss(m, o, b), BOWL.outer_loss)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.5)
    update = InnerUpdate(optimiser, processes=Doubled(), clip_norm=5.0)
    solver = BilevelSolver(problem, model, update, outer, torch.optim.SGD([outer], lr=0.0), check=False)
    phi = torch.cat([model.near, model.far]).detach()
    g = 2 * torch.tensor([1.0, 2.0, -6.0], dtype=torch.float64)
    expected = phi - 0.1 * (g * 5 / (g.norm() + 1e-6) + 0.5 * phi)
    solver.step([None], None) if call == "step" else solver.inner_step(None)
    assert torch.allclose(torch.cat([model.near, model.far]), expected, rtol=1e-14)


def test_an_update_stays_itself_and_an_optimiser_gets_a_plain_one() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    update = InnerUpdate(optimizer, clip_norm=1.0)
    assert InnerUpdate.of(update) is update
    assert InnerUpdate.of(optimizer) == InnerUpdate(optimizer)
