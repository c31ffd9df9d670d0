"""A segmenter that is trained on label maps alone."""

import json

import numpy as np
import pytest
import torch
from metasynth.experiments import label_maps
from metasynth.experiments.label_maps import KNOWN, RANDOM, MapData, Mixed
from support.tiny_noise import CLASSES, STRUCTURES, make_cache

from metasynth.data.cache import Cache
from metasynth.data.dataset import SliceDataset
from metasynth.run import execute
from metasynth.segment.model_file import load_model
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.config import PAPER
from metasynth.synthesis.priors.priors_file import write_priors
from metasynth.synthesis.priors.structure_priors import Prior, StructurePriors

SETTINGS = {
    "segmenter.widths": "4,8",
    "segmenter.batch_size": "2",
    "segmenter.steps": "6",
    "synthesis.elastic_nodes": "4",
    "synthesis.bias": "4",
    "pace.checkpoint_every": "2",
    "pace.workers": "0",
}


def carry_out(out, data, resume=False, **settings):
    overrides = [f"{key}={value}" for key, value in (SETTINGS | settings).items()]
    options = {"seed": 1, "device": "cpu", "threads": 1, "quiet": True, "resume": resume}
    return execute(label_maps.EXPERIMENT, out, overrides=overrides, data=data, **options)


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("maps") / "c.h5", generation=True, shows="head")


@pytest.fixture(scope="module")
def priors(tmp_path_factory):
    """Every structure has an intensity of its own, a fifth apart, and nothing else."""
    classes = [CLASSES[k] for k in (0, 0, 2, 1, 1)]
    rows = tuple(
        Prior(name, own, 0.2 * g, 0.0, 0.0, 1, 100, "none")
        for g, (name, own) in enumerate(zip(STRUCTURES, classes, strict=True))
    )
    path = tmp_path_factory.mktemp("priors") / "t1.json"
    write_priors(path, StructurePriors(rows), {})
    return path


def test_a_segmenter_of_heads_is_trained_and_kept(tmp_path, heads, priors):
    carry_out(tmp_path / "run", heads, **{"synthesis.priors": priors})
    description = load_model(tmp_path / "run" / "models" / "segmenter.pt").description
    assert (description.takes_heads, description.class_names) == (True, CLASSES)
    (row,) = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert set(row["dice"]) == {RANDOM, KNOWN}
    assert list(row["dice"][RANDOM]["per_class"]) == list(CLASSES)
    assert (tmp_path / "run" / "report.html").is_file()
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert sorted(split["train"] + split["val"] + split["test"]) == [f"s{i}" for i in range(5)]


def test_without_priors_all_contrasts_are_random(tmp_path, heads):
    carry_out(tmp_path / "run", heads)
    (row,) = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert set(row["dice"]) == {RANDOM}


def test_a_run_that_is_finished_goes_on_to_the_same(tmp_path, heads):
    carry_out(tmp_path / "run", heads)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    carry_out(tmp_path / "run", heads, resume=True)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    assert len(before.splitlines()) == 6


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_images_is_in_known_contrasts(heads, share):
    still = {"translations": 0.0, "rotation": 0.0, "shears": 0.0, "zooms": 0.0, "elastic": 0.0}
    still |= {"gmm_fwhm": 0.0, "gamma": 0.0, "motion_fwhm": 0.0}
    config = type(PAPER)(**still)
    rows = tuple(Prior(str(g), "x", 0.2 * g, 0.0, 0.0, 1, 100, "none") for g in range(5))
    known = BatchedGenerator(5, config, priors=StructurePriors(rows), head=True)
    mixed = Mixed((BatchedGenerator(5, config, class_sd=0.0, head=True), known), (1 - share, share))
    with Cache(heads) as cache:
        data = MapData(dataset=SliceDataset(cache, cache.subjects), source=mixed, seed=3, batch_size=400)
        example = data[0].inner
        np.testing.assert_array_equal(data[0].inner.images, example.images)
    expected = 0.2 * example.structures[:, None].float()
    is_known = torch.isclose(example.images, expected, atol=1e-5).flatten(1).all(1)
    assert is_known.float().mean().item() == pytest.approx(share, abs=0.07)
    assert torch.equal(example.labels, torch.tensor([0, 0, 2, 1, 1])[example.structures])


def test_a_share_of_those_in_known_contrasts_is_inverted(heads):
    still = {"translations": 0.0, "rotation": 0.0, "shears": 0.0, "zooms": 0.0, "elastic": 0.0}
    config = type(PAPER)(**still, gmm_fwhm=0.0, gamma=0.0, motion_fwhm=0.0)
    rows = tuple(Prior(str(g), "x", 0.2 * g, 0.0, 0.0, 1, 100, "none") for g in range(5))
    known = BatchedGenerator(5, config, priors=StructurePriors(rows), head=True)
    settings = label_maps.LabelMapsConfig(share=1.0, inverted=0.3)
    with Cache(heads) as cache:
        mixed = label_maps._mixed(settings, {KNOWN: known, RANDOM: known}, cache)
        data = MapData(dataset=SliceDataset(cache, cache.subjects), source=mixed, seed=3, batch_size=400)
        example = data[0].inner
    plain = 0.2 * example.structures[:, None].float()
    turned = torch.where(example.structures[:, None] > 0, 1 - plain, 0)
    as_known, inverted = (torch.isclose(example.images, each, atol=1e-5).flatten(1).all(1) for each in (plain, turned))
    assert torch.equal(as_known, ~inverted)
    assert inverted.float().mean().item() == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize("setting", ["share", "inverted"])
def test_a_share_out_of_range(tmp_path, heads, setting):
    with pytest.raises(Exception, match=rf"{setting} must be in \[0, 1\], got 1.5"):
        carry_out(tmp_path / "run", heads, **{setting: 1.5})
    assert not (tmp_path / "run").exists()
