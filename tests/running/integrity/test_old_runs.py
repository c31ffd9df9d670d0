"""Runs that were begun before files carried digests."""

import json
import shutil

import pytest
import torch
from support.changed_runs import (
    LEARN,
    NAIVE,
    SEALED,
    content,
    cut,
    edit,
    invoke,
    refused,
    resume,
    write,
)
from support.tiny_noise import results

from metasynth.running.checkpoint import load_checkpoint
from metasynth.running.integrity.json_files import without_digest


def unsealed(run):
    """The run as an earlier version would have left it."""
    for name in SEALED & content(run).keys():
        value = without_digest(json.loads((run / name).read_text()))
        if name == "config.json":
            value["format"] = "metasynth-run/1"
        (run / name).write_text(json.dumps(value, indent=2) + "\n")
    for path in run.glob("checkpoints/*/*.pt"):
        state = load_checkpoint(path)
        torch.save({key: value for key, value in state.items() if key not in ("bound", "steps")}, path)
    for path in run.glob("models/*.pt"):
        torch.save(torch.load(path, weights_only=True), path)
    if (run / "examples.npz").is_file():
        data = (run / "examples.npz").read_bytes()
        end = data.rindex(b"PK\x05\x06") + 20
        (run / "examples.npz").write_bytes(data[:end] + b"\0\0")
    (run / "SHA256SUMS").unlink(missing_ok=True)
    return run


def test_an_old_run_goes_on_to_the_same_results(run, whole):
    unsealed(run)
    assert resume(run).exit_code == 0
    assert results(run) == results(whole)
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert json.loads((run / "config.json").read_text())["format"] == "metasynth-run/1"
    assert invoke(["report", run]).exit_code == 0


def test_an_old_run_is_reported(tmp_path, whole):
    run = unsealed(shutil.copytree(whole, tmp_path / "run"))
    before = content(run)
    assert invoke(["report", run]).exit_code == 0
    assert resume(run).exit_code == 0
    after = content(run)
    assert {name for name in before if before[name] != after[name]} <= {"report.html"}


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        (edit("config.json", "seed", to="3"), "config.json", "seed: expected a whole number from 0 on, got '3'"),
        (edit("environment.json", "resumed", to=None), "environment.json", "resumed: expected a list of sessions"),
        (edit("split.json", "test", to=[]), "split.json", "split: part 'test' is empty"),
        (write("split.json", "[]"), "split.json", "expected a JSON object, got list"),
        (cut(9), "metrics.jsonl", "holds "),
        (write("metrics.jsonl", "{\n" * 9999), "metrics.jsonl", "line 1 is not valid JSON"),
    ],
)
def test_an_old_run_is_checked_as_far_as_it_can_be(run, change, name, message):
    unsealed(run)
    change(run)
    assert refused(run).startswith(f"{run / name}: {message}")


def test_the_checkpoint_of_another_stage_of_an_old_run_is_refused(run):
    unsealed(run)
    shutil.copy(run / LEARN, run / NAIVE)
    assert refused(run) == (
        f"{run / NAIVE}: expected a checkpoint of stage sigma=0.1-naive, got one of stage sigma=0.1/learn"
    )
