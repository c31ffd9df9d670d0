"""SIGKILL at any moment: in the end a sink has each record once, and the run's own files do not know of it."""

import random
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.noting_sink import noted

TESTS = Path(__file__).parents[1]
TOTAL, EVERY = 120, 25
SESSION = f"""
import sys, time
sys.path.insert(0, {str(TESTS)!r})
from pathlib import Path
from metasynth.running.jsonlines import JsonLines
from metasynth.sinks import feed, register
from metasynth.sinks.table import chosen
from support.noting_sink import NOTING

register(NOTING)
feed.SECONDS_BETWEEN = 0.0
run = Path(sys.argv[1])
metrics = run / "metrics.jsonl"
held = metrics.read_bytes().splitlines(keepends=True) if metrics.exists() else []
kept = len(held) // {EVERY} * {EVERY}
lines = JsonLines(metrics, len(b"".join(held[:kept])))
settings = {{"experiment": "noise"}}
with feed.feeding(run, metrics, settings, chosen(sys.argv[2]), lambda line: sys.exit(line)) as fed:
    lines.told = fed.look
    (run / "begun").touch()
    for number in range(kept + 1, {TOTAL} + 1):
        lines.append({{"stage": "one" if number < 60 else "two", "step": number, "loss": 1 / number}})
        time.sleep(0.004)
    fed.finish(lines.position, {{}})
"""


def sessions(run, name, kills):
    """Kill sessions at random moments of their work, then let one finish."""
    moments = random.Random(0)
    command = [sys.executable, "-c", SESSION, str(run), name]
    for _ in range(kills):
        (run / "begun").unlink(missing_ok=True)
        process = subprocess.Popen(command)
        while not (run / "begun").exists():
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(moments.uniform(0.01, 0.5))
        process.kill()
        process.wait()
    assert subprocess.run(command, check=False).returncode == 0


EXPECTED = [("one" if number < 60 else "two", number, 1 / number) for number in range(1, TOTAL + 1)]


def of_noting(run):
    return [(series, step, values["loss"]) for _, series, step, values in noted(run)]


def of_tensorboard(run):
    import numpy as np
    from sinks.test_tensorboard import scalars

    found = [(one, *point) for one in ("one", "two") for point in scalars(run / "logs" / "tensorboard" / one)]
    exact = {np.float32(value): value for _, _, value in EXPECTED}
    return [(series, step, exact[np.float32(value)]) for series, step, value in found]


def of_mlflow(run):
    from sinks.test_mlflow import select

    query = "select key, step, value from metrics order by step"
    return [(key.split("/")[0], step, value) for key, step, value in select(run / "logs/mlflow/mlflow.db", query)]


def of_wandb(run):
    from sinks.test_wandb import history

    files = sorted((run / "logs" / "wandb" / "wandb").glob("offline-run-*/*.wandb"))
    rows = sorted((row for file in files for row in history(file)), key=lambda row: row["_step"])
    series = ["one" if "one/step" in row else "two" for row in rows]
    return [(one, row[f"{one}/step"], row[f"{one}/loss"]) for one, row in zip(series, rows, strict=True)]


def needs(package):
    return pytest.mark.skipif(find_spec(package) is None, reason=f"the package {package} is not installed")


@pytest.mark.parametrize(
    ("name", "read", "kills"),
    [
        pytest.param("noting", of_noting, 3),
        pytest.param("tensorboard", of_tensorboard, 3, marks=needs("tensorboard")),
        pytest.param("mlflow", of_mlflow, 2, marks=[needs("mlflow"), pytest.mark.slow]),
        pytest.param("wandb", of_wandb, 2, marks=[needs("wandb"), pytest.mark.slow]),
    ],
)
def test_each_record_once(tmp_path, monkeypatch, name, read, kills):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    sessions(tmp_path, name, kills)
    assert read(tmp_path) == EXPECTED
