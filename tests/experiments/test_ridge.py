"""The learned weight decay is the optimum of the closed-form solution."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from metasynth.experiments.ridge import EXPERIMENT, PRESETS
from metasynth.experiments.ridge.problem import GRID, best_decay, check, draw, held_out_loss, ridge_loss, solve
from metasynth.experiments.ridge.report import _curves
from metasynth.experiments.ridge.settings import RidgeConfig
from torch import nn

from metasynth.cli.main import main
from metasynth.errors import RunError
from metasynth.run import execute

SMALL = ("steps=80", "inner_steps=30", "problems=1", "features=6", "train=30", "validation=40", "start=0.02")


def rows_of(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((out / "results.json").read_text())["rows"]
    return rows


def test_the_learned_decay_is_the_optimum(tmp_path: Path) -> None:
    out = tmp_path / "run"
    execute(EXPERIMENT, out, overrides=SMALL, device="cpu", threads=1, quiet=True)
    rows = rows_of(out)
    assert [row["strategy"] for row in rows] == ["unrolled", "implicit"]
    for row in rows:
        assert row["learned"] == pytest.approx(row["optimum"], rel=0.01)
        assert row["relative_error"] == pytest.approx(abs(row["learned"] / row["optimum"] - 1))
        assert abs(np.log(row["optimum"] / row["start"])) > 0.5  # there was something to learn
        assert row["loss"] == pytest.approx(row["least_loss"], rel=1e-4)
    assert {path.name for path in (out / "figures").iterdir()} == {"decay.png", "loss.png"}


@pytest.mark.slow
def test_the_quick_preset_finds_every_optimum(tmp_path: Path) -> None:
    execute(EXPERIMENT, tmp_path / "run", device="cpu", threads=1, quiet=True)
    rows, config = rows_of(tmp_path / "run"), PRESETS["quick"]
    assert len(rows) == config.problems * len(config.strategies) * len(config.start)
    assert max(row["relative_error"] for row in rows) < 0.01


def test_the_closed_form_is_where_the_gradient_of_the_inner_loss_vanishes() -> None:
    train, _ = draw(RidgeConfig(), 0, 0)
    model = nn.Linear(20, 1, bias=False, dtype=torch.float64)
    model.weight.data.copy_(solve(0.3, train).T)
    loss = ridge_loss(model, torch.tensor(0.3, dtype=torch.float64).log(), train)
    (gradient,) = torch.autograd.grad(loss, [model.weight])
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("problem", range(5))
def test_no_decay_is_better_than_the_best(problem: int) -> None:
    train, validation = draw(RidgeConfig(), 7, problem)
    best = best_decay(train, validation)
    least = held_out_loss(best, train, validation)
    assert all(held_out_loss(decay, train, validation) > least for decay in np.geomspace(1e-3, 100, 997))
    assert held_out_loss(best * 1.003, train, validation) > least < held_out_loss(best / 1.003, train, validation)


def test_a_regression_without_an_optimum_is_refused() -> None:
    x = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = x, x.sum(dim=1, keepdim=True)
    with pytest.raises(RunError, match=r"least at λ = 0.001 or beyond"):
        best_decay(rows, rows)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"features": 0}, "features must be at least 1, got 0"),
        ({"noise": float("nan")}, "noise must be positive, got nan"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"start": (0.1, 0.0)}, "start must list positive numbers"),
        ({"start": ()}, "start must list positive numbers"),
        ({"strategies": ("implicit", "implicit")}, "strategies must list at least one, each once"),
    ],
)
def test_settings_that_cannot_be_used_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RidgeConfig(**settings)


def seed_where(found: bool, config: RidgeConfig) -> int:
    """A seed whose regressions all have an optimum, or not."""
    for seed in range(50):
        try:
            check(config, None, seed)
        except RunError:
            if not found:
                return seed
        else:
            if found:
                return seed
    raise AssertionError("no such seed")


def test_a_seed_without_an_optimum_is_refused_before_the_folder_is_made(tmp_path: Path) -> None:
    """The second of two regressions; and in a grid before any run is begun."""
    noisy = RidgeConfig(noise=3.0, problems=2)
    bad, good = seed_where(False, noisy), seed_where(True, noisy)
    assert good != bad
    message = r"^ridge: the held-out loss is least at λ = 100 or beyond; choose another --seed or noise$"
    with pytest.raises(RunError, match=message):
        execute(EXPERIMENT, tmp_path / "run", overrides=["noise=3", "problems=2"], seed=bad, device="cpu", quiet=True)
    words = ["run", "ridge", "--seed", str(min(bad, good)), "--seeds", str(abs(bad - good) + 1), "--set", "noise=3"]
    found = CliRunner().invoke(main, [*words, "--out", str(tmp_path / "grid"), "--device", "cpu", "--quiet"])
    assert found.exit_code == 1
    assert found.output.splitlines()[-1].startswith("Error: ridge: the held-out loss is least at λ = 100 or beyond")
    assert list(tmp_path.iterdir()) == []


def test_every_regression_is_drawn_where_there_are_more_than_colours() -> None:
    class Folder:
        def read_json(self, name: str) -> list[list[float]]:
            return [[1.0] * len(GRID)] * 9

    rows: list[dict[str, Any]] = [{"problem": at, "learned": 0.1, "loss": 1.0} for at in range(9)]
    figure = _curves(rows, Folder())  # type: ignore[arg-type]
    legend = figure.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [f"regression {at}" for at in range(9)]
