"""What a strategy is handed: the one object, as it was given, by `hypergradient`, the solver and `preflight`."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from support.problems import OPTIMISERS, ClosedForm

from metasynth.bilevel.checks.preflight import preflight
from metasynth.bilevel.hypergradient import HypergradientStrategy, InnerStep, hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.unrolled import Unrolled
from metasynth.bilevel.update.inner_update import InnerUpdate

CASE = ClosedForm()


@dataclass(frozen=True)
class Own(HypergradientStrategy):
    """A strategy of a user's own: another's, that remembers what it was handed."""

    taken: list[StepInputs] = field(default_factory=list)
    checked: list[StepInputs] = field(default_factory=list)

    @property
    def inner_steps(self) -> int:
        return 2

    def inner_step(self, inputs: StepInputs) -> InnerStep:
        self.taken.append(inputs)
        return Unrolled(2).inner_step(inputs)

    def check(self, inputs: StepInputs) -> None:
        self.checked.append(inputs)


def inputs(**changed: object) -> StepInputs:
    model = CASE.model()
    given = {
        "problem": CASE.problem(),
        "model": FunctionalModel(model),
        "update": InnerUpdate(OPTIMISERS["adam"](model.parameters())),
        "outer": CASE.outer(),
        "batches": [CASE.inner_batch(0), CASE.inner_batch(1)],
    }
    return StepInputs(**{**given, **changed})


def test_hypergradient_hands_on_what_it_was_given() -> None:
    own, given = Own(), inputs()
    result, _ = hypergradient(given, CASE.outer_batch(), own)
    expected, _ = hypergradient(given, CASE.outer_batch(), Unrolled(2))
    assert own.taken == [given]
    assert all(torch.equal(h, expected.gradients[name]) for name, h in result.gradients.items())


def test_the_solver_hands_on_its_own_parts_and_all_batches() -> None:
    model, outer, own = CASE.model(), CASE.outer(), Own()
    inner = OPTIMISERS["sgd"](model.parameters())
    solver = BilevelSolver(CASE.problem(), model, inner, outer, torch.optim.SGD(outer.values(), lr=0.1), own)
    batches = [CASE.inner_batch(0), CASE.inner_batch(1)]
    solver.step(batches, CASE.outer_batch())
    (taken,), (checked,) = own.taken, own.checked
    for given in (taken, checked):
        assert given.problem is solver.problem
        assert given.model.model is model
        assert given.update.optimizer is inner
        assert given.outer is outer
    assert taken.batches is batches
    assert len(checked.batches) == 1
    assert checked.batches[0] is batches[0]


def test_preflight_hands_on_a_single_batch() -> None:
    model, own, batch = CASE.model(), Own(), CASE.inner_batch(0)
    preflight(
        CASE.problem(), model, OPTIMISERS["sgd"](model.parameters()), CASE.outer(), batch, CASE.outer_batch(), own
    )
    assert [given.batches for given in own.checked] == [[batch]]
    assert own.taken == []


def test_the_inner_loss_is_that_of_the_problem_at_the_given_parameters() -> None:
    given = inputs()
    moved = [p.detach() + 1 for p in given.model.model.parameters()]
    value = given.inner_loss(moved, given.batches[1])
    with torch.no_grad():
        for parameter, other in zip(given.model.model.parameters(), moved, strict=True):
            parameter.copy_(other)
    assert torch.equal(value, CASE.problem().inner_loss(given.model.model, given.outer, given.batches[1]))


def test_learned_are_the_outer_parameters_by_name() -> None:
    outer = CASE.outer()
    outer["stiffness"].requires_grad_(False)
    assert list(inputs(outer=outer).learned.items()) == [("shift", outer["shift"])]


@pytest.mark.parametrize(
    ("name", "made", "message"),
    [
        ("model", CASE.model, "model must be a FunctionalModel, as FunctionalModel(model) makes it, got Point"),
        (
            "update",
            lambda: OPTIMISERS["adam"](CASE.model().parameters()),
            "update must be an InnerUpdate, as InnerUpdate(optimizer) makes it, got Adam",
        ),
    ],
)
def test_what_is_not_wrapped_is_refused(name: str, made: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        inputs(**{name: made()})
