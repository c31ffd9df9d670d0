"""The noise study on a device: a run that is interrupted and resumed is the one that was not, bit for bit."""

import json

import pytest
import torch
from support.tiny_noise import SETTINGS, STAGES, STEPS, make_cache, results

from metasynth.interrupts import Interrupted
from metasynth.run import execute
from metasynth.running.checkpoint import load_checkpoint
from metasynth.running.study import load_experiment
from metasynth.segment.model_file import find_model, load_model
from metasynth.training import loop

LEARN, NAIVE = 8, STEPS + 9
"""Steps after which a run is interrupted: within the stage that learns, and within the one after it."""


@pytest.fixture
def cache(tmp_path):
    return make_cache(tmp_path / "labels.h5")


@pytest.fixture
def run(cache, configured):
    """Carries the study out, or goes on with it."""
    overrides = [f"{name}={value}" for name, value in {**SETTINGS, "sigma": "0.1"}.items()]

    def execute_in(out, **options):
        asked = {"seed": 3, "data": cache, "device": configured, "threads": 1, "quiet": True}
        execute(load_experiment("noise"), out, overrides=overrides, **asked, **options)
        return out

    return execute_in


def interrupted_after(monkeypatch, steps):
    """The process is asked to end before the step after so many."""
    left = iter(range(steps))

    def check():
        if next(left, None) is None:
            raise Interrupted

    monkeypatch.setattr(loop, "check", check)


@pytest.mark.parametrize("steps", [LEARN, NAIVE])
def test_an_interrupted_run_is_the_uninterrupted_one(tmp_path, run, device, steps):
    whole = run(tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        interrupted_after(patch, steps)
        with pytest.raises(Interrupted):
            run(tmp_path / "halves")
    assert len((tmp_path / "halves" / "metrics.jsonl").read_text().splitlines()) == steps
    assert list((tmp_path / "halves" / "checkpoints").rglob("latest.pt"))
    halves = run(tmp_path / "halves", resume=True)
    assert (halves / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert results(halves) == results(whole)
    assert results(whole)["device"] == device
    for stage in STAGES:
        own, other = (load_model(find_model(folder, f"sigma=0.1/{stage}")).network for folder in (halves, whole))
        assert {p.device.type for p in own.parameters()} == {"cpu"}
        assert all(torch.equal(a, b) for a, b in zip(own.parameters(), other.parameters(), strict=True))


def test_it_is_near_what_the_cpu_gives(tmp_path, run, device):
    """The data are the same, so the first loss is up to rounding; of the devices' states no tensor is kept there."""
    there, here = run(tmp_path / "there"), run(tmp_path / "here") if device != "cpu" else tmp_path / "there"
    first, expected = (
        json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])["inner_loss"] for folder in (there, here)
    )
    assert first == pytest.approx(expected, rel=1e-2)
    checkpoint = load_checkpoint(next((there / "checkpoints").rglob("final.pt")))
    assert len(checkpoint["random"]["cuda"]) == (torch.cuda.device_count() if device == "cuda" else 0)
