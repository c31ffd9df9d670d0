"""A grid of the tiny study for commands of other processes, and what its runs have where nothing disturbs them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support import grid_study

from metasynth.run import execute
from metasynth.running.study import load_experiment

RUNS = ["seed=0,steps=6", "seed=1,steps=6"]
GRID = ["--seeds", "2", "--vary", "steps=6", "--device", "cpu"]


def install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Make the study known to all processes and an empty folder the current one; the file that holds it up."""
    installed = grid_study.install(folder / "installed")
    monkeypatch.syspath_prepend(installed)
    monkeypatch.setenv("PYTHONPATH", f"{installed}{os.pathsep}{grid_study.TESTS}")
    monkeypatch.setenv(grid_study.HOLD, str(folder / "hold"))
    (folder / "work").mkdir()
    monkeypatch.chdir(folder / "work")
    return folder / "hold"


def undisturbed(folder: Path, count: int = 2) -> tuple[list[bytes], list[dict[str, Any]]]:
    """The records and rows of the runs, each carried out by itself."""
    runs = [execute(load_experiment("tiny"), folder / str(n), seed=n, overrides=["steps=6"]) for n in range(count)]
    records = [(run.path / "metrics.jsonl").read_bytes() for run in runs]
    return records, [{"seed": n, "steps": 6, **row} for n, run in enumerate(runs) for row in run.results["rows"]]


def found(grid: Path, count: int = 2) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Those of a grid."""
    records = [(grid / f"seed={n},steps=6" / "metrics.jsonl").read_bytes() for n in range(count)]
    return records, json.loads((grid / "results.json").read_text())["rows"]


def lines(run: Path) -> int:
    """How many records a run has."""
    metrics = run / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0
