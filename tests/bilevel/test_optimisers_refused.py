"""What cannot be used as an optimiser of either level is refused when the solver is made, in one line."""

import copy
import re
from collections.abc import Callable
from typing import Any

import higher
import pytest
import torch
from bilevel.identical import assert_identical
from bilevel.preflight_cases import IMAGES, PROBLEM, network, outer_parameters
from torch import Tensor, nn

from metasynth.bilevel.outer_step import OuterStep
from metasynth.bilevel.patched.buffers import BufferPolicy
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.update.optimizers import RULES

Make = Callable[[Any], Any]
EXPECTED = (
    "SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta, Adamax, NAdam, RAdam, ASGD, Rprop, Adafactor, Muon or a type added "
    "with higher.register_optim"
)


def no_twin(kind: str, why: str = "") -> str:
    return f"no differentiable twin of {kind} is registered{why}; expected {EXPECTED}"


class Wrapped:
    """An optimiser around another, as several packages have."""

    def __init__(self, parameters: Any) -> None:
        self.optimizer = torch.optim.Adam(parameters)
        self.param_groups = self.optimizer.param_groups
        self.step = self.optimizer.step


INNER: dict[str, tuple[Make, str]] = {
    "LBFGS": (
        torch.optim.LBFGS,
        no_twin(
            "LBFGS", " (it evaluates the loss again within a step, whose derivative would be that of a line search)"
        ),
    ),
    "SparseAdam": (
        torch.optim.SparseAdam,
        no_twin("SparseAdam", " (it takes sparse gradients alone, and those that can be differentiated are dense)"),
    ),
    "a subclass": (type("MyAdam", (torch.optim.Adam,), {}), no_twin("MyAdam")),
    "a wrapper": (Wrapped, "the inner optimiser must be a torch.optim.Optimizer, got Wrapped"),
    "a flag": (
        lambda parameters: torch.optim.Adam(parameters, fused=True),
        "Adam(fused=True) cannot be differentiated through; expected fused=False",
    ),
    "another order": (
        lambda parameters: torch.optim.NAdam(parameters, foreach=True),
        "NAdam(foreach=True) rounds otherwise than the step that is differentiated; expected foreach=False",
    ),
    "of another model": (
        lambda parameters: torch.optim.Adam(network().parameters()),
        "the inner Adam holds a parameter that is not the inner model's; expected only parameters of the inner model",
    ),
    "with a hook": (
        lambda parameters: hooked(torch.optim.SGD(parameters)),
        "the inner SGD has step hooks, which a step that is differentiated does not call; remove them and do their "
        "work between the solver's steps",
    ),
}


def hooked(optimiser: torch.optim.Optimizer) -> torch.optim.Optimizer:
    optimiser.register_step_pre_hook(lambda *_: None)
    return optimiser


class Searching(torch.optim.SGD):
    """A user's line search."""

    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        return closure()


def closure(kind: str) -> str:
    return (
        f"the outer {kind} needs a closure that evaluates a loss again, which a hypergradient does not have; expected "
        "an optimiser whose step() takes no argument, such as Adam or SGD"
    )


OUTER: dict[str, tuple[Make, str]] = {
    "LBFGS": (torch.optim.LBFGS, closure("LBFGS")),
    "a line search": (Searching, closure("Searching")),
    "SparseAdam": (
        torch.optim.SparseAdam,
        "the outer SparseAdam takes sparse gradients alone; hypergradients are dense: expected Adam",
    ),
    "differentiable": (
        lambda parameters: torch.optim.SGD(parameters, differentiable=True),
        "the outer SGD(differentiable=True) cannot step on parameters that require a gradient; expected "
        "differentiable=False",
    ),
    "capturable": (
        lambda parameters: torch.optim.Adam(parameters, capturable=True),
        "the outer Adam(capturable=True) cannot step on parameters on a CPU; expected capturable=False",
    ),
    "a wrapper": (Wrapped, "the outer optimiser must be a torch.optim.Optimizer, got Wrapped"),
    "of something else": (
        lambda parameters: torch.optim.Adam(parameters[:1]),
        "the outer Adam does not hold outer parameter shift, which could then not be learned; make it on all of them, "
        "or set requires_grad=False on what is to stay",
    ),
}


def solver_with(
    inner: Make = torch.optim.Adam,
    outer: Make = torch.optim.Adam,
    options: OuterStep | None = None,
    buffers: BufferPolicy = "commit",
) -> BilevelSolver:
    model, theta = network(), outer_parameters()
    return BilevelSolver(
        PROBLEM,
        model,
        inner(list(model.parameters())),
        theta,
        outer(list(theta.values())),
        outer_step=options,
        check=False,
        buffers=buffers,
    )


@pytest.mark.parametrize("which", INNER)
def test_inner(which: str) -> None:
    make, message = INNER[which]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        solver_with(inner=make)


@pytest.mark.parametrize("which", OUTER)
def test_outer(which: str) -> None:
    make, message = OUTER[which]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        solver_with(outer=make)


EVERY = [name for name in torch.optim.__all__ if isinstance(getattr(torch.optim, name), type) and name != "Optimizer"]


def test_every_optimiser_of_torch_is_known() -> None:
    """As an inner one: what this torch has is taken or refused by name above."""
    assert set(EVERY) - set(INNER) == {kind.__name__ for kind in RULES}


@pytest.mark.parametrize("kind", sorted(set(EVERY) - set(OUTER) - {"Muon"}))
def test_every_other_outer_optimiser_steps(kind: str) -> None:
    """Muon takes matrices alone, and says so itself."""
    solver = solver_with(
        inner=lambda parameters: torch.optim.SGD(parameters, lr=1.0),
        outer=lambda parameters: getattr(torch.optim, kind)(parameters, lr=1.0),
    )
    before = copy.deepcopy(solver.outer)
    solver.step([IMAGES], IMAGES)
    assert all(not torch.equal(value, before[name]) for name, value in solver.outer.items())


def test_a_twin_of_ones_own_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for a type that has one."""

    class Twin(higher.optim.DifferentiableSGD):
        """Not what Adamax does; it is only to be taken."""

        def _update(self, grouped_grads: Any, **_: Any) -> None:
            for options, grads in zip(self.param_groups, grouped_grads, strict=True):
                moved = zip(options["params"], grads, strict=True)
                options["params"] = [p if g is None else p - options["lr"] * g for p, g in moved]

    monkeypatch.setitem(higher.optim._opt_mapping, torch.optim.Adamax, Twin)
    solver = solver_with(inner=torch.optim.Adamax)
    assert solver.step([IMAGES], IMAGES).inner_steps == 1


@pytest.mark.parametrize("call", ["step", "inner_step"])
def test_a_flag_that_is_set_later_is_refused_before_anything_moves(call: str) -> None:
    solver = solver_with()
    solver.step([IMAGES], IMAGES)
    solver.inner_step(IMAGES)
    solver.optimizer.param_groups[0]["fused"] = True
    before = copy.deepcopy(solver.state_dict())
    message = "Adam(fused=True) cannot be differentiated through; expected fused=False"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        solver.step([IMAGES], IMAGES) if call == "step" else solver.inner_step(IMAGES)
    assert_identical(solver.state_dict(), before)


class Failing(torch.optim.Adam):
    """Moves, and then raises where it is told to."""

    error: BaseException | None = None

    def step(self, closure: Any = None) -> None:
        super().step()
        self.param_groups[0]["lr"] *= 0.5
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("warm", [0, 3], ids=["first", "later"])
@pytest.mark.parametrize("error", [TypeError("no closure"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_an_outer_step_that_fails_leaves_all_as_it_was(error: BaseException, warm: int) -> None:
    """No inner commit, no .grad, the same state of the optimiser; and training goes on as if nothing had been."""
    options = OuterStep(average=2, clip=2.0, memory=0.5)
    solver, other = solver_with(outer=Failing, options=options), solver_with(outer=Failing, options=options)
    for _ in range(2 * warm + 1):
        solver.step([IMAGES], IMAGES)
        other.step([IMAGES], IMAGES)
    before = copy.deepcopy(solver.state_dict())
    solver.outer_optimizer.error = error
    with pytest.raises(type(error)):
        solver.step([IMAGES], IMAGES)
    assert_identical(solver.state_dict(), before)
    assert all(p.grad is None for p in (*solver.model.parameters(), *solver.outer.values()))
    solver.outer_optimizer.error = None
    assert solver.step([IMAGES], IMAGES) == other.step([IMAGES], IMAGES)
    assert_identical(solver.state_dict(), other.state_dict())
    assert solver.outer_steps == warm + 1


def test_a_scheduler_on_the_outer_optimiser_is_no_argument() -> None:
    """It replaces the optimiser's step method by one of its own."""
    model, theta = network(), outer_parameters()
    outer = torch.optim.SGD(list(theta.values()), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(outer, 1, gamma=0.5)
    solver = BilevelSolver(PROBLEM, model, torch.optim.SGD(model.parameters()), theta, outer)
    solver.step([IMAGES], IMAGES)
    scheduler.step()
    assert outer.param_groups[0]["lr"] == 0.05


def test_frozen_layers_and_a_subset_are_fine() -> None:
    """What the inner optimiser does not hold stays."""
    model, theta = network(), outer_parameters()
    held = [p for layer in model if isinstance(layer, nn.BatchNorm1d) for p in layer.parameters()]
    outer = torch.optim.SGD(list(theta.values()), lr=0.1)
    solver = BilevelSolver(PROBLEM, model, torch.optim.SGD(held), theta, outer)
    before = copy.deepcopy(model.state_dict())
    solver.step([IMAGES], IMAGES)
    assert torch.equal(model.state_dict()["0.weight"], before["0.weight"])
    assert not torch.equal(model.state_dict()["1.weight"], before["1.weight"])
