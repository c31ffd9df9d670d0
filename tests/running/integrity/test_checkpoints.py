"""Checkpoints of other runs and stages, and of other kinds, are refused."""

import os
import shutil

import pytest
import torch
from support.changed_runs import (
    LEARN,
    NAIVE,
    content,
    refused,
)

from metasynth.running.checkpoint import load_checkpoint, save_checkpoint


def test_a_checkpoint_of_another_run_is_refused(run, other):
    shutil.copy(other / LEARN, run / LEARN)
    assert refused(run) == (
        f"{run / LEARN}: belongs to another run, or {run / 'config.json'} was changed since it was written"
    )


def test_a_checkpoint_of_another_stage_is_refused(run):
    shutil.copy(run / LEARN, (run / NAIVE).with_name("final.pt"))
    assert refused(run) == (
        f"{(run / NAIVE).with_name('final.pt')}: expected a checkpoint of stage sigma=0.1-naive, "
        "got one of stage sigma=0.1/learn"
    )


def test_a_checkpoint_in_the_midst_is_no_final_one(run):
    (run / NAIVE).rename((run / NAIVE).with_name("final.pt"))
    assert refused(run) == (
        f"{(run / NAIVE).with_name('final.pt')}: expected all 14 steps of stage sigma=0.1/naive, got 6"
    )


def test_a_stage_whose_checkpoint_is_gone_is_not_trained_over_the_next(run):
    (run / LEARN).unlink()
    line = refused(run)
    assert (
        line == f"{run}/checkpoints: holds no checkpoint of stage sigma=0.1/learn, whose records are in metrics.jsonl"
    )


def test_checkpoints_that_are_no_files_are_refused(run):
    (run / NAIVE).unlink()
    os.mkfifo(run / NAIVE)
    assert refused(run) == f"{run}/{NAIVE}: expected a checkpoint, got no regular file"
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").write_text("")
    assert refused(run) == f"{run}/checkpoints: expected the folder of the run's checkpoints, got a file"


def resaved(**changed):
    """Write the naive segmenter's checkpoint again, sealed, without the entries that are None now."""

    def change(run):
        state = {**load_checkpoint(run / NAIVE)}
        for key, value in changed.items():
            state[key] = value(state[key])
        save_checkpoint(run / NAIVE, {key: value for key, value in state.items() if value is not None})

    return change


def without(key):
    return lambda mapping: {name: value for name, value in mapping.items() if name != key}


def other_widths(trainer):
    return {**trainer, "model": {name: value[:1] for name, value in trainer["model"].items()}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (resaved(trainer=lambda _: None), "the checkpoint is damaged (trainer: expected Mapping, got None)"),
        (resaved(random=lambda _: None), "the checkpoint is damaged (random: expected Mapping, got None)"),
        (resaved(step=lambda _: "six"), "the checkpoint is damaged (step: expected int, got 'six')"),
        (resaved(step=lambda _: 6.5), "the checkpoint is damaged (step: expected int, got 6.5)"),
        (resaved(position=lambda _: -1), "the checkpoint is damaged (position: expected int, got -1)"),
        (resaved(seconds=lambda _: float("nan")), "the checkpoint is damaged (seconds: expected float, got nan)"),
        (resaved(stage=lambda _: 3), "the checkpoint is damaged (stage: expected str, got 3)"),
        (resaved(step=lambda _: 0), "expected 1 to 13 steps of stage sigma=0.1/naive, got 0"),
        (resaved(random=without("python")), "the checkpoint is damaged (random: python)"),
        (resaved(random=without("cuda")), "the checkpoint is damaged (random: cuda)"),
        (
            resaved(random=lambda random: {**random, "torch": random["torch"][:100]}),
            "the checkpoint is damaged (random: ",
        ),
        (
            resaved(random=lambda random: {**random, "numpy": {**random["numpy"], "key": [1, 2]}}),
            "the checkpoint is damaged (random: ",
        ),
        (
            resaved(random=lambda random: {**random, "python": [3, [1, 2], None]}),
            "the checkpoint is damaged (random: state vector is the wrong size)",
        ),
        (resaved(bound=lambda _: None), "the checkpoint does not say which run it belongs to"),
        (resaved(trainer=without("model")), "the checkpoint does not fit stage sigma=0.1/naive (model)"),
        (
            resaved(trainer=other_widths),
            "the checkpoint does not fit stage sigma=0.1/naive (Error(s) in loading state_",
        ),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused(run, change, message):
    change(run)
    before = content(run)
    line = refused(run)
    assert line.startswith(f"{run / NAIVE}: {message}")
    assert content(run) == before


def test_an_unsealed_checkpoint_is_refused(run):
    torch.save(load_checkpoint(run / NAIVE), run / NAIVE)
    assert refused(run) == (
        f"{run / NAIVE}: the checkpoint is damaged (it does not carry its SHA-256, so another program wrote it)"
    )
