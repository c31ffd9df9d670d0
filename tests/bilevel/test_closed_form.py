"""What strategies report, what they leave alone, and where `Unrolled` is cut, on the closed form."""

import copy

import numpy as np
import pytest
import torch
from support.problems import OPTIMISERS, Array, ClosedForm
from support.strategies import EXACT
from torch import Tensor

from metasynth.bilevel.hypergradient import Hypergradient, HypergradientStrategy, InnerStep, hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.finite_difference import FiniteDifference
from metasynth.bilevel.strategies.forward import Forward
from metasynth.bilevel.strategies.unrolled import Unrolled
from metasynth.bilevel.update.inner_update import InnerUpdate

CASE = ClosedForm()


def warmed(optimiser: str, steps: int) -> tuple[torch.nn.Module, torch.optim.Optimizer, dict[str, Tensor]]:
    model, outer = CASE.model(), CASE.outer()
    inner = OPTIMISERS[optimiser](model.parameters())
    for index in range(steps):
        native_step(model, inner, outer, CASE.inner_batch(50 + index))
    inner.zero_grad()
    for tensor in outer.values():
        tensor.grad = None
    return model, inner, outer


def native_step(model: torch.nn.Module, inner: torch.optim.Optimizer, outer: dict[str, Tensor], batch: Tensor) -> None:
    inner.zero_grad()
    CASE.problem().inner_loss(model, outer, batch).backward()
    inner.step()


def computed(
    model: torch.nn.Module, inner: torch.optim.Optimizer, outer: dict[str, Tensor], strategy: HypergradientStrategy
) -> tuple[Array, Hypergradient, InnerStep]:
    batches = [CASE.inner_batch(k) for k in range(strategy.inner_steps)]
    result, step = hypergradient(
        StepInputs(CASE.problem(), FunctionalModel(model), InnerUpdate(inner), outer, batches),
        CASE.outer_batch(),
        strategy,
    )
    return torch.cat([result.gradients["shift"], result.gradients["stiffness"]]).numpy(), result, step


def state_of(inner: torch.optim.Optimizer) -> list[Tensor]:
    return [value for state in inner.state.values() for value in state.values() if isinstance(value, Tensor)]


@pytest.mark.parametrize("last", [1, 2, 4])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_truncated_is_full_from_where_it_is_cut(optimiser: str, last: int) -> None:
    model, inner, outer = warmed(optimiser, 3)
    h, result, step = computed(model, inner, outer, Unrolled(4, last=last))
    assert len(result.inner_losses) == 4

    later, its_inner = copy.deepcopy((model, inner))
    batches = [CASE.inner_batch(k) for k in range(4)]
    for batch in batches[: 4 - last]:
        native_step(later, its_inner, outer, batch)
    phi, indirect, direct = CASE.reference(later, its_inner, outer, batches[4 - last :], CASE.outer_batch())
    assert np.allclose(torch.cat(step.parameters).numpy(), phi, rtol=1e-13, atol=1e-13)
    assert np.linalg.norm(h - direct - indirect) < 1e-8 * np.linalg.norm(indirect)

    # The state it leaves is that of all four steps.
    for batch in batches[4 - last :]:
        native_step(later, its_inner, outer, batch)
    left = [v for group in step.optimizer.state for state in group.values() for v in state.values()]
    expected = state_of(its_inner)
    assert len(left) == len(expected)
    assert all(torch.allclose(a.detach(), b, rtol=1e-13, atol=0) for a, b in zip(left, expected, strict=True))


def test_truncation_at_all_steps_is_none() -> None:
    model, inner, outer = warmed("adamw", 3)
    full, _, _ = computed(model, inner, outer, Unrolled(4))
    assert (computed(model, inner, outer, Unrolled(4, last=4))[0] == full).all()
    assert not np.allclose(computed(model, inner, outer, Unrolled(4, last=3))[0], full, rtol=1e-3)


@pytest.mark.parametrize("strategy", [Forward(), FiniteDifference(), Unrolled(2, last=1)], ids=str)
def test_model_optimiser_and_outer_stay_as_they_were(strategy: HypergradientStrategy) -> None:
    model, inner, outer = warmed("adam", 2)
    before = [t.detach().clone() for t in (*model.parameters(), *outer.values(), *state_of(inner))]
    computed(model, inner, outer, strategy)
    after = [*model.parameters(), *outer.values(), *state_of(inner)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.grad is None for p in (*model.parameters(), *outer.values()))


@pytest.mark.parametrize("strategy", [Forward(), FiniteDifference(estimate_error=True)], ids=str)
def test_an_outer_loss_without_the_model_has_only_a_direct_part(strategy: HypergradientStrategy) -> None:
    model, inner, outer = warmed("sgd", 0)
    problem = CASE.problem().__class__(CASE.problem().inner_loss, lambda m, o, b: 3 * o["shift"].sum())
    result, _ = hypergradient(
        StepInputs(problem, FunctionalModel(model), InnerUpdate(inner), outer, [CASE.inner_batch(0)]),
        CASE.outer_batch(),
        strategy,
    )
    assert result.gradients["shift"].tolist() == [3.0, 3.0]
    assert result.gradients["stiffness"] is None


def test_larger_steps_are_taken_where_only_rounding_is_in_the_way() -> None:
    """The loss is quadratic, so nothing is truncated; the step is widened twice at most."""
    model, inner, outer = warmed("adam", 3)
    found = {}
    for tolerance in (None, 1e-4, 1e-30):
        found[tolerance] = computed(model, inner, outer, FiniteDifference(tolerance=tolerance))[1].diagnostics
    assert found[1e-4] == found[None]
    assert found[1e-30]["step"] == 16 * found[None]["step"]
    assert found[1e-30]["rounding"] == pytest.approx(found[None]["rounding"] / 16, rel=1e-6)


def test_a_cotangent_of_zeros_gives_zeros() -> None:
    model, inner, outer = warmed("sgd", 0)
    step = FiniteDifference(estimate_error=True, limit=3.0).inner_step(
        StepInputs(CASE.problem(), FunctionalModel(model), InnerUpdate(inner), outer, [CASE.inner_batch(0)])
    )
    h = step.pullback([torch.zeros_like(p) for p in model.parameters()])
    assert [t.abs().max().item() for t in h] == [0.0, 0.0]
    assert step.diagnostics == {"rounding": 0.0, "error": 0.0}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FiniteDifference(0.0), "relative_step must be above 0 or None, got 0.0"),
        (lambda: FiniteDifference(tolerance=0.0), "tolerance must be above 0 or None, got 0.0"),
        (lambda: FiniteDifference(limit=0.5), "limit must be at least 1 .*, got 0.5"),
        (lambda: Unrolled(3, last=4), "last must be an integer from 1 to steps=3 or None, got 4"),
        (lambda: Unrolled(3, last=0), "last must be an integer from 1 to steps=3 or None, got 0"),
    ],
)
def test_options_out_of_range_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("strategy", EXACT)
def test_losses_reported_are_those_on_the_way(strategy: str) -> None:
    model, outer, chosen = CASE.model(), CASE.outer(), EXACT[strategy]
    inner = OPTIMISERS["adam"](model.parameters())
    batches = [CASE.inner_batch(k) for k in range(chosen.inner_steps)]
    result, _ = hypergradient(
        StepInputs(CASE.problem(), FunctionalModel(model), InnerUpdate(inner), outer, batches),
        CASE.outer_batch(),
        chosen,
    )
    problem = CASE.problem()
    expected = []
    for batch in batches:
        expected.append(problem.inner_loss(model, outer, batch).item())
        native_step(model, inner, outer, batch)
    assert [loss.item() for loss in result.inner_losses] == pytest.approx(expected, rel=1e-12)
    assert result.outer_loss.item() == pytest.approx(
        problem.outer_loss(model, outer, CASE.outer_batch()).item(), rel=1e-12
    )
    assert result.reference_loss is None
    assert not any(t.requires_grad for t in (*result.inner_losses, result.outer_loss))


@pytest.mark.parametrize("given", [1, 3])
def test_number_of_batches_is_the_strategys(given: int) -> None:
    model = CASE.model()
    inner = OPTIMISERS["sgd"](model.parameters())
    batches = [CASE.inner_batch(k) for k in range(given)]
    with pytest.raises(ValueError, match=rf"inner_batches must hold 2 batches .*Unrolled.*got {given}"):
        hypergradient(
            StepInputs(CASE.problem(), FunctionalModel(model), InnerUpdate(inner), CASE.outer(), batches),
            CASE.outer_batch(),
            EXACT["unrolled-2"],
        )
