"""Rates of weights and preconditioners: their hypergradient, plain steps with them, and what is refused."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from bilevel.identical import assert_identical
from support.strategies import EXACT
from torch import Tensor, nn

from metasynth.bilevel.checks.preflight import preflight
from metasynth.bilevel.hypergradient import hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.implicit import Implicit
from metasynth.bilevel.update.inner_update import InnerUpdate

Gradients = Sequence[Tensor | None]


class Pair(nn.Module):
    """φ of two parameters and one that no loss depends on."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.near = nn.Parameter(torch.tensor([1.0, 2.0], dtype=dtype))
        self.far = nn.Parameter(torch.tensor([-3.0], dtype=dtype))
        self.idle = nn.Parameter(torch.ones(1, dtype=dtype))


BOWL = BilevelProblem(
    lambda model, outer, given: 0.5 * model.near.square().sum() + model.far.square().sum(),
    lambda model, outer, given: 0.5 * (model.near.square().sum() + model.far.square().sum()),
)
"""The inner gradient is φ for one and 2 φ for the other; θ is in neither loss."""


def solved(update: InnerUpdate, model: nn.Module, outer: Any, strategy: str) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The hypergradient, after the checks that a solver would make, and φ*."""
    chosen = EXACT[strategy]
    preflight(BOWL, model, update, outer, None, None, chosen)
    inputs = StepInputs(BOWL, FunctionalModel(model), update, outer, [None])
    result, step = hypergradient(inputs, None, chosen)
    return result.gradients, step.parameters


@pytest.mark.parametrize("strategy", ["mixed", "forward", "unrolled"])
def test_each_weight_has_a_rate_of_its_own(strategy: str) -> None:
    """φ* = φ - a φ for one, φ - 2 b φ for the other: h_a = -φ φ*, of each weight, and h_b = -2 φ φ*."""
    model = Pair()
    outer = {"a": torch.tensor([0.2, 0.4], requires_grad=True), "b": torch.tensor(0.1, requires_grad=True)}
    update = InnerUpdate(
        torch.optim.SGD([model.near, model.far, model.idle], lr=1.0),
        hyperparameters=lambda outer, group: {"lr": [outer["a"], outer["b"], 7.0]},
    )
    found, moved = solved(update, model, outer, strategy)
    near, far = model.near.detach(), model.far.detach()
    rates = outer["a"].detach().double()
    assert torch.allclose(moved[0], near * (1 - rates), rtol=1e-15)
    assert moved[2] is model.idle or torch.equal(moved[2], model.idle)
    assert torch.allclose(found["a"].double(), -near * near * (1 - rates), rtol=1e-6)
    assert found["a"].dtype == torch.float32
    assert found["b"].item() == pytest.approx((-2 * far * far * (1 - 2 * outer["b"].item())).item(), rel=1e-6)


ADAPTIVE: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "adam": torch.optim.Adam,
    "nadam": torch.optim.NAdam,
    "radam": partial(torch.optim.RAdam, betas=(0.9, 0.95)),
    "asgd": torch.optim.ASGD,
    "adafactor": torch.optim.Adafactor,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("optimiser", ADAPTIVE)
def test_plain_steps_with_them_are_those_that_are_differentiated(optimiser: str, dtype: torch.dtype) -> None:
    """To the last bit, states included, in any order; and state that was saved goes on the same."""

    def trained(calls: str) -> BilevelSolver:
        model, outer = Pair(dtype), torch.tensor([0.1, 0.3, 0.2], requires_grad=True)
        update = InnerUpdate(
            ADAPTIVE[optimiser](model.parameters(), lr=0.1),
            hyperparameters=lambda outer, group: {"lr": [outer[:2], outer[2:], 0.1]},
            preconditioner=lambda outer, gradients: [None if g is None else g * (1 + outer[0] * g) for g in gradients],
        )
        solver = BilevelSolver(BOWL, model, update, outer, torch.optim.SGD([outer], lr=0.0), check=False)
        for call in calls:
            solver.step([None], None) if call == "s" else solver.inner_step(None)
        return solver

    states = [trained(calls) for calls in ("ssssssss", "iiiiiiii", "ssiisisi")]
    for one in states[1:]:
        assert_identical(one.model.state_dict(), states[0].model.state_dict())
        assert_identical(one.optimizer.state_dict(), states[0].optimizer.state_dict())
    assert states[0].optimizer.param_groups[0]["lr"] == 0.1
    saved = copy.deepcopy(states[0].state_dict())
    again = trained("")
    again.load_state_dict(saved)
    assert again.inner_step(None).inner_losses == states[0].inner_step(None).inner_losses
    assert_identical(again.model.state_dict(), states[0].model.state_dict())


class Learned(nn.Module):
    """An optimiser of two numbers: directions a g + b g³."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.1, dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor(0.02, dtype=torch.float64))

    def forward(self, gradients: Gradients) -> list[Tensor | None]:
        return [None if g is None else self.a * g + self.b * g**3 for g in gradients]


@pytest.mark.parametrize("strategy", ["mixed", "forward", "unrolled"])
def test_a_module_that_maps_gradients_to_updates_is_a_learned_optimiser(strategy: str) -> None:
    """With SGD at a rate of one φ* = φ - a g - b g³, so that h_a = -g·φ* and h_b = -g³·φ*."""
    model, outer = Pair(), Learned()
    update = InnerUpdate(
        torch.optim.SGD(model.parameters(), lr=1.0), preconditioner=lambda outer, gradients: outer(gradients)
    )
    found, moved = solved(update, model, outer, strategy)
    phi = torch.cat([model.near, model.far]).detach()
    g = torch.cat([model.near, 2 * model.far]).detach()
    after = phi - 0.1 * g - 0.02 * g**3
    assert torch.allclose(torch.cat(moved[:2]), after, rtol=1e-14)
    assert found["a"].item() == pytest.approx(-(g @ after).item(), rel=1e-13)
    assert found["b"].item() == pytest.approx(-(g**3 @ after).item(), rel=1e-13)


def test_a_preconditioner_is_given_clipped_gradients() -> None:
    """Of g = (1, 2, -6), clipped to norm 5."""
    model, seen = Pair(), []

    def keep(outer: Tensor, gradients: Gradients) -> Gradients:
        seen.extend(gradients)
        return gradients

    update = InnerUpdate(torch.optim.SGD(model.parameters(), lr=1.0), clip_norm=5.0, preconditioner=keep)
    g = torch.tensor([1.0, 2.0, -6.0], dtype=torch.float64)
    update.step(list(model.parameters()), [g[:2], g[2:], None], torch.ones(1))
    assert torch.allclose(torch.cat(seen[:2]), g * 5 / (g.norm() + 1e-6), rtol=1e-15)
    assert seen[2] is None


BAD: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "too few": (lambda o, g: g[:1], "preconditioner must give one direction for each of 3 gradients, got 1"),
    "none": (
        lambda o, g: [None, *g[1:]],
        "preconditioner must give a tensor of shape (2,) and torch.float64 for gradient 0, got None",
    ),
    "another shape": (
        lambda o, g: [g[0][:1], *g[1:]],
        "preconditioner must give a tensor of shape (2,) and torch.float64 for gradient 0, got a tensor of shape (1,) "
        "and torch.float64",
    ),
    "too many": (
        lambda o, g: [*g[:2], g[1]],
        "preconditioner must give None for gradient 2, got a tensor of shape (1,)",
    ),
}


@pytest.mark.parametrize("call", ["step", "inner_step"])
@pytest.mark.parametrize("bad", BAD)
def test_directions_that_are_none_are_refused_before_anything_moves(bad: str, call: str) -> None:
    given, message = BAD[bad]
    model, outer = Pair(), torch.ones(1, requires_grad=True)
    update = InnerUpdate(torch.optim.Adam(model.parameters()), preconditioner=given)
    solver = BilevelSolver(BOWL, model, update, outer, torch.optim.SGD([outer], lr=0.1), check=False)
    before = copy.deepcopy(solver.state_dict())
    with pytest.raises(ValueError, match=r"^preconditioner must give") as caught:
        solver.step([None], None) if call == "step" else solver.inner_step(None)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert_identical(solver.state_dict(), before)


def test_what_neither_losses_nor_the_update_depend_on_is_named() -> None:
    model, outer = Pair(), {"lost": torch.ones(1, requires_grad=True)}
    update = InnerUpdate(torch.optim.Adam(model.parameters()), preconditioner=lambda outer, gradients: gradients)
    with pytest.raises(
        ValueError, match=r"^outer parameter lost cannot be learned: .*; the preconditioner does not depend"
    ):
        preflight(BOWL, model, update, outer, None, None)


def test_a_preconditioner_is_refused_at_an_optimum() -> None:
    model, outer = Pair(), torch.ones(1, requires_grad=True)
    update = InnerUpdate(torch.optim.Adam(model.parameters()), preconditioner=lambda outer, gradients: gradients)
    inputs = StepInputs(BOWL, FunctionalModel(model), update, outer, [None])
    with pytest.raises(
        ValueError, match=r"Implicit .* an inner optimum, which the update's preconditioner does not enter"
    ):
        hypergradient(inputs, None, Implicit())


def betas_of(beta: Any) -> Callable[[Any, Mapping[str, Any]], dict[str, Any]]:
    return lambda outer, group: {"betas": beta}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (betas_of((0.5, 1.0)), "must give betas as a finite number of at least 0 and below 1, got 1.0"),
        (betas_of(0.5), "must give betas as 2 values, got float"),
        (betas_of((0.5, [0.5])), "must give betas as a list of one value for each of the group's 3 parameters, got 1"),
        (lambda outer, group: {"amsgrad": 1.0}, "gave 'amsgrad', which is no number of the inner update"),
        (lambda outer, group: {"params": [1.0]}, "gave 'params', which the inner optimiser does not have"),
    ],
)
def test_bad_numbers_are_refused(given: Any, message: str) -> None:
    update = InnerUpdate(torch.optim.Adam(Pair().parameters()), hyperparameters=given)
    with pytest.raises(ValueError, match=message):
        update.given(torch.ones(1))
