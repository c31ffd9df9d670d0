"""Studies that train, on caches of whole heads."""

import json

import numpy as np
import pytest
import torch
from metasynth.experiments import cross_contrast, real_world
from support import tampering, tiny_comparison
from support.tiny_comparison import real_cache
from support.tiny_noise import make_cache

from metasynth.data.cache import Cache
from metasynth.errors import DataError
from metasynth.segment.model_file import load_model
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.config import PAPER
from metasynth.synthesis.cornucopia import CornucopiaGenerator
from metasynth.synthesis.intensity import scaled_heads


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """A cache of balls with generation labels, said to be heads."""
    return real_cache(tmp_path_factory.mktemp("heads") / "heads.h5", subjects=8, generation=True, shows="head")


@pytest.fixture
def scaled(monkeypatch):
    """Whether each generator was one of heads."""
    found = set()
    synthesise = BatchedGenerator.synthesise

    def seen(self, labels, seeds):
        found.add(self.head)
        return synthesise(self, labels, seeds)

    monkeypatch.setattr(BatchedGenerator, "synthesise", seen)
    return found


def share_of(path):
    """Of a cache with fluid, label 1, around the brain: what is brain of all that is not air."""
    with Cache(path) as cache:
        labels = cache.read_structures(range(cache.n))
        people = [labels[cache.subject_index == subject] for subject in range(len(cache.subjects))]
    return pytest.approx(float(np.median([(one > 1).sum() / (one > 0).sum() for one in people])))


def descriptions(run):
    paths = list((run / "models").rglob("*.pt"))
    assert paths
    return [load_model(path).description for path in paths]


@pytest.mark.parametrize("study", ["noise", "inu", "real_world", "unpaired"])
def test_a_study_trains_models_of_heads(tmp_path, heads, scaled, study):
    tampering.carry_out(study, tmp_path / "run", heads)
    assert scaled == {True}
    for description in descriptions(tmp_path / "run"):
        assert (description.brain_only, description.scaled_by, description.takes_heads) == (False, "head", True)
        assert description.brain_share == share_of(heads)
        assert description.needs.endswith("the whole head, air and the 99 % quantile of the rest scaled to 0 and 1")


def test_every_kind_of_method_on_heads(tmp_path, heads, scaled):
    other = real_cache(tmp_path / "other.h5", contrast=0.5, subjects=8, shows="head")
    methods = "naive,clustered,estimated,atlas,mixed,supervised,finetuned,interpolated,parametric_fixed,optimised"
    settings = {"methods": methods, "tests": f"T2={other}", "clustered__clusters": "2"}
    tiny_comparison.carry_out(cross_contrast.EXPERIMENT, tmp_path / "run", heads, **settings)
    assert scaled == {True}
    assert all(description.takes_heads for description in descriptions(tmp_path / "run"))
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert {row["method"] for row in rows} == set(methods.split(","))


def test_a_model_of_brains_says_so_as_before(tmp_path, scaled):
    tampering.carry_out("noise", tmp_path / "run", make_cache(tmp_path / "brains.h5"))
    assert scaled == {False}
    for description in descriptions(tmp_path / "run"):
        assert (description.brain_only, description.scaled_by, description.takes_heads) == (True, "brain", False)
        assert description.brain_share == 0


def test_heads_and_brains_do_not_go_together(tmp_path, heads):
    brains = real_cache(tmp_path / "brains.h5", subjects=8, generation=True)
    with pytest.raises(DataError) as error:
        tiny_comparison.carry_out(real_world.EXPERIMENT, tmp_path / "run", brains, methods="naive", labels=str(heads))
    assert str(error.value) == (
        f"{heads}: expected brains as in {brains}, got heads; prepare both with prep labels --head and prep nifti "
        "--no-strip, or both without"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", [BatchedGenerator, CornucopiaGenerator])
def test_synthetic_heads_are_those_of_brains_scaled_as_scans_are(heads, kind):
    with Cache(heads) as cache:
        labels = torch.from_numpy(cache.read_structures(range(4)))
    seeds = torch.arange(4)
    brains, heads_made = (kind(5, PAPER, head=head).synthesise(labels, seeds) for head in (False, True))
    np.testing.assert_array_equal(brains[1], heads_made[1])
    np.testing.assert_allclose(heads_made[0][:, 0], scaled_heads(brains[0][:, 0]), atol=1e-5)
    assert heads_made[0].min() == 0
    assert heads_made[0].max() == 1
