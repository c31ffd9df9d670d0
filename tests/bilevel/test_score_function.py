"""`ScoreFunction`: unbiased against expectations over all that can be drawn, and beside other strategies."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from bilevel.identical import assert_identical
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Distribution, Normal

from metasynth.bilevel import (
    BilevelProblem,
    BilevelSolver,
    EvolutionStrategies,
    FiniteDifference,
    FunctionalModel,
    Hypergradient,
    HypergradientStrategy,
    InnerUpdate,
    Mixed,
    OuterStep,
    ScoreFunction,
    StepInputs,
    Unrolled,
    draw,
    hypergradient,
)

RATE, START, TARGET = 0.25, 0.3, 1.1
GOALS = (0.2, 1.5, 3.0)
"""Where the inner loss leads to, by what is drawn."""


class Weight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(START, dtype=torch.float64))


def tensor(*values: float) -> Tensor:
    given = torch.tensor(values if len(values) > 1 else values[0], dtype=torch.float64)
    return given.requires_grad_()


def inner_loss(model: nn.Module, outer: dict[str, Tensor], given: Any) -> Tensor:
    """½ (φ - goal - gain)²: one of three goals is drawn; the gain is differentiated through."""
    goal = torch.tensor(GOALS, dtype=torch.float64)[draw(Categorical(logits=outer["choice"]))]
    return 0.5 * (model.value - goal - outer["gain"]).square()


def outer_loss(model: nn.Module, outer: dict[str, Tensor], given: Any) -> Tensor:
    return 0.5 * (model.value - TARGET).square() + 0.05 * outer["choice"].square().sum()


PROBLEM = BilevelProblem(inner_loss, outer_loss)


def outer_parameters() -> dict[str, Tensor]:
    return {"choice": tensor(0.4, -0.3, 0.1), "gain": tensor(0.15)}


def after(goals: Sequence[float], gain: Tensor) -> Tensor:
    """φ after a step of gradient descent towards each of the goals."""
    phi = torch.tensor(START, dtype=torch.float64)
    for goal in goals:
        phi = phi - RATE * (phi - goal - gain)
    return phi


def expectation(outer: dict[str, Tensor], steps: int, mean_of: int = 1) -> Tensor:
    """E_z of the outer loss, by going through all that can be drawn."""
    probabilities = outer["choice"].softmax(0)
    total = 0.05 * outer["choice"].square().sum()
    for drawn in itertools.product(range(3), repeat=steps):
        ends = [after([GOALS[k] for k in drawn[: steps - j]], outer["gain"]) for j in range(mean_of)]
        phi = torch.stack(ends).mean()
        total = total + probabilities[list(drawn)].prod() * 0.5 * (phi - TARGET).square()
    return total


def inputs_of(
    outer: dict[str, Tensor], steps: int, problem: BilevelProblem = PROBLEM, model: nn.Module | None = None
) -> StepInputs:
    model = model or Weight()
    update = InnerUpdate(torch.optim.SGD(model.parameters(), lr=RATE))
    return StepInputs(problem, FunctionalModel(model), update, outer, [None] * steps)


def computed(strategy: HypergradientStrategy, seed: int = 0) -> Hypergradient:
    torch.manual_seed(seed)
    return hypergradient(inputs_of(outer_parameters(), strategy.inner_steps), None, strategy)[0]


class TestClosedForm:
    @pytest.mark.parametrize("baseline", ["others", "none"])
    @pytest.mark.parametrize("way", [Mixed(), Unrolled(3), Unrolled(2, remat=True, mean_of=2)], ids=str)
    def test_it_is_unbiased(self, way: HypergradientStrategy, baseline: Any) -> None:
        outer = outer_parameters()
        truth = torch.autograd.grad(expectation(outer, way.inner_steps, way.mean_of), [outer["choice"]])[0]
        result = computed(ScoreFunction(400, baseline, way))
        error = result.diagnostics["standard_error"]
        assert (result.gradients["choice"] - truth).norm() < 3 * error
        direct = 0.1 * outer["choice"].detach()
        if baseline == "others":
            assert 2 * error < (truth - direct).norm()

    def test_a_baseline_takes_away_what_samples_share(self) -> None:
        errors = {b: computed(ScoreFunction(200, b)).diagnostics["standard_error"] for b in ("others", "none")}
        assert errors["others"] < 0.6 * errors["none"]

    @pytest.mark.parametrize("way", [Mixed(), FiniteDifference(), Unrolled(3)], ids=str)
    def test_what_derivatives_serve_is_as_without_it(self, way: HypergradientStrategy) -> None:
        both, alone = computed(ScoreFunction(3, strategy=way)), computed(way)
        assert torch.equal(both.gradients["gain"], alone.gradients["gain"])
        assert both.inner_losses == alone.inner_losses
        assert {k: v for k, v in both.diagnostics.items() if k != "standard_error"} == alone.diagnostics

    def test_the_derivative_by_derivatives_is_unbiased_over_calls(self) -> None:
        """It is that of what the step drew, so that its mean is the derivative of the expectation."""
        outer = outer_parameters()
        truth = torch.autograd.grad(expectation(outer, 1), [outer["gain"]])[0].item()
        found = np.array([computed(Mixed(), seed).gradients["gain"].item() for seed in range(150)])
        assert abs(found.mean() - truth) < 3 * found.std() / math.sqrt(150)

    @pytest.mark.parametrize(
        ("baseline", "samples", "safe"), [("none", 3, 1.0), ("others", 4, 2.3), ("others", 16, 1.3)]
    )
    def test_the_standard_error_is_that_of_repeated_estimates(self, baseline: Any, samples: int, safe: float) -> None:
        """With a baseline its square is above that by the factor that the jackknife has for this distribution."""
        inputs = inputs_of(outer_parameters(), 1)
        torch.manual_seed(0)
        results = [hypergradient(inputs, None, ScoreFunction(samples, baseline))[0] for _ in range(1000 // samples)]
        h = torch.stack([r.gradients["choice"] for r in results])
        spread = h.var(0).sum().item()
        told = np.mean([r.diagnostics["standard_error"] ** 2 for r in results])
        assert told == pytest.approx(safe * spread, rel=0.3)

    def test_a_parameter_that_does_both_has_the_sum(self) -> None:
        """z ~ N(θ, 1), towards z + θ²: φ = s + a (z + θ²), of whose outer loss the expectation is known."""

        def loss(model: nn.Module, outer: dict[str, Tensor], given: Any) -> Tensor:
            theta = outer["theta"]
            return 0.5 * (model.value - draw(Normal(theta, 1.0)) - theta.square()).square()

        problem = BilevelProblem(loss, lambda m, o, b: 0.5 * (m.value - TARGET).square())
        theta = 0.7
        a, base = RATE, START * (1 - RATE) - TARGET
        slope_by_score = a * (base + a * (theta + theta**2))
        slope_by_value = 2 * theta * a * (base + a * (theta + theta**2))
        outer = {"theta": tensor(theta)}
        torch.manual_seed(0)
        results = [hypergradient(inputs_of(outer, 1, problem), None, ScoreFunction(20))[0] for _ in range(60)]
        h = np.array([r.gradients["theta"].item() for r in results])
        assert abs(h.mean() - slope_by_score - slope_by_value) < 3 * h.std(ddof=1) / math.sqrt(60)
        assert 3 * h.std(ddof=1) / math.sqrt(60) < min(abs(slope_by_score), abs(slope_by_value))

    def test_draws_of_the_outer_loss_count_too(self) -> None:
        """L_outer = φ z with z ~ Bernoulli(p): its derivative in the logit is φ p (1 - p)."""
        problem = BilevelProblem(
            lambda m, o, b: 0.5 * (m.value - o["gain"]).square(),
            lambda m, o, b: m.value * draw(Bernoulli(logits=o["logit"])),
        )
        outer = {"logit": tensor(0.4), "gain": tensor(2.0)}
        torch.manual_seed(0)
        result, _ = hypergradient(inputs_of(outer, 1, problem), None, ScoreFunction(300))
        p = 1 / (1 + math.exp(-0.4))
        truth = after([2.0], torch.tensor(0.0)).item() * p * (1 - p)
        error = result.diagnostics["standard_error"]
        assert abs(result.gradients["logit"].item() - truth) < 3 * error
        assert 3 * error < truth

    def test_the_reference_batch_is_taken_off_with_theta_held(self) -> None:
        """Its own draws have no score; the difference of both losses has."""

        def loss(model: nn.Module, outer: dict[str, Tensor], given: Any) -> Tensor:
            if given == "reference":
                return 0.5 * (model.value - 2.0).square() + 0.0 * draw(Normal(outer["gain"], 1.0))
            return inner_loss(model, outer, given)

        outer = outer_parameters()
        probabilities = outer["choice"].softmax(0)
        ends = torch.stack([after([goal], outer["gain"]) for goal in GOALS])
        gap = 0.5 * (ends - TARGET).square() - 0.5 * (ends - 2.0).square()
        (truth,) = torch.autograd.grad((probabilities * gap).sum(), [outer["choice"]])
        problem = BilevelProblem(loss, lambda m, o, b: 0.5 * (m.value - TARGET).square())
        torch.manual_seed(0)
        result, _ = hypergradient(inputs_of(outer, 1, problem), None, ScoreFunction(400), "reference")
        error = result.diagnostics["standard_error"]
        assert (result.gradients["choice"] - truth).norm() < 3 * error < truth.norm()


def test_a_mean_of_gradients_takes_their_place() -> None:
    """With a memory h is the score function of F(φ) + (m - v)ᵀ (φ - φ*), whose slope at φ* is the running mean m."""
    found = []
    for memory in (0.0, 0.9):
        model, outer = Weight(), outer_parameters()
        inner, still = torch.optim.SGD(model.parameters(), lr=RATE), torch.optim.SGD(outer.values(), lr=0.0)
        options = OuterStep(memory=memory, average=9)
        solver = BilevelSolver(PROBLEM, model, inner, outer, still, ScoreFunction(3), options, check=False)
        for call in range(2):
            torch.manual_seed(call)
            solver.step([None], None)
        found.append(solver.state_dict()["accumulator"]["sums"]["choice"])
    assert not torch.allclose(*found, rtol=1e-3)
    assert not any(h.requires_grad for h in found)
    # The second call alone, from what the first one remembered.
    model, outer = Weight(), outer_parameters()
    torch.manual_seed(0)
    first, step = hypergradient(inputs_of(outer, 1, model=model), None, ScoreFunction(3))
    v_first = step.parameters[0].item() - TARGET
    model.value.data.copy_(step.parameters[0])
    inputs = inputs_of(outer, 1, model=model)
    torch.manual_seed(1)
    plain, step = hypergradient(inputs, None, ScoreFunction(3))
    v = step.parameters[0].item() - TARGET
    m = (0.9 * v_first + v) / 1.9  # 0.1 each, the older one times 0.9, over 1 - 0.9²
    moved = BilevelProblem(inner_loss, lambda w, o, b: outer_loss(w, o, b) + (m - v) * w.value)
    torch.manual_seed(1)
    tilted, _ = hypergradient(replace(inputs, problem=moved), None, ScoreFunction(3))
    assert torch.allclose(found[1], first.gradients["choice"] + tilted.gradients["choice"], rtol=1e-9)
    assert torch.allclose(found[0], first.gradients["choice"] + plain.gradients["choice"], rtol=1e-9)


@dataclass
class Planned(Distribution):
    """A Bernoulli whose samples are planned, so that an estimate is known to the bit."""

    logit: Tensor
    plan: list[float]

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return torch.tensor(self.plan.pop(0), dtype=torch.float64)

    def log_prob(self, value: Tensor) -> Tensor:
        return value * self.logit - torch.nn.functional.softplus(self.logit)


@pytest.mark.parametrize("baseline", ["others", "none"])
def test_an_estimate_is_the_formula(baseline: Any) -> None:
    outer = {"logit": tensor(0.4)}
    drawn = [1.0, 0.0, 1.0, 1.0]
    # The step itself draws once; each trial draws once as the step did, and once for itself.
    plan = [0.0, *(z for value in drawn for z in (0.0, value))]
    problem = BilevelProblem(
        lambda m, o, b: 0.5 * (m.value - 2 * draw(Planned(o["logit"], plan))).square(),
        lambda m, o, b: 0.5 * (m.value - TARGET).square(),
    )
    result, _ = hypergradient(inputs_of(outer, 1, problem), None, ScoreFunction(4, baseline))
    values = np.array([0.5 * (after([2 * z], torch.tensor(0.0)).item() - TARGET) ** 2 for z in drawn])
    scores = np.array(drawn) - 1 / (1 + math.exp(-0.4))
    others = (values.sum() - values) / 3 if baseline == "others" else 0.0
    terms = (values - others) * scores
    assert result.gradients["logit"].item() == pytest.approx(terms.mean(), rel=1e-12)
    if baseline == "others":
        left_out = [np.cov(np.delete(values, i), np.delete(scores, i))[0, 1] for i in range(4)]
        terms = 4 * terms.mean() - 3 * np.array(left_out)
    assert result.diagnostics["standard_error"] == pytest.approx(terms.std(ddof=1) / 2, rel=1e-12)
    assert plan == []


def test_where_nothing_is_drawn_it_is_the_other_strategy() -> None:
    problem = BilevelProblem(
        lambda m, o, b: 0.5 * (m.value - o["gain"]).square(), lambda m, o, b: 0.5 * (m.value - TARGET).square()
    )
    outer = {"gain": tensor(0.4)}
    exact, _ = hypergradient(inputs_of(outer, 1, problem), None, Mixed())
    result, _ = hypergradient(inputs_of(outer, 1, problem), None, ScoreFunction())
    assert torch.equal(result.gradients["gain"], exact.gradients["gain"])
    assert result.diagnostics == {}


class Dropped(nn.Module):
    """A dropout within a part that is computed again in the backward pass, after a draw there."""

    def __init__(self, checkpoint: bool) -> None:
        super().__init__()
        self.linear, self.drop, self.checkpoint = nn.Linear(3, 3), nn.Dropout(0.5), checkpoint

    def forward(self, x: Tensor, logit: Tensor) -> Tensor:
        def part(given: Tensor) -> Tensor:
            return self.drop(torch.tanh(self.linear(given)) * (1 + draw(Bernoulli(logits=logit))))

        return torch.utils.checkpoint.checkpoint(part, x, use_reentrant=False) if self.checkpoint else part(x)


def test_what_is_computed_again_draws_the_same_and_counts_once() -> None:
    found = []
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    problem = BilevelProblem(
        lambda m, o, b: (m(x, o["logit"]) - x).square().mean(),
        lambda m, o, b: (m.linear(x) - x).square().mean(),
    )
    for checkpoint in (False, True):
        torch.manual_seed(1)
        model = Dropped(checkpoint).double()
        torch.manual_seed(2)
        outer = {"logit": tensor(0.2)}
        found.append(
            hypergradient(inputs_of(outer, 2, problem, model), None, ScoreFunction(4, strategy=Unrolled(2)))[0]
        )
    a, b = found
    assert a.gradients["logit"].item() == pytest.approx(b.gradients["logit"].item(), rel=1e-10)
    assert a.diagnostics["standard_error"] == pytest.approx(b.diagnostics["standard_error"], rel=1e-10)
    assert a.gradients["logit"].item() != 0


class TestTogether:
    """Three kinds of parameters in one solver: drawn, not differentiable, and differentiable."""

    @staticmethod
    def loss(model: nn.Module, outer: dict[str, Tensor], given: Any) -> Tensor:
        goal = torch.tensor(GOALS, dtype=torch.float64)[draw(Categorical(logits=outer["choice"]))]
        # Nothing differentiates through the stairs of the shift, fine as they are.
        shift = (outer["shift"].detach() * 1e9).round() / 1e9
        return 0.5 * (model.value - goal - outer["gain"] - shift).square()

    PROBLEM = BilevelProblem(loss, outer_loss)

    @staticmethod
    def outer() -> dict[str, Tensor]:
        return {"choice": tensor(0.4, -0.3, 0.1), "gain": tensor(0.15), "shift": tensor(-0.05)}

    @pytest.mark.parametrize(
        "strategy",
        [
            EvolutionStrategies(100, 1e-3, ("shift",), ScoreFunction(400)),
            ScoreFunction(400, strategy=EvolutionStrategies(100, 1e-3, ("shift",))),
        ],
        ids=["values around scores", "scores around values"],
    )
    def test_each_is_served_by_its_own(self, strategy: HypergradientStrategy) -> None:
        outer = self.outer()
        torch.manual_seed(4)
        result, _ = hypergradient(inputs_of(outer, 1, self.PROBLEM), None, strategy)
        known = {"choice": outer["choice"], "gain": (outer["gain"] + outer["shift"]).detach().requires_grad_()}
        (choice,) = torch.autograd.grad(expectation(known, 1), [known["choice"]])
        assert (result.gradients["choice"] - choice).norm() < 3 * result.diagnostics["standard_error"] < choice.norm()
        # For what the step drew, the derivatives in gain and shift are the same.
        gain, shift = result.gradients["gain"].item(), result.gradients["shift"].item()
        assert shift == pytest.approx(gain, abs=3 * abs(gain) * math.sqrt(2 / 100))

    def test_a_solver_moves_all_to_where_the_loss_is_least_and_resumes(self) -> None:
        """From goals that are drawn to the one nearest to the target, bit for bit with a break in between."""
        strategy = EvolutionStrategies(2, 1e-3, ("shift",), ScoreFunction(4))

        def solver() -> BilevelSolver:
            model, outer = Weight(), self.outer()
            inner = torch.optim.SGD(model.parameters(), lr=RATE)
            return BilevelSolver(self.PROBLEM, model, inner, outer, torch.optim.Adam(outer.values(), lr=0.1), strategy)

        torch.manual_seed(0)
        whole = solver()
        for _ in range(40):
            whole.step([None], None)
        middle = {name: _copied(part) for name, part in whole.state_dict().items()}
        stream = torch.get_rng_state()
        before = whole.outer["choice"].softmax(0)[1].item()
        reports = [whole.step([None], None) for _ in range(40)]
        resumed = solver()
        resumed.load_state_dict(middle)
        resumed.preflight(None, None)
        torch.set_rng_state(stream)
        assert [resumed.step([None], None) for _ in range(40)] == reports
        assert_identical(resumed.state_dict(), whole.state_dict())
        assert before > 1 / 3
        assert all(report.diagnostics["standard_error"] > 0 for report in reports[:3])


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    return [_copied(v) for v in value] if isinstance(value, list) else value


def solver_with(strategy: HypergradientStrategy, loss: Callable[..., Tensor] = inner_loss) -> BilevelSolver:
    model, outer = Weight(), outer_parameters()
    inner, outer_optimizer = torch.optim.SGD(model.parameters(), lr=RATE), torch.optim.SGD(outer.values(), lr=0.1)
    return BilevelSolver(BilevelProblem(loss, outer_loss), model, inner, outer, outer_optimizer, strategy)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"samples": 2}, "samples must be an integer of at least 3, got 2"),
            ({"baseline": "mean"}, "baseline must be one of others, none, got 'mean'"),
        ],
    )
    def test_options_out_of_range_are_refused(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=f"^{message}$"):
            ScoreFunction(**options)

    @pytest.mark.parametrize("strategy", [Mixed(), FiniteDifference(), EvolutionStrategies(names=("gain",))], ids=str)
    def test_a_distribution_that_no_strategy_serves_is_refused_before_the_first_step(
        self, strategy: HypergradientStrategy
    ) -> None:
        """Though the outer loss depends on the parameter too, so that it would have some hypergradient."""
        with pytest.raises(
            ValueError,
            match=r"^outer parameter choice sets a distribution that a loss draws from, and no derivative passes "
            r"through what is drawn; choose ScoreFunction\(strategy=...\), or EvolutionStrategies$",
        ):
            solver_with(strategy).step([None], None)

    @pytest.mark.parametrize("strategy", [ScoreFunction(3), EvolutionStrategies(2, 0.1, ("choice",))], ids=str)
    def test_what_serves_it_is_not(self, strategy: HypergradientStrategy) -> None:
        solver = solver_with(strategy)
        solver.step([None], None)
        assert solver.outer_steps == 1

    def test_a_parameter_that_is_neither_drawn_by_nor_used_is_refused(self) -> None:
        def loss(model: nn.Module, outer: dict[str, Tensor], given: Any) -> Tensor:
            return inner_loss(model, {**outer, "gain": outer["gain"].detach()}, given)

        with pytest.raises(ValueError, match=r"^outer parameter gain cannot be learned: "):
            solver_with(ScoreFunction(), loss).step([None], None)

    def test_draws_that_cannot_be_replayed_are_refused(self) -> None:
        random = np.random.default_rng(0)

        def loss(model: nn.Module, outer: dict[str, Tensor], given: Any) -> Tensor:
            return inner_loss(model, outer, given) + float(random.standard_normal()) * model.value

        with pytest.raises(ValueError, match=r"evaluated again for ScoreFunction .* take the draws from the batch$"):
            solver_with(ScoreFunction(), loss).step([None], None)
