"""`EvolutionStrategies`: the closed form along its own directions; unbiased where nothing differentiates."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from bilevel.identical import assert_identical
from support import problems
from support.problems import OPTIMISERS, Array, ClosedForm
from torch import Tensor, nn

from metasynth.bilevel import (
    BilevelProblem,
    BilevelSolver,
    EvolutionStrategies,
    FunctionalModel,
    Hypergradient,
    HypergradientStrategy,
    InnerUpdate,
    Mixed,
    OuterStep,
    StepInputs,
    Unrolled,
    hypergradient,
)
from metasynth.bilevel.strategies.evolution_strategies import directions_of

CASE = ClosedForm()
NARROW = 1e-5
"""A σ at which the closed form is a straight line but for 1e-9 of it."""


def computed(
    model: nn.Module, update: InnerUpdate, outer: dict[str, Tensor], strategy: HypergradientStrategy, seed: int = 0
) -> Hypergradient:
    """From a random state of its own, which the closed form draws nothing from."""
    torch.manual_seed(seed)
    batches = [CASE.inner_batch(k) for k in range(strategy.inner_steps)]
    inputs = StepInputs(CASE.problem(), FunctionalModel(model), update, outer, batches)
    return hypergradient(inputs, CASE.outer_batch(), strategy)[0]


def flat(gradients: Mapping[str, Tensor | None]) -> Array:
    return torch.cat([g for g in gradients.values() if g is not None]).numpy()


def its_directions(outer: dict[str, Tensor], pairs: int, seed: int = 0) -> Array:
    """The ε of a call from that random state, (pairs, 5)."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
    return torch.stack([torch.cat(directions_of(list(outer.values()), generator)) for _ in range(pairs)]).numpy()


class TestClosedForm:
    """Along its directions F is known: h is the mean of ε (ε · dF/dθ), whatever the optimiser."""

    @pytest.mark.usefixtures("_scalars_in_double_precision")
    @pytest.mark.parametrize("warm_steps", [0, 4], ids=["cold", "warm"])
    @pytest.mark.parametrize("around", problems.AROUND)
    @pytest.mark.parametrize("optimiser", OPTIMISERS)
    @pytest.mark.parametrize("steps", [1, 3])
    def test_it_is_the_closed_form_along_its_directions(
        self, steps: int, optimiser: str, around: str, warm_steps: int
    ) -> None:
        model, outer = CASE.model(), CASE.outer()
        update = InnerUpdate(OPTIMISERS[optimiser](model.parameters()), **problems.AROUND[around])
        CASE.native_steps(model, update, outer, [CASE.inner_batch(50 + index) for index in range(warm_steps)])
        strategy = EvolutionStrategies(3, NARROW, strategy=Unrolled(steps))
        result = computed(model, update, outer, strategy)
        batches = [CASE.inner_batch(k) for k in range(steps)]
        _, indirect, direct = CASE.reference(model, update, outer, batches, CASE.outer_batch())
        directions = its_directions(outer, 3)
        terms = directions * (directions @ (direct + indirect))[:, None]
        assert np.linalg.norm(flat(result.gradients) - terms.mean(0)) < 1e-6 * np.linalg.norm(indirect)
        spread = math.sqrt(terms.var(0, ddof=1).sum() / 3)
        assert result.diagnostics == {"standard_error": pytest.approx(spread, rel=1e-5)}

    @pytest.mark.parametrize("names", [("shift",), ("stiffness",)])
    @pytest.mark.parametrize("strategy", [Mixed(), Unrolled(3), Unrolled(4, remat=True, mean_of=2)], ids=str)
    def test_each_parameter_is_served_by_its_own(self, strategy: HypergradientStrategy, names: tuple[str]) -> None:
        """Those not named have the other strategy's hypergradient, to the bit."""
        model, outer = CASE.model(), CASE.outer()
        update = InnerUpdate(torch.optim.Adam(model.parameters(), lr=0.05, eps=1e-2))
        both = computed(model, update, outer, EvolutionStrategies(2, NARROW, names, strategy)).gradients
        alone = computed(model, update, outer, strategy).gradients
        (other,) = outer.keys() - set(names)
        assert torch.equal(both[other], alone[other])
        directions = its_directions({names[0]: outer[names[0]]}, 2)
        expected = (directions * (directions @ alone[names[0]].numpy())[:, None]).mean(0)
        assert np.allclose(both[names[0]].numpy(), expected, rtol=1e-5, atol=1e-7)

    def test_it_follows_the_mean_of_iterates(self) -> None:
        """As `Unrolled` of the same window does, on which it looks as it is told to."""
        model, outer = CASE.model(), CASE.outer()
        update = InnerUpdate(torch.optim.SGD(model.parameters(), lr=0.1))
        found = []
        for n in (1, 3):
            way = Unrolled(5, mean_of=n)
            by_values = flat(computed(model, update, outer, EvolutionStrategies(4, NARROW, strategy=way)).gradients)
            directions = its_directions(outer, 4)
            exact = flat(computed(model, update, outer, way).gradients)
            assert np.allclose(by_values, (directions * (directions @ exact)[:, None]).mean(0), rtol=1e-5, atol=1e-8)
            found.append(exact)
        assert not np.allclose(*found, rtol=1e-2)

    def test_the_reference_batch_is_taken_off_with_theta_held(self) -> None:
        model, outer = CASE.model(), CASE.outer()
        update = InnerUpdate(torch.optim.SGD(model.parameters(), lr=0.1))

        def with_reference(strategy: HypergradientStrategy) -> Array:
            torch.manual_seed(0)
            inputs = StepInputs(CASE.problem(), FunctionalModel(model), update, outer, [CASE.inner_batch(0)])
            return flat(hypergradient(inputs, CASE.outer_batch(), strategy, CASE.inner_batch(7))[0].gradients)

        directions, exact = its_directions(outer, 3), with_reference(Mixed())
        expected = (directions * (directions @ exact)[:, None]).mean(0)
        assert np.allclose(with_reference(EvolutionStrategies(3, NARROW)), expected, rtol=1e-6)
        assert not np.allclose(exact, flat(computed(model, update, outer, Mixed()).gradients), rtol=1e-2)

    def test_a_mean_of_gradients_takes_their_place(self) -> None:
        """With a memory, the slope of F at φ* is the running mean, as it is for every strategy."""
        found = {}
        for name, strategy in (("exact", Mixed()), ("values", EvolutionStrategies(3, NARROW))):
            model, outer = CASE.model(), CASE.outer()
            inner = torch.optim.SGD(model.parameters(), lr=0.1)
            still = torch.optim.SGD(outer.values(), lr=0.0)
            solver = BilevelSolver(
                CASE.problem(), model, inner, outer, still, strategy, OuterStep(memory=0.9, average=2), check=False
            )
            solver.step([CASE.inner_batch(0)], CASE.outer_batch(0))
            torch.manual_seed(0)
            inputs = StepInputs(
                CASE.problem(), FunctionalModel(model), InnerUpdate(inner), outer, [CASE.inner_batch(1)]
            )
            combine = solver._state.cotangents.add
            result, _ = hypergradient(inputs, CASE.outer_batch(1), strategy, combine=combine)
            found[name] = flat(result.gradients)
        directions = its_directions(CASE.outer(), 3)
        expected = (directions * (directions @ found["exact"])[:, None]).mean(0)
        assert np.allclose(found["values"], expected, rtol=1e-6)


class Weight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))


RATE, TARGET = 0.25, 1.1


def staircase_loss(model: nn.Module, outer: dict[str, Tensor], given: Any) -> Tensor:
    """½ (φ - k)², k the nearest whole number to θ: nothing differentiates through it."""
    return 0.5 * (model.value - outer["theta"].detach().round()).square()


STAIRCASE = BilevelProblem(staircase_loss, lambda model, outer, given: 0.5 * (model.value - TARGET).square())


def after(k: Array, steps: int) -> Array:
    """The outer loss after steps of gradient descent from .3 towards k."""
    phi = k + (0.3 - k) * (1 - RATE) ** steps
    return 0.5 * (phi - TARGET) ** 2


def smoothed_slope(theta: float, sigma: float, steps: int) -> float:
    """d/dθ Σ_k P(k - ½ < θ + σε < k + ½) L(k)."""
    k = np.arange(-40, 41)
    density = [
        np.exp(-(((k + side - theta) / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi)) for side in (0.5, -0.5)
    ]
    return float(((density[1] - density[0]) * after(k, steps)).sum())


class TestStaircase:
    @staticmethod
    def estimate(strategy: EvolutionStrategies, theta: float) -> tuple[float, float]:
        model = Weight()
        update = InnerUpdate(torch.optim.SGD(model.parameters(), lr=RATE))
        outer = {"theta": torch.tensor(theta, dtype=torch.float64, requires_grad=True)}
        torch.manual_seed(1)
        inputs = StepInputs(STAIRCASE, FunctionalModel(model), update, outer, [None] * strategy.inner_steps)
        result, _ = hypergradient(inputs, None, strategy)
        return result.gradients["theta"].item(), result.diagnostics["standard_error"]

    @pytest.mark.parametrize(("theta", "sigma"), [(1.2, 0.5), (4.0, 1.0), (-2.6, 0.7)])
    @pytest.mark.parametrize("steps", [1, 4])
    def test_it_is_unbiased_for_the_smoothed_loss(self, steps: int, theta: float, sigma: float) -> None:
        truth = smoothed_slope(theta, sigma, steps)
        h, error = self.estimate(EvolutionStrategies(400, sigma, strategy=Unrolled(steps)), theta)
        assert abs(h - truth) < 3 * error
        assert 3 * error < 0.5 * abs(truth)

    def test_the_standard_error_is_that_of_repeated_estimates(self) -> None:
        model = Weight()
        update = InnerUpdate(torch.optim.SGD(model.parameters(), lr=RATE))
        outer = {"theta": torch.tensor(1.2, dtype=torch.float64, requires_grad=True)}
        torch.manual_seed(0)
        inputs = StepInputs(STAIRCASE, FunctionalModel(model), update, outer, [None])
        results = [hypergradient(inputs, None, EvolutionStrategies(4, 0.5))[0] for _ in range(150)]
        spread = np.var([r.gradients["theta"].item() for r in results], ddof=1)
        told = np.mean([r.diagnostics["standard_error"] ** 2 for r in results])
        assert told == pytest.approx(spread, rel=0.3)

    def test_a_solver_finds_the_step_that_is_best(self) -> None:
        """Of where the steps lead to, that of k = 1 is nearest to 1.1: θ ends within its stair."""
        model = Weight()
        outer = {"theta": torch.tensor(4.0, dtype=torch.float64, requires_grad=True)}
        solver = BilevelSolver(
            STAIRCASE,
            model,
            torch.optim.SGD(model.parameters(), lr=RATE),
            outer,
            torch.optim.Adam(outer.values(), lr=0.1),
            EvolutionStrategies(8, 0.7, strategy=Unrolled(3)),
        )
        torch.manual_seed(0)
        for _ in range(80):
            solver.step([None] * 3, None)
        assert outer["theta"].round().item() == 1.0


class Noisy(nn.Module):
    """A dropout and a normalisation between: all random draws and buffers have to be those of the step."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.drop, self.last = nn.Dropout(0.5), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(self.norm(self.first(x)).relu()))


class Scale(nn.Module):
    """An augmenter with a buffer and draws of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.7))
        self.inner = nn.Linear(1, 1)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.inner((x * self.gain + 0.3 * torch.randn_like(x)).unsqueeze(-1)).squeeze(-1)


def noisy_loss(model: nn.Module, outer: nn.Module, rows: Tensor) -> Tensor:
    x = rows[:, :3]
    return (model(outer(x)).squeeze(1) - rows[:, 3]).square().mean()


NOISY = BilevelProblem(noisy_loss, noisy_loss)


def noisy_solver(strategy: HypergradientStrategy, build: int = 0) -> BilevelSolver:
    torch.manual_seed(build)
    model, outer = Noisy().double(), Scale().double()
    inner = torch.optim.Adam(model.parameters(), lr=0.02)
    return BilevelSolver(NOISY, model, inner, outer, torch.optim.Adam(outer.parameters(), lr=0.02), strategy)


def rows(seed: int) -> Tensor:
    return torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class TestReplay:
    def test_draws_and_buffers_are_those_of_the_step(self) -> None:
        """Otherwise the difference over 2σ = 2e-6 would be of the draws, a million times the derivative."""
        solver = noisy_solver(EvolutionStrategies(3, 1e-6, ("gain",), Unrolled(2)))
        torch.manual_seed(5)
        inputs = StepInputs(NOISY, FunctionalModel(solver.model), solver.update, solver.outer, [rows(0), rows(1)])
        result, _ = hypergradient(inputs, rows(2), solver.strategy, rows(3))
        torch.manual_seed(5)
        exact, _ = hypergradient(inputs, rows(2), Unrolled(2), rows(3))
        # One parameter: each term is ε² times the derivative.
        generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        squares = [directions_of([solver.outer.gain], generator)[0].square() for _ in range(3)]
        ratio = result.gradients["gain"] / exact.gradients["gain"]
        assert ratio.item() == pytest.approx(torch.stack(squares).mean().item(), rel=1e-6)
        for name in ("inner.weight", "inner.bias"):
            assert torch.equal(result.gradients[name], exact.gradients[name])

    def test_the_step_is_the_other_strategys(self) -> None:
        """Weights, buffers (of the augmenter too) and losses: what trials move is put back."""
        states = []
        for strategy in (Unrolled(2), EvolutionStrategies(2, 0.1, ("gain",), Unrolled(2))):
            solver = noisy_solver(strategy)
            torch.manual_seed(3)
            report = solver.step([rows(0), rows(1)], rows(2), rows(3))
            state = solver.state_dict()
            outers = {name: value for name, value in state["outer"].items() if name == "passes"}
            states.append((state["model"], state["optimizer"], outers, report.inner_losses, report.outer_loss))
        assert_identical(*states)

    def test_without_another_strategy_the_step_is_plain_training(self) -> None:
        solver, native = noisy_solver(EvolutionStrategies(2, 0.1, strategy=Unrolled(2))), noisy_solver(Mixed())
        torch.manual_seed(3)
        solver.step([rows(0), rows(1)], rows(2))
        torch.manual_seed(3)
        native.inner_step(rows(0))
        native.inner_step(rows(1))
        for name, value in native.model.state_dict().items():
            assert torch.allclose(solver.model.state_dict()[name], value, rtol=1e-12, atol=1e-15), name

    def test_resumed_is_uninterrupted(self) -> None:
        """The directions come from torch's global stream, which a run keeps with the solver's state."""
        strategy = EvolutionStrategies(2, 0.1, ("gain",), Unrolled(2))

        def advance(solver: BilevelSolver, calls: range) -> list[Any]:
            return [solver.step([rows(9 * c), rows(9 * c + 1)], rows(9 * c + 2), rows(9 * c + 3)) for c in calls]

        whole = noisy_solver(strategy)
        torch.manual_seed(7)
        advance(whole, range(2))
        state, stream = whole.state_dict(), torch.get_rng_state()
        saved = {name: _copied(part) for name, part in state.items()}
        rest = advance(whole, range(2, 4))
        resumed = noisy_solver(strategy, build=1)
        resumed.load_state_dict(saved)
        resumed._unchecked = False
        torch.set_rng_state(stream)
        assert advance(resumed, range(2, 4)) == rest
        assert_identical(resumed.state_dict(), whole.state_dict())

    def test_an_error_in_a_trial_leaves_the_outer_parameters_as_they_were(self) -> None:
        outer = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

        def loss(model: nn.Module, theta: Tensor, given: Any) -> Tensor:
            if theta.item() != 1.0:
                raise ValueError("no generator has this setting")
            return (model.value - theta.detach()).square()

        model = Weight()
        inputs = StepInputs(
            BilevelProblem(loss, loss),
            FunctionalModel(model),
            InnerUpdate(torch.optim.SGD(model.parameters(), lr=0.1)),
            outer,
            [None],
        )
        with pytest.raises(ValueError, match=r"^no generator has this setting$"):
            hypergradient(inputs, None, EvolutionStrategies())
        assert outer.item() == 1.0


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return type(value)({k: _copied(v) for k, v in value.items()})
    return [_copied(v) for v in value] if isinstance(value, list) else value


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"pairs": 1}, "pairs must be an integer of at least 2, got 1"),
            ({"pairs": 2.5}, "pairs must be an integer of at least 2, got 2.5"),
            ({"sigma": 0.0}, "sigma must be a finite number above 0, got 0.0"),
            ({"sigma": math.nan}, "sigma must be a finite number above 0, got nan"),
            ({"names": "nodes"}, "names must be a tuple of at least one name, or None for all, got 'nodes'"),
            ({"names": ()}, r"names must be a tuple of at least one name, or None for all, got \(\)"),
        ],
    )
    def test_options_out_of_range_are_refused(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=f"^{message}$"):
            EvolutionStrategies(**options)

    def test_an_unknown_name_is_refused_before_the_first_step(self) -> None:
        solver = noisy_solver(EvolutionStrategies(names=("inner", "gains")))
        with pytest.raises(
            ValueError,
            match=r"^names of EvolutionStrategies must be of learned outer parameters \(gain, inner.weight, "
            r"inner.bias\), got 'gains'$",
        ):
            solver.preflight(rows(0), rows(1))

    def test_the_name_of_a_module_is_that_of_all_its_parameters(self) -> None:
        strategy = EvolutionStrategies(names=("inner",))
        assert strategy.differentiated(["gain", "inner.weight", "inner.bias", "innermost"]) == ["gain", "innermost"]
        assert EvolutionStrategies().differentiated(["gain"]) == []

    def test_draws_that_cannot_be_replayed_are_refused(self) -> None:
        random = np.random.default_rng(0)

        def loss(model: nn.Module, theta: Tensor, given: Any) -> Tensor:
            return (model.value - theta.detach() - float(random.standard_normal())).square()

        model, outer = Weight(), torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        solver = BilevelSolver(
            BilevelProblem(loss, loss),
            model,
            torch.optim.SGD(model.parameters(), lr=0.1),
            outer,
            torch.optim.SGD([outer], lr=0.1),
            EvolutionStrategies(),
        )
        with pytest.raises(
            ValueError, match=r"evaluated again for EvolutionStrategies .* take the draws from the batch$"
        ):
            solver.step([None], None)
