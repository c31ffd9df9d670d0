"""The contract of every strategy, for every optimiser, with clipping and with learned rates, on two problems.

Exact strategies: the closed form, which itself is held against central differences of native `torch.optim` steps, and
such differences on a convolutional segmenter. `FiniteDifference`: off by no more than it reports. `Implicit`: off by no
more than its solver's tolerance allows.
"""

import copy
from collections.abc import Container, Iterable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from bilevel import segmentation
from bilevel.segmentation import (
    Batch,
    KinkError,
    Residual,
    along_direction,
    batch,
    central_difference,
    computed,
    seeded,
    segmenter,
)
from support import problems
from support.problems import OF_MATRICES, OPTIMISERS, Array, ClosedForm
from support.strategies import EXACT, taken
from torch import Tensor, nn

from metasynth.bilevel.hypergradient import Hypergradient, HypergradientStrategy, InnerStep, hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.finite_difference import FiniteDifference
from metasynth.bilevel.strategies.implicit import Implicit
from metasynth.bilevel.strategies.linear_solve import ConjugateGradient, LinearSolver, Neumann
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.strategies.table import ENTRIES
from metasynth.bilevel.strategies.unrolled import Unrolled
from metasynth.bilevel.update.inner_update import InnerUpdate
from metasynth.bilevel.update.optimizers import RULES

DIFFERENTIATED = EXACT | taken("unrolled-3-last-2", "unrolled-remat-3-last-2")
"""Exact for the steps that they differentiate."""
CASE = ClosedForm()
EVERY = OPTIMISERS | OF_MATRICES
MOST_USED = ("sgd", "momentum", "nesterov", "adam", "adam-decay", "adamw", "rmsprop", "rmsprop-centred")
"""With these every combination is tried each time, with the others those that say most; `make test-all` has all."""


def with_optimisers(others: Iterable[Any], telling: Container[Any], names: Iterable[str] = EVERY) -> list[Any]:
    """Pairs of an optimiser and another value, slow where the optimiser is a rare one and the value says little."""
    return [
        pytest.param(name, value, marks=() if name in MOST_USED or value in telling else pytest.mark.slow)
        for name in names
        for value in others
    ]


TELLING = ("plain", "clipped and learned")
AROUND_EACH = ("nesterov", "adam")
"""Of the optimisers of the segmenter those that clipping and learned rates are tried with each time."""
TARGET = batch(99)


NEAR = ("finite_difference", "implicit", "evolution_strategies")
"""Those that are not exact, and have a test of how far they may be off, below or in a file of the last one's name."""


def test_every_strategy_of_the_table_is_held_to_the_contract() -> None:
    """What is new in the table and not exact has to say here how far it may be off."""
    assert {entry.name for entry in ENTRIES} <= {*DIFFERENTIATED, *NEAR}


REFUSED = {"LBFGS", "SparseAdam"}
"""Optimisers of torch without a twin, which a test below expects to be refused when a solver is made."""


def test_every_optimiser_of_torch_is_held_to_the_contract_or_refused() -> None:
    """What is new in torch has to be served, and held to the closed form here, or to be refused."""
    every = {name for name, kind in vars(torch.optim).items() if isinstance(kind, type)} - {"Optimizer"}
    made = [make([nn.Parameter(torch.zeros(2, 2))]) for make in (*EVERY.values(), TestSigns.RPROP)]
    served = {type(optimiser).__name__ for optimiser in made}
    assert {kind.__name__ for kind in RULES} == served
    assert every - served == REFUSED


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_what_has_no_twin_is_refused_when_the_solver_is_made(kind: str) -> None:
    model, outer = CASE.model(), CASE.outer()
    inner = getattr(torch.optim, kind)(model.parameters())
    with pytest.raises(ValueError, match=rf"^no differentiable twin of {kind} is registered \(it .*\); expected SGD, "):
        BilevelSolver(CASE.problem(), model, inner, outer, torch.optim.SGD(outer.values()))


def case_of(optimiser: str) -> ClosedForm:
    return ClosedForm(matrices=True) if optimiser in OF_MATRICES else CASE


def cut(strategy: HypergradientStrategy) -> int:
    """Steps that the strategy takes without differentiating them."""
    return strategy.steps - strategy.last if isinstance(strategy, Unrolled) and strategy.last else 0


def by_hand_is_by_native_steps(
    case: ClosedForm, model: nn.Module, update: InnerUpdate, outer: dict[str, Tensor]
) -> None:
    """The closed form of three steps is what central differences of native steps give."""
    batches, target = [case.inner_batch(k) for k in range(3)], case.outer_batch()
    _, indirect, direct = case.reference(model, update, outer, batches, target)
    theta = torch.cat([outer["shift"], outer["stiffness"]]).detach()

    def after(moved: Tensor) -> float:
        its_model, its_update = copy.deepcopy((model, update))
        its_outer = {"shift": moved[:2].clone().requires_grad_(), "stiffness": moved[2:].clone().requires_grad_()}
        case.native_steps(its_model, its_update, its_outer, batches)
        return case.problem().outer_loss(its_model, its_outer, target).item()

    for along in torch.randn(2, 5, dtype=torch.float64, generator=seeded(0)):
        wide, narrow = ((after(theta + s * along) - after(theta - s * along)) / (2 * s) for s in (2e-4, 1e-4))
        expected = (direct + indirect) @ along.numpy()
        assert abs((4 * narrow - wide) / 3 - expected) < 1e-7 * np.linalg.norm(indirect)


@pytest.mark.usefixtures("_scalars_in_double_precision")
class TestClosedForm:
    """A problem of five inner and five outer parameters."""

    @staticmethod
    def start(optimiser: str, around: str, steps: int) -> tuple[nn.Module, InnerUpdate, dict[str, Tensor]]:
        case = case_of(optimiser)
        model, outer = case.model(), case.outer()
        update = InnerUpdate(EVERY[optimiser](model.parameters()), **problems.AROUND[around])
        case.native_steps(model, update, outer, [case.inner_batch(50 + index) for index in range(steps)])
        return model, update, outer

    @staticmethod
    def computed(
        case: ClosedForm,
        model: nn.Module,
        update: InnerUpdate,
        outer: dict[str, Tensor],
        strategy: HypergradientStrategy,
    ) -> tuple[Array, Hypergradient, InnerStep]:
        batches = [case.inner_batch(k) for k in range(strategy.inner_steps)]
        result, step = hypergradient(
            StepInputs(case.problem(), FunctionalModel(model), update, outer, batches), case.outer_batch(), strategy
        )
        return torch.cat([result.gradients["shift"], result.gradients["stiffness"]]).numpy(), result, step

    @pytest.mark.parametrize("warm_steps", [0, 4], ids=["cold", "warm"])
    @pytest.mark.parametrize(
        ("optimiser", "around"),
        with_optimisers(problems.AROUND, TELLING, [name for name in EVERY if not name.startswith("muon")]),
    )
    def test_by_hand_is_by_native_steps(self, optimiser: str, around: str, warm_steps: int) -> None:
        """Not of Muon, which rounds to bfloat16."""
        by_hand_is_by_native_steps(case_of(optimiser), *self.start(optimiser, around, warm_steps))

    @pytest.mark.parametrize("warm_steps", [0, 4], ids=["cold", "warm"])
    @pytest.mark.parametrize(("optimiser", "around"), with_optimisers(problems.AROUND, TELLING))
    @pytest.mark.parametrize("strategy", DIFFERENTIATED)
    def test_exact_strategies(self, strategy: str, optimiser: str, around: str, warm_steps: int) -> None:
        chosen = DIFFERENTIATED[strategy]
        case, (model, update, outer) = case_of(optimiser), self.start(optimiser, around, warm_steps)
        h, result, step = self.computed(case, model, update, outer, chosen)
        batches = [case.inner_batch(k) for k in range(chosen.inner_steps)]
        # What is not differentiated is as if it had been taken before.
        case.native_steps(model, update, outer, batches[: cut(chosen)])
        phi, indirect, direct = case.reference(model, update, outer, batches[cut(chosen) :], case.outer_batch())
        assert np.allclose(torch.cat([p.flatten() for p in step.parameters]).numpy(), phi, rtol=1e-13, atol=1e-13)
        # Relative to the part that comes through the inner step, so that the direct part hides nothing.
        assert np.linalg.norm(h - direct - indirect) < 1e-8 * np.linalg.norm(indirect)
        assert np.linalg.norm(indirect) > 1e-3
        assert result.diagnostics == {}

    @pytest.mark.parametrize("relative_step", [None, 0.1])
    @pytest.mark.parametrize("limit", [None, 1.0])
    @pytest.mark.parametrize("warm_steps", [0, 4], ids=["cold", "warm"])
    @pytest.mark.parametrize(("optimiser", "around"), with_optimisers(problems.AROUND, TELLING[1:]))
    def test_finite_differences_are_as_near_as_they_report(
        self, optimiser: str, around: str, warm_steps: int, limit: float | None, relative_step: float | None
    ) -> None:
        case, (model, update, outer) = case_of(optimiser), self.start(optimiser, around, warm_steps)
        _, indirect, direct = case.reference(model, update, outer, [case.inner_batch(0)], case.outer_batch())
        strategy = FiniteDifference(relative_step, estimate_error=True, limit=limit)
        h, result, step = self.computed(case, model, update, outer, strategy)
        # Where the outer loss has a direct part, h is rounded once more when that is added.
        added = np.finfo(np.float64).eps * np.linalg.norm(direct)
        assert np.linalg.norm(h - direct - indirect) <= result.diagnostics["error"] + added
        assert result.diagnostics["error"] <= 1e-5 * np.linalg.norm(indirect)
        assert result.diagnostics["rounding"] <= result.diagnostics["error"]
        assert result.diagnostics == step.diagnostics


@pytest.mark.usefixtures("_scalars_in_double_precision")
class TestLearnedUpdate:
    """All numbers of a group, a rate for each weight, and a preconditioner, from warm moments."""

    @staticmethod
    def start(optimiser: str, learned: str) -> tuple[ClosedForm, nn.Module, InnerUpdate, dict[str, Tensor]]:
        model, update, outer = TestClosedForm.start(optimiser, "plain", 4)
        options = problems.LEARNED[learned]
        if learned == "each weight" and optimiser in OF_MATRICES:
            options = {"hyperparameters": problems.each_entry}
        return case_of(optimiser), model, replace(update, **options), outer

    @pytest.mark.parametrize(
        ("optimiser", "learned"), with_optimisers(problems.LEARNED, ("all numbers", "preconditioned"))
    )
    @pytest.mark.parametrize("strategy", [*DIFFERENTIATED, "finite_difference"])
    def test_every_strategy(self, strategy: str, optimiser: str, learned: str) -> None:
        chosen = {**DIFFERENTIATED, "finite_difference": FiniteDifference()}[strategy]
        case, model, update, outer = self.start(optimiser, learned)
        h, _, step = TestClosedForm.computed(case, model, update, outer, chosen)
        batches = [case.inner_batch(k) for k in range(chosen.inner_steps)]
        # Steps of the core, since torch has no rates of weights: that they are native is for numbers shown below.
        case.own_steps(model, update, outer, batches[: cut(chosen)])
        phi, indirect, direct = case.reference(model, update, outer, batches[cut(chosen) :], case.outer_batch())
        assert np.allclose(torch.cat([p.flatten() for p in step.parameters]).numpy(), phi, rtol=1e-13, atol=1e-13)
        bound = 1e-5 if strategy == "finite_difference" else 1e-8
        assert np.linalg.norm(h - direct - indirect) < bound * np.linalg.norm(indirect)
        assert np.linalg.norm(indirect) > 1e-4

    @pytest.mark.parametrize("learned", ["all numbers", "preconditioned"])
    @pytest.mark.parametrize("optimiser", [name for name in EVERY if not name.startswith("muon")])
    def test_by_hand_is_by_native_steps(self, optimiser: str, learned: str) -> None:
        by_hand_is_by_native_steps(*self.start(optimiser, learned))


@pytest.mark.usefixtures("_scalars_in_double_precision")
class TestSigns:
    """Rprop moves by signs: nothing comes through its gradient, and something through its first rate."""

    RPROP = partial(torch.optim.Rprop, lr=0.05, etas=(0.6, 1.3), step_sizes=(0.02, 0.1))

    @pytest.mark.parametrize("warm_steps", [0, 4], ids=["cold", "warm"])
    @pytest.mark.parametrize("strategy", [*DIFFERENTIATED, "finite_difference"])
    def test_every_strategy(self, strategy: str, warm_steps: int) -> None:
        chosen = {**DIFFERENTIATED, "finite_difference": FiniteDifference()}[strategy]
        model, outer = CASE.model(), CASE.outer()
        update = InnerUpdate(self.RPROP(model.parameters()), hyperparameters=problems.learned_rate)
        CASE.native_steps(model, update, outer, [CASE.inner_batch(50 + index) for index in range(warm_steps)])
        h, _, step = TestClosedForm.computed(CASE, model, update, outer, chosen)
        batches = [CASE.inner_batch(k) for k in range(chosen.inner_steps)]
        CASE.native_steps(model, update, outer, batches[: cut(chosen)])
        phi, indirect, direct = CASE.reference(model, update, outer, batches[cut(chosen) :], CASE.outer_batch())
        assert np.allclose(torch.cat(step.parameters).numpy(), phi, rtol=1e-13, atol=1e-13)
        assert np.linalg.norm(h - direct - indirect) <= 1e-12
        # Its first rate is a state of what has stepped before.
        assert (np.linalg.norm(indirect) > 1e-3) == (warm_steps == 0 and cut(chosen) == 0)

    def test_what_comes_through_the_gradient_alone_cannot_be_learned(self) -> None:
        model, outer = CASE.model(), CASE.outer()
        inner = self.RPROP(model.parameters())
        problem = BilevelProblem(CASE.problem().inner_loss, lambda model, outer, given: model().square().sum())
        solver = BilevelSolver(problem, model, inner, outer, torch.optim.SGD(outer.values()))
        message = (
            "outer parameter shift cannot be learned: a step of Rprop depends on the gradient of inner_loss by its "
            "signs alone, or not at all; "
        )
        with pytest.raises(ValueError, match=f"^{message}.*nor can stiffness"):
            solver.step([CASE.inner_batch(0)], CASE.outer_batch())


class TestSegmenter:
    """A small U-Net on images that are augmented by a convolutional residual: 40 outer parameters."""

    @staticmethod
    @cache
    def directions() -> dict[str, list[Tensor]]:
        """Two random unit directions over all outer parameters, and three coordinates."""
        found = {}
        for seed in (1, 2):
            generator = seeded(seed)
            drawn = [torch.randn(p.shape, dtype=torch.float64, generator=generator) for p in Residual().parameters()]
            norm = torch.stack([d.square().sum() for d in drawn]).sum().sqrt()
            found[f"random {seed}"] = [d / norm for d in drawn]
        for which, entry in (("sigma", 0), ("inward.weight", 4), ("outward.bias", 0)):
            unit = {name: torch.zeros_like(p) for name, p in Residual().named_parameters()}
            unit[which].view(-1)[entry] = 1.0
            found[which] = list(unit.values())
        return found

    @staticmethod
    @cache
    def trained(optimiser: str) -> tuple[nn.Module, torch.optim.Optimizer, Residual]:
        model, outer = segmenter(), Residual()
        steps = segmentation.WARM_STEPS
        return model, segmentation.trained(model, segmentation.OPTIMISERS[optimiser], outer, steps), outer

    @classmethod
    def start(cls, optimiser: str, around: str) -> tuple[nn.Module, InnerUpdate, Residual]:
        model, inner, outer = cls.trained(optimiser)
        return model, InnerUpdate(inner, **segmentation.AROUND[around]), outer

    @classmethod
    @cache
    def differences(cls, optimiser: str, around: str, skipped: int, steps: int) -> tuple[list[Batch], dict[str, float]]:
        """Batches and the derivatives along directions, by native steps of which the first ones are not followed."""
        wanted = list(cls.directions()) if (around, steps) == ("plain", 1) else ["random 1"]
        for first in range(0, 500, 100):
            batches = [batch(first + k) for k in range(steps)]
            model, update, outer = copy.deepcopy(cls.start(optimiser, around))
            for given in batches[:skipped]:
                segmentation.native_step(model, update, outer, given)
            along = partial(along_direction, model, update, outer, batches[skipped:], TARGET)
            try:
                return batches, {name: central_difference(along(cls.directions()[name])) for name in wanted}
            except KinkError:
                continue
        raise AssertionError("kinks everywhere")

    @pytest.mark.parametrize(
        ("optimiser", "around"),
        [
            pytest.param(name, around, marks=() if around == "plain" or name in AROUND_EACH else pytest.mark.slow)
            for name in segmentation.OPTIMISERS
            for around in ("plain", "clipped", "learned")
        ],
    )
    @pytest.mark.parametrize("strategy", DIFFERENTIATED)
    def test_exact_strategies(self, strategy: str, optimiser: str, around: str) -> None:
        chosen = DIFFERENTIATED[strategy]
        batches, derivatives = self.differences(optimiser, around, cut(chosen), chosen.inner_steps)
        gradients = computed(*self.start(optimiser, around), batches, TARGET, chosen).gradients
        assert list(gradients) == [name for name, _ in Residual().named_parameters()]
        for name, truth in derivatives.items():
            pairs = zip(gradients.values(), self.directions()[name], strict=True)
            h = sum((g * d).sum().item() for g, d in pairs)
            assert abs(h - truth) < 1e-6 * abs(truth), name

    @pytest.mark.parametrize(
        ("around", "limit"), [("plain", None), ("plain", 3.0), ("clipped", None), ("learned", None)]
    )
    @pytest.mark.parametrize("optimiser", segmentation.OPTIMISERS)
    def test_finite_differences_are_as_near_as_they_report(
        self, optimiser: str, around: str, limit: float | None
    ) -> None:
        model, update, outer = self.start(optimiser, around)
        strategy = FiniteDifference(estimate_error=True, limit=limit)
        result, exact = (computed(model, update, outer, [batch(0)], TARGET, s) for s in (strategy, Mixed()))
        error = flat(result.gradients) - flat(exact.gradients)
        assert error.norm() <= result.diagnostics["error"]
        assert result.diagnostics["error"] < 1e-3 * flat(exact.gradients).norm()


class TestOptimum:
    """Ridge regression, φ* = (XᵀX/n + θ I)⁻¹ Xᵀy/n, whose derivative -(XᵀX/n + θ I)⁻¹ φ* is known."""

    RIDGE = 0.1

    class Weights(nn.Module):
        def __init__(self, value: Array) -> None:
            super().__init__()
            self.value = nn.Parameter(torch.tensor(value))

    @staticmethod
    def inner_loss(model: nn.Module, outer: Tensor, given: tuple[Tensor, Tensor]) -> Tensor:
        misfit = given[0] @ model.value - given[1]
        return 0.5 * misfit.square().mean() + 0.5 * outer * model.value.square().sum()

    @staticmethod
    def outer_loss(model: nn.Module, outer: Tensor, given: Tensor) -> Tensor:
        return 0.5 * (model.value - given).square().sum()

    @pytest.mark.parametrize("around", ["plain", "clipped"])
    @pytest.mark.parametrize("optimiser", ["sgd", "momentum", "adam"])
    @pytest.mark.parametrize("which", ["conjugate gradients", "neumann"])
    def test_the_error_falls_with_the_tolerance(self, which: str, optimiser: str, around: str) -> None:
        """|h - truth| <= |φ*| |v| tolerance / λ_min, and it does reach that order."""
        random = np.random.default_rng(0)
        x, y, target = random.standard_normal((60, 40)), random.standard_normal(60), random.standard_normal(40)
        hessian = x.T @ x / 60 + self.RIDGE * np.eye(40)
        curvatures = np.linalg.eigvalsh(hessian)
        optimum = np.linalg.solve(hessian, x.T @ y / 60)
        truth = -optimum @ np.linalg.solve(hessian, optimum - target)
        problem = BilevelProblem(self.inner_loss, self.outer_loss)

        tolerances, errors = [1e-2, 1e-4, 1e-6, 1e-8], []
        for tolerance in tolerances:
            solver: LinearSolver = ConjugateGradient(200, tolerance)
            if which == "neumann":
                solver = Neumann(5000, 1 / curvatures[-1], tolerance=tolerance)
            model = self.Weights(optimum)
            update = InnerUpdate(OPTIMISERS[optimiser](model.parameters()), **problems.AROUND[around])
            outer = torch.tensor(self.RIDGE, dtype=torch.float64, requires_grad=True)
            given = (torch.tensor(x), torch.tensor(y))
            result, _ = hypergradient(
                StepInputs(problem, FunctionalModel(model), update, outer, [given]),
                torch.tensor(target),
                Implicit(solver),
            )
            assert result.diagnostics["converged"] == 1.0
            assert result.diagnostics["residual"] <= tolerance
            errors.append(abs(result.gradients["outer"].item() - truth))
        constant = np.linalg.norm(optimum) * np.linalg.norm(optimum - target) / curvatures[0]
        assert all(e <= constant * t + 1e-13 for e, t in zip(errors, tolerances, strict=True))
        assert errors[0] > 1e-6 * constant
        assert errors[-1] < 1e-5 * errors[0]


def flat(gradients: dict[str, Any]) -> Tensor:
    return torch.cat([g.flatten() for g in gradients.values()])
