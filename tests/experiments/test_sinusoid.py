"""Few-shot sinusoid regression: the meta-gradient is right, and the start it finds adapts in five steps."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from metasynth.experiments.sinusoid import EXPERIMENT
from metasynth.experiments.sinusoid.problem import Offsets, Start, draw, make_problem
from metasynth.experiments.sinusoid.settings import SinusoidConfig
from torch import Tensor

from metasynth.bilevel.hypergradient import hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.unrolled import Unrolled
from metasynth.bilevel.update.inner_update import InnerUpdate
from metasynth.run import execute
from metasynth.running.seeding import generator_for

# Ten points and a smaller network: a task is well determined, so that a few hundred steps are enough to see it.
SMALL = ("widths=20,20", "shots=10", "steps=300", "tasks=10", "test_tasks=100", "outer_lr=0.01")


def results(out: Path) -> dict[str, dict[str, Any]]:
    rows = json.loads((out / "results.json").read_text())["rows"]
    return {row["start"]: row for row in rows}


def test_learned_starts_adapt_where_the_random_one_does_not(tmp_path: Path) -> None:
    out = tmp_path / "run"
    execute(EXPERIMENT, out, overrides=SMALL, device="cpu", threads=1, quiet=True)
    rows = results(out)
    assert list(rows) == ["random", "maml", "first-order"]
    assert rows["maml"]["after"] < 0.4 * rows["random"]["before"]
    assert rows["maml"]["after"] < 0.5 * rows["maml"]["before"]
    assert rows["first-order"]["after"] < 0.7 * rows["random"]["before"]
    assert rows["random"]["after"] > 0.7 * rows["random"]["before"]
    assert {path.name for path in (out / "figures").iterdir()} == {"steps.png", "fits.png"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_quick_preset_is_below_a_tenth_of_the_untrained_start(tmp_path: Path, seed: int) -> None:
    execute(EXPERIMENT, tmp_path / "run", seed=seed, device="cpu", threads=1, quiet=True)
    rows = results(tmp_path / "run")
    assert rows["maml"]["after"] < 0.1 * rows["random"]["before"]


def test_the_same_seed_gives_the_same_results(tmp_path: Path) -> None:
    tiny = ("steps=3", "tasks=2", "test_tasks=4", "widths=5")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        execute(EXPERIMENT, tmp_path / name, overrides=tiny, seed=seed, device="cpu", threads=1, quiet=True)
    assert results(tmp_path / "a") == results(tmp_path / "b") != results(tmp_path / "c")


def adapted_loss(start: Start, tasks: list[tuple[tuple[Tensor, Tensor], ...]], lr: float, steps: int) -> Tensor:
    """MAML as Finn et al. write it: each task by itself, gradient steps on the network's weights."""
    total = torch.zeros((), dtype=torch.float64)

    def forward(weights: list[Tensor], x: Tensor) -> Tensor:
        for layer in range(0, len(weights), 2):
            x = (torch.relu(x) if layer else x) @ weights[layer] + weights[layer + 1]
        return x

    for (x, y), (x_query, y_query) in tasks:
        weights = list(start.weights)
        for _ in range(steps):
            loss = (forward(weights, x) - y).square().mean()
            gradients = torch.autograd.grad(loss, weights, create_graph=True)
            # With weights θ + α φ and φ descending at rate lr, the weights themselves descend at α² lr.
            rates = lr * (2 * start.log_scales).exp()
            weights = [w - r * g for w, r, g in zip(weights, rates, gradients, strict=True)]
        total = total + (forward(weights, x_query) - y_query).square().mean()
    return total / len(tasks)


def make_tasks() -> tuple[Start, list[tuple[Tensor, Tensor]]]:
    start = Start((6, 5), True, generator_for(0, "start")).double()
    start.log_scales.data.copy_(torch.linspace(-0.4, 0.4, 6))
    points = draw(3, (5, 4), generator_for(0, "tasks"), "cpu")
    return start, [(x.double(), y.double()) for x, y in points]


def meta_gradient(first_order: bool) -> dict[str, Tensor]:
    start, (support, query) = make_tasks()
    model = FunctionalModel(Offsets(start, 3))
    inner = torch.optim.SGD(model.model.parameters(), lr=0.02)
    problem = make_problem(first_order)
    result, _ = hypergradient(StepInputs(problem, model, InnerUpdate(inner), start, [support] * 3), query, Unrolled(3))
    return {name: g for name, g in result.gradients.items() if g is not None}


def test_the_meta_gradient_is_that_of_the_textbook() -> None:
    start, (support, query) = make_tasks()
    tasks = [((support[0][t], support[1][t]), (query[0][t], query[1][t])) for t in range(3)]
    named = dict(start.named_parameters())
    expected = torch.autograd.grad(adapted_loss(start, tasks, 0.02, 3), list(named.values()))
    found = meta_gradient(first_order=False)
    assert found.keys() == named.keys()
    for name, gradient in zip(named, expected, strict=True):
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)


def test_first_order_leaves_something_out() -> None:
    exact, first = meta_gradient(first_order=False), meta_gradient(first_order=True)
    assert exact.keys() == first.keys()
    assert all(not torch.allclose(exact[name], first[name], rtol=1e-3) for name in exact)


def test_tasks_are_sinusoids_of_the_stated_range() -> None:
    (few, many) = draw(2000, (2, 50), generator_for(0, "tasks"), "cpu")
    assert few[0].shape == few[1].shape == (2000, 2, 1)
    assert -5 <= many[0].min() < -4.9 < 4.9 < many[0].max() <= 5
    amplitude = many[1].abs().amax(dim=1)
    assert amplitude.max() <= 5
    assert amplitude.median() == pytest.approx(2.5, abs=0.3)
    # A sin(x + p) is A cos(p) sin(x) + A sin(p) cos(x), with sin(p) >= 0; both points of `few` lie on it.
    basis = torch.stack([many[0].sin(), many[0].cos()], dim=-1).squeeze(2).double()
    coefficients = torch.linalg.lstsq(basis, many[1].double()).solution
    assert coefficients[:, 1].min() > -1e-4
    fit = torch.stack([few[0].sin(), few[0].cos()], dim=-1).squeeze(2).double() @ coefficients
    torch.testing.assert_close(fit, few[1].double(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"shots": 0}, "shots must be positive, got 0"),
        ({"inner_lr": float("nan")}, "inner_lr must be positive, got nan"),
        ({"clip": 1.0}, "clip must be above 1, got 1.0"),
        ({"widths": (4, 0)}, "widths must be at least 1"),
        ({"variants": ("maml", "maml")}, "variants must list at least one, each once"),
        ({"test_steps": 4}, "test_steps must be at least inner_steps = 5, got 4"),
        ({"test_tasks": 2}, "test_tasks must be at least 3, got 2"),
    ],
)
def test_settings_that_cannot_be_used_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SinusoidConfig(**settings)
