"""The models of the package are as good as their cards say, on what a test can make: SIMULATED slices."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from metasynth.predict.shipped import FOLDER, shipped_models
from metasynth.segment.model_file import load_model

MODELS = shipped_models()
MOST_BYTES = 5_000_000


@pytest.fixture(scope="module")
def measured():
    """The script that the cards' numbers are from."""
    path = Path(__file__).parents[2] / "benchmarks" / "model_dice.py"
    spec = importlib.util.spec_from_file_location("model_dice", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["model_dice"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules["model_dice"]


def test_there_is_one_of_brains_and_one_of_heads():
    assert {name: model.card["takes"] for name, model in MODELS.items()} == {"brain": "brain", "head": "head"}


def test_they_are_small():
    assert sum(path.stat().st_size for path in FOLDER.glob("*.pt")) < MOST_BYTES


@pytest.mark.parametrize("name", MODELS)
def test_simulated_slices_are_segmented_as_the_card_says(measured, name, tmp_path):
    torch.set_flush_denormal(True)
    found = measured.simulated(load_model(MODELS[name].path), tmp_path)
    assert len(found) == 2
    for condition, scores in found.items():
        assert scores == pytest.approx(MODELS[name].card["dice"][condition], abs=0.005)
