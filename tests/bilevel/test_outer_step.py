"""Averaging, clipping by the running scale, and the running mean of v."""

import math

import pytest
import torch
from bilevel.segmentation import PROBLEM, batch, segmenter
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from metasynth.augment.noise import GaussianNoise
from metasynth.bilevel.outer_step import Accumulator, CotangentMean, OuterStep
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver, StepReport

norms = st.floats(1e-6, 1e6)


def one(value: float) -> dict[str, Tensor | None]:
    return {"a": torch.tensor(value, dtype=torch.float64)}


def fed(options: OuterStep, values: list[float]) -> list[float]:
    """What comes out of an accumulator of one entry, where something does."""
    accumulator = Accumulator(options, ["a"])
    results = [accumulator.add(one(value)) for value in values]
    return [r["a"].item() for r in results if r is not None]


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), st.integers(1, 5))
def test_average_is_the_mean_of_each_block(values: list[float], average: int) -> None:
    blocks = [values[i : i + average] for i in range(0, len(values) - average + 1, average)]
    assert fed(OuterStep(average=average), values) == pytest.approx(
        [sum(block) / average for block in blocks], rel=1e-9, abs=1e-9
    )


def test_average_over_entries_that_come_and_go() -> None:
    accumulator = Accumulator(OuterStep(average=2), ["a", "b", "c"])
    assert accumulator.add({"a": torch.tensor(1.0), "b": None, "c": None}) is None
    mean = accumulator.add({"a": torch.tensor(3.0), "b": torch.tensor(4.0), "c": None})
    assert mean == {"a": torch.tensor(2.0), "b": torch.tensor(2.0), "c": None}


@given(st.lists(norms, min_size=1, max_size=30), st.floats(1.1, 10), st.floats(0, 0.99))
def test_clip_formula(values: list[float], clip: float, decay: float) -> None:
    found = fed(OuterStep(clip=clip, clip_decay=decay), values)
    scale = values[0]
    for value, passed in zip(values, found, strict=True):
        limited = min(value, clip * scale)
        assert passed == pytest.approx(limited, rel=1e-9)
        scale = decay * scale + (1 - decay) * limited


def test_norm_is_over_all_entries_and_direction_is_kept() -> None:
    accumulator = Accumulator(OuterStep(clip=2), ["a", "b"])
    accumulator.add({"a": torch.tensor([0.6, 0.0]), "b": torch.tensor(0.8)})
    spike = accumulator.add({"a": torch.tensor([0.0, 300.0]), "b": torch.tensor(-400.0)})
    assert torch.allclose(spike["a"], torch.tensor([0.0, 1.2]))
    assert torch.allclose(spike["b"], torch.tensor(-1.6))


def test_a_spike_hardly_moves_the_scale() -> None:
    accumulator = Accumulator(OuterStep(clip=3), ["a"])
    for _ in range(50):
        accumulator.add(one(1.0))
    assert accumulator.add(one(1e6))["a"].item() == pytest.approx(3.0)
    assert accumulator.state_dict()["scale"] == pytest.approx(1 + 0.05 * 2)
    assert accumulator.add(one(1e6))["a"].item() < 3.5


def test_the_limit_follows_a_falling_scale() -> None:
    found = fed(OuterStep(clip=3), [math.exp(-0.02 * t) for t in range(300)] + [1.0])
    assert found[-1] < 0.02


def test_a_first_hypergradient_of_zero_does_not_block_what_follows() -> None:
    assert fed(OuterStep(clip=2), [0.0, 5.0]) == [0.0, 5.0]


@pytest.mark.parametrize("nothing", [0.0, 1e-310, 5e-324])
def test_zeros_say_nothing_of_the_scale(nothing: float) -> None:
    """Neither before the first draw nor between others: what follows is as if they had not been."""
    drawn, options = [5.0, 4.0, 100.0, 6.0, 7.0], OuterStep(clip=2.0, clip_decay=0.5)
    alone, between = Accumulator(options, ["a"]), Accumulator(options, ["a"])
    for _ in range(40):
        assert between.add(one(nothing)) == one(nothing)
    assert between.state_dict()["scale"] is None
    for value in drawn:
        assert between.add(one(value)) == alone.add(one(value))
        assert between.add(one(nothing)) == one(nothing)
        assert between.state_dict() == alone.state_dict()
    assert alone.state_dict()["scale"] == 0.5 * (0.5 * (0.5 * (0.5 * 5 + 0.5 * 4) + 0.5 * 9) + 0.5 * 6) + 0.5 * 7


def test_draws_after_a_first_one_of_zero_pass_as_they_are() -> None:
    torch.manual_seed(0)
    draws = torch.empty(200, dtype=torch.float64).uniform_(0.5, 1.5).tolist()
    assert fed(OuterStep(clip=3.0), [0.0, *draws]) == [0.0, *draws]


def test_a_state_saved_after_a_first_one_of_zero_goes_on() -> None:
    """Which was once kept as a scale of zero."""
    accumulator = Accumulator(OuterStep(clip=3.0), ["a"])
    accumulator.load_state_dict({"sums": {"a": None}, "count": 0, "scale": 0.0})
    assert [accumulator.add(one(value))["a"].item() for value in (2.0, 6.0)] == [2.0, 6.0]


@pytest.mark.parametrize(("value", "scale"), [(1e-30, 1e-30), (1e-40, None), (0.0, None), (3e20, 3e20)])
def test_squares_that_leave_single_precision(value: float, scale: float | None) -> None:
    """Of a normal number they may be zero or infinite; a norm that is no normal number is none."""
    accumulator = Accumulator(OuterStep(clip=3.0), ["a"])
    given = torch.tensor([value], dtype=torch.float32)
    assert torch.equal(accumulator.add({"a": given})["a"], given)
    assert accumulator.state_dict()["scale"] == (None if scale is None else pytest.approx(scale, rel=1e-6))
    if scale is not None:
        assert accumulator.add({"a": 100 * given})["a"].item() == pytest.approx(3 * value, rel=1e-6)


def test_clipping_is_not_sign_descent() -> None:
    """Typical draws pass unchanged, so a Gaussian hypergradient keeps the direction and the size of its mean."""
    torch.manual_seed(0)
    mean = torch.tensor([0.3, -0.1], dtype=torch.float64)
    draws = mean + torch.randn(20_000, 2, dtype=torch.float64)
    accumulator = Accumulator(OuterStep(clip=4), ["a"])
    passed = torch.stack([accumulator.add({"a": draw})["a"] for draw in draws])
    assert (passed == draws).all(dim=1).double().mean() > 0.99
    found = passed.mean(dim=0)
    assert torch.nn.functional.cosine_similarity(found, mean, dim=0) > 0.99
    assert found.norm() == pytest.approx(mean.norm().item(), rel=0.1)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), st.floats(0.01, 0.99))
def test_memory_formula(values: list[float], memory: float) -> None:
    running, m = CotangentMean(memory), 0.0
    for t, value in enumerate(values, start=1):
        (found, nothing) = running.add([torch.tensor(value, dtype=torch.float64), None])
        m = memory * m + (1 - memory) * value
        assert nothing is None
        assert found.item() == pytest.approx(m / (1 - memory**t), rel=1e-7, abs=1e-7)


def test_memory_of_an_entry_that_comes_and_goes() -> None:
    """A missing entry counts as zero."""
    running, with_zeros = CotangentMean(0.5), CotangentMean(0.5)
    for value in (None, 2.0, None, 3.0, None):
        (found,) = running.add([None if value is None else torch.tensor(value)])
        (expected,) = with_zeros.add([torch.tensor(value or 0.0)])
    assert found == expected


def test_no_memory_is_exact() -> None:
    v = torch.randn(4)
    (found, nothing) = CotangentMean(0.0).add([v, None])
    assert found is v
    assert nothing is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"average": 0}, "average must be an integer of at least 1, got 0"),
        ({"average": 1.5}, "average must be an integer of at least 1, got 1.5"),
        ({"clip": 1}, r"clip must be above 1 .* got 1"),
        ({"clip": math.nan}, r"clip must be above 1 .* got nan"),
        ({"clip_decay": 1.0}, r"clip_decay must be in \[0, 1\), got 1.0"),
        ({"memory": -0.1}, r"memory must be in \[0, 1\), got -0.1"),
        ({"memory": math.nan}, r"memory must be in \[0, 1\), got nan"),
    ],
)
def test_bad_options_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OuterStep(**options)


def solver_with(options: OuterStep | None) -> tuple[BilevelSolver, GaussianNoise]:
    model, outer = segmenter(), GaussianNoise(0.2).double()
    inner = torch.optim.Adam(model.parameters(), lr=1e-2)
    return BilevelSolver(
        PROBLEM, model, inner, outer, torch.optim.SGD(outer.parameters(), lr=1.0), outer_step=options
    ), outer


def test_the_solver_steps_the_outer_parameters_by_the_mean() -> None:
    solver, outer = solver_with(OuterStep(average=3))
    start = outer.raw_sigma.item()
    reports: list[StepReport] = []
    values = []
    for index in range(3):
        assert outer.raw_sigma.item() == start
        reports.append(solver.step([batch(index)], batch(50 + index)))
        values.append(reports[-1].hypergradient_norm)
    assert [r.outer_stepped for r in reports] == [False, False, True]
    assert [(r.inner_steps, r.outer_steps) for r in reports] == [(1, 0), (2, 0), (3, 1)]
    assert abs(outer.raw_sigma.item() - start) <= sum(values) / 3 + 1e-12
    assert outer.raw_sigma.item() != start
    assert outer.raw_sigma.grad is None

    single, alone = solver_with(None)
    moves = []
    for index in range(3):
        with torch.no_grad():
            alone.raw_sigma.fill_(start)
        single.step([batch(index)], batch(50 + index))
        moves.append(alone.raw_sigma.item() - start)
    assert outer.raw_sigma.item() - start == pytest.approx(sum(moves) / 3, rel=1e-9)


def test_memory_pulls_back_the_running_mean_of_v() -> None:
    """On a quadratic: φ* = φ + lr θ, so h = lr m with m the running mean of v = φ* - t."""
    problem = BilevelProblem(lambda m, o, b: -(o * m.weight).sum(), lambda m, o, b: 0.5 * (m.weight - b).square().sum())
    model = torch.nn.Linear(1, 1, bias=False).double()
    outer = torch.zeros((), dtype=torch.float64, requires_grad=True)
    solver = BilevelSolver(
        problem,
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        outer,
        torch.optim.SGD([outer], lr=0.0),
        outer_step=OuterStep(memory=0.8),
        check=False,
    )
    m = 0.0
    for t, target in enumerate((3.0, -2.0, 7.0), start=1):
        v = model.weight.item() - target
        m = 0.8 * m + 0.2 * v
        report = solver.step([None], target)
        assert report.hypergradient_norm == pytest.approx(abs(0.1 * m / (1 - 0.8**t)), rel=1e-12)


def test_a_solver_says_when_a_hypergradient_is_due() -> None:
    due = [OuterStep(warmup=3, every=2).is_due(step) for step in range(8)]
    assert due == [False, False, False, True, False, True, False, True]
    model, outer = nn.Linear(1, 1), torch.tensor(1.0, requires_grad=True)
    problem = BilevelProblem(lambda m, o, b: (o * m(b)).square().mean(), lambda m, o, b: (m(b) - 1).square().mean())
    solver = BilevelSolver(
        problem,
        model,
        torch.optim.SGD(model.parameters(), lr=0.01),
        outer,
        torch.optim.SGD([outer], lr=0.01),
        outer_step=OuterStep(warmup=3, every=2),
    )
    taken = []
    for _ in range(8):
        taken.append(solver.is_due)
        batch = torch.ones(2, 1)
        report = solver.step([batch], batch) if solver.is_due else solver.inner_step(batch)
        assert (report.outer_loss is not None) == taken[-1]
    assert taken == due
    assert solver.outer_steps == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup": -1}, "warmup must be an integer of at least 0, got -1"),
        ({"every": 0}, "every must be an integer of at least 1, got 0"),
        ({"every": 1.5}, "every must be an integer of at least 1, got 1.5"),
    ],
)
def test_when_a_hypergradient_is_due_is_checked(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OuterStep(**options)
