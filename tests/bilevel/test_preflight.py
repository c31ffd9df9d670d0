"""What cannot be differentiated as stated is refused before the first step, in one line that names the cause."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bilevel.preflight_cases import IMAGES, PROBLEM, check, inner_loss, network, outer_loss, outer_parameters, refuse
from torch import Tensor, nn

from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver


def test_a_sound_problem_passes_and_nothing_changes() -> None:
    model, outer = network(), outer_parameters()
    model.append(nn.Dropout(0.5))
    optimizer = torch.optim.Adam(model.parameters())
    before, state, random = copy.deepcopy(model.state_dict()), optimizer.state_dict(), torch.get_rng_state()
    check(model=model, optimizer=optimizer, outer=outer)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert optimizer.state_dict() == state
    assert all(p.grad is None for p in (*model.parameters(), *outer.values()))
    assert model.training


def test_a_loss_that_is_never_the_same_passes() -> None:
    generator = torch.Generator().manual_seed(0)

    def noisy(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        return inner_loss(model, outer, given + torch.randn(given.shape, generator=generator))

    check(BilevelProblem(noisy, outer_loss))


@pytest.mark.parametrize("check_first", [True, False])
def test_the_solver_checks_once(check_first: bool) -> None:
    calls = []

    def counted(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        calls.append(model)
        return inner_loss(model, outer, given)

    model, outer = network(), outer_parameters()
    solver = BilevelSolver(
        BilevelProblem(counted, outer_loss),
        model,
        torch.optim.Adam(model.parameters()),
        outer,
        torch.optim.SGD(outer.values(), lr=0.1),
        check=check_first,
    )
    counts = []
    for _ in range(3):
        before = len(calls)
        solver.step([IMAGES], IMAGES)
        counts.append(len(calls) - before)
    assert counts == [5 if check_first else 1, 1, 1]


def test_levels_that_share_a_parameter() -> None:
    model = network()
    outer = {"gain": model[1].weight, "shift": outer_parameters()["shift"]}
    refuse("outer parameter gain is also the inner model's 1.weight", model=model, outer=outer)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (torch.optim.LBFGS, "no differentiable twin of LBFGS is registered"),
        (type("MySGD", (torch.optim.SGD,), {}), "no differentiable twin of MySGD is registered"),
        (functools.partial(torch.optim.Adam, fused=True), r"Adam\(fused=True\) cannot be differentiated"),
        (functools.partial(torch.optim.AdamW, capturable=True), r"AdamW\(capturable=True\) cannot be"),
        (functools.partial(torch.optim.SGD, differentiable=True), r"SGD\(differentiable=True\) cannot be"),
        (functools.partial(torch.optim.Adam, lr=torch.tensor(0.1)), r"Adam\(lr=...\) must be a number"),
    ],
)
def test_optimiser_without_a_derivative(make: Callable[..., torch.optim.Optimizer], message: str) -> None:
    model = network()
    refuse(message, model=model, optimizer=make(model.parameters()))


@pytest.mark.parametrize("register", ["register_step_pre_hook", "register_step_post_hook"])
def test_optimiser_with_step_hooks(register: str) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    handle = getattr(optimizer, register)(lambda *_: None)
    refuse(
        "the inner Adam has step hooks, which a step that is differentiated does not call",
        optimizer=optimizer,
        model=model,
    )
    handle.remove()
    check(optimizer=optimizer, model=model)


def test_outer_optimiser_that_lacks_an_outer_parameter() -> None:
    model, outer = network(), outer_parameters()

    def solver(*held: Tensor) -> BilevelSolver:
        return BilevelSolver(
            PROBLEM, model, torch.optim.Adam(model.parameters()), outer, torch.optim.SGD(held, lr=0.1), check=False
        )

    for held, lacking in (([outer["gain"]], "shift"), ([torch.zeros(1, requires_grad=True)], "gain, shift")):
        with pytest.raises(
            ValueError, match=rf"the outer SGD does not hold outer parameter {lacking}, which"
        ) as caught:
            solver(*held).step([IMAGES], IMAGES)
        assert "\n" not in str(caught.value)
    outer["shift"].requires_grad_(False)
    assert solver(outer["gain"]).step([IMAGES], IMAGES).outer_stepped


def test_optimiser_of_another_model() -> None:
    refuse("the inner Adam holds a parameter that is not", optimizer=torch.optim.Adam(network().parameters()))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda x: x.square(), r"inner_loss must return one floating-point value, got shape \(4, 2\)"),
        (lambda x: x.sum().long(), r"got shape \(\) of torch.int64"),
        (lambda x: x.sum().item(), "inner_loss must return a scalar tensor, got float"),
    ],
)
def test_loss_that_is_no_scalar(value: Callable[[Tensor], Any], message: str) -> None:
    refuse(message, problem=BilevelProblem(lambda m, o, b: value(m(o["gain"] * b)), outer_loss))
