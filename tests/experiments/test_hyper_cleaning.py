"""Wrong labels are found, and not by accident of the corruption or of the ranking."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from metasynth.experiments.hyper_cleaning import EXPERIMENT, PRESETS
from metasynth.experiments.hyper_cleaning.problem import corrupt, found_fraction, weighted_loss
from metasynth.experiments.hyper_cleaning.settings import HyperCleaningConfig
from torch import nn

from metasynth.errors import UsageError
from metasynth.run import execute

SMALL = ("train=400", "validation=150", "steps=400", "repeats=1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hyper-cleaning") / "run"
    execute(EXPERIMENT, out, overrides=SMALL, seed=1, device="cpu", threads=1, quiet=True)
    return out


def rows_of(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((out / "results.json").read_text())["rows"]
    return rows


def assert_cleaned(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert row["found"] >= 0.9
        assert row["accuracy"]["learned"] > row["accuracy"]["everything"]
        assert row["accuracy"]["learned"] > row["accuracy"]["random half"]


def test_the_wrong_labels_are_found_and_training_without_them_is_better(run: Path) -> None:
    assert_cleaned(rows_of(run))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_quick_preset_cleans(tmp_path: Path, seed: int) -> None:
    execute(EXPERIMENT, tmp_path / "run", seed=seed, device="cpu", threads=1, quiet=True)
    rows = rows_of(tmp_path / "run")
    assert len(rows) == PRESETS["quick"].repeats
    assert_cleaned(rows)


def test_the_report_shows_weights_of_both_kinds(run: Path) -> None:
    (weights,) = json.loads((run / "weights.json").read_text())
    clean, corrupted = np.array(weights["clean"]), np.array(weights["corrupted"])
    assert len(clean) == len(corrupted) == 200
    assert 0 <= corrupted.min() < 0.5 < clean.max() <= 1
    assert {path.name for path in (run / "figures").iterdir()} == {"weights.png", "found.png"}
    assert "all, with the learned weights" in (run / "table.md").read_text()


def test_the_same_seed_gives_the_same_results(tmp_path: Path) -> None:
    tiny = ("train=50", "validation=20", "steps=5", "batch_size=20", "repeats=2", "hidden=4")
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        execute(EXPERIMENT, tmp_path / name, overrides=tiny, seed=seed, device="cpu", threads=1, quiet=True)
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b") != rows_of(tmp_path / "c")
    first, second = rows_of(tmp_path / "a")
    assert first["accuracy"] != second["accuracy"]


def test_every_chosen_label_is_wrong_and_all_classes_are_drawn() -> None:
    labels = torch.arange(10).repeat(500)
    noisy, wrong = corrupt(labels, 2500, torch.Generator().manual_seed(0))
    assert wrong.sum() == 2500
    assert torch.equal(noisy != labels, wrong)
    offsets = ((noisy - labels) % 10)[wrong].bincount(minlength=10)
    assert offsets[0] == 0
    assert offsets[1:].min() > 2500 / 9 - 5 * (2500 / 9) ** 0.5


def test_the_found_fraction_counts_weights_below_the_median() -> None:
    weights = torch.tensor([0.1, 0.2, 0.3, 0.7, 0.8, 0.9])
    wrong = torch.tensor([True, True, False, False, False, True])
    assert found_fraction(weights, wrong) == pytest.approx(2 / 3)
    assert found_fraction(torch.full((6,), 0.5), wrong) == 0


def test_the_weights_are_those_of_the_batch() -> None:
    model = nn.Linear(64, 10)
    images, labels, indices = torch.rand(2, 64), torch.tensor([3, 4]), torch.tensor([5, 1])
    theta = torch.randn(6)
    each = nn.functional.cross_entropy(model(images), labels, reduction="none")
    expected = (each[0] * theta[5].sigmoid() + each[1] * theta[1].sigmoid()) / 2
    torch.testing.assert_close(weighted_loss(model, theta, ((images, labels), indices)), expected)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"train": 0}, "train must be positive, got 0"),
        ({"lr": float("nan")}, "lr must be positive, got nan"),
        ({"train": 1700}, "train [+] validation must be below 1797"),
        ({"batch_size": 1001}, "batch_size at most train"),
        ({"corrupted": 1.0}, "corrupted must leave both"),
        ({"corrupted": 1e-4}, "corrupted must leave both"),
        ({"hidden": -1}, "hidden must be at least 0, got -1"),
    ],
)
def test_settings_that_cannot_be_used_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        HyperCleaningConfig(**settings)


def test_a_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--data labels.h5: this experiment has its own data"):
        execute(EXPERIMENT, tmp_path / "run", data=Path("labels.h5"), device="cpu", quiet=True)
    assert not (tmp_path / "run").exists()
