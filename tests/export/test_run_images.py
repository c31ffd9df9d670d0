"""The training images that a finished run ended with, of every study that has some."""

import json
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from metasynth.experiments import label_maps, real_world
from metasynth.experiments.label_maps import Mixed
from metasynth.experiments.real_images.streams import Fitted
from metasynth.experiments.unpaired.streams import Generated
from support import tiny_comparison, tiny_unpaired
from support.tiny_noise import arguments, make_cache

from metasynth.augment.corruption import Corruptions
from metasynth.cli.main import main
from metasynth.data.cache import Cache
from metasynth.errors import DataError, RunError, UsageError
from metasynth.export import run_images as module
from metasynth.export.run_images import run_images
from metasynth.run import execute
from metasynth.running.checkpoint import load_checkpoint
from metasynth.running.progress import Progress
from metasynth.running.records import RunFolder
from metasynth.running.seeding import generator_for
from metasynth.running.study import load_experiment
from metasynth.training.augmenter_file import load_augmenter
from metasynth.training.courses import tail_of, trajectory_of
from metasynth.training.sources import Augmented, Corrupted


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tiny_comparison.real_cache(tmp_path_factory.mktemp("images") / "c.h5", subjects=8)


def carried_out(out, cache, experiment="noise", **settings):
    command = arguments(out, cache, seed=2, baselines="false", **settings)
    command[1] = experiment
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture(scope="module")
def noise(tmp_path_factory, cache):
    return carried_out(tmp_path_factory.mktemp("noise") / "run", cache, sigma="0.05,0.1")


@pytest.fixture(scope="module")
def comparison(tmp_path_factory, cache):
    settings = {"methods": "naive,parametric_fixed", "subjects__train": "1,2"}
    run = tmp_path_factory.mktemp("comparison") / "run"
    tiny_comparison.carry_out(real_world.EXPERIMENT, run, cache, **settings)
    return run


def images(run, stage=None):
    return run_images(run, stage, Progress(quiet=True))


def refused(error, run, stage=None):
    with pytest.raises(error) as found:
        images(run, stage)
    return str(found.value)


def test_noise_is_what_was_learned_of_it(noise):
    found = images(noise, "sigma=0.1/learn")
    assert (found.run, found.origin) == ("run", "experiment noise, stage sigma=0.1/learn, seed 2")
    records = [json.loads(line) for line in (noise / "metrics.jsonl").read_text().splitlines()]
    sigma, _ = tail_of(trajectory_of(records, "sigma=0.1/learn", "sigma")[1])
    source = found.images.source
    assert isinstance(source, Corrupted)
    batch = found.images.dataset.read([0])
    noisy = source(batch, generator_for(0))
    clean, labels = source.generator(batch.structures, generator_for(0))
    assert torch.equal(noisy.labels, labels)
    assert (noisy.images - clean).std().item() == pytest.approx(sigma, rel=0.1)
    split = json.loads((noise / "split.json").read_text())
    assert list(found.images.dataset.subjects) == split["train"]


def test_an_augmenter_that_is_no_known_corruption_is_that_of_the_last_checkpoint(tmp_path, cache):
    settings = {"augmenter": "nonparametric", "network": "4,4", "generator": "cornucopia", "outer__reference": "random"}
    run = carried_out(tmp_path / "run", cache, "inu", **settings)
    found = images(run)
    assert isinstance(found.images.source, Augmented)
    kept = load_checkpoint(run / "checkpoints" / "sigma=0.1-learn" / "final.pt")["trainer"]["outer"]
    state = found.images.source.augmenter.state_dict()
    assert {name: value.tolist() for name, value in state.items()} == {
        name: value.tolist() for name, value in kept.items()
    }
    assert not found.images.source.augmenter.training
    path = run / "checkpoints" / "sigma=0.1-learn" / "final.pt"
    path.unlink()
    assert refused(RunError, run) == f"{path}: the checkpoint cannot be read: No such file or directory"


def test_fields_and_noise_are_what_was_learned_of_them(tmp_path, cache):
    source = images(carried_out(tmp_path / "run", cache, "inu")).images.source
    assert isinstance(source, Corrupted)
    assert isinstance(source.corruption, Corruptions)


def test_a_comparison_has_images_of_each_augmentation_and_number_of_people(comparison, cache):
    found = images(comparison, "n=2/parametric_fixed")
    source = found.images.source
    assert isinstance(source, Fitted)
    assert isinstance(source.source, Augmented)
    learned = load_augmenter(comparison / "learned" / "n=2-parametric_fixed.augmenter").augmenter
    assert source.source.augmenter.observed() == learned.observed()
    with Cache(cache) as opened:
        assert source.shape == opened.shape
    assert refused(UsageError, comparison) == (
        f"{comparison}: holds training images of 2 stages; choose one with --stage: n=1/parametric_fixed, "
        "n=2/parametric_fixed"
    )
    assert refused(UsageError, comparison, "naive") == (
        f"--stage naive: {comparison} has no training images of this stage; it has n=1/parametric_fixed, "
        "n=2/parametric_fixed"
    )


def test_what_is_learned_without_labels_is_the_mean_of_the_last_generators(tmp_path, cache):
    run = tiny_unpaired.carry_out(tmp_path / "run", cache)
    found = images(run, "intensities").images.source.source
    assert isinstance(found, Generated)
    kept = load_checkpoint(run / "checkpoints" / "intensities-generator" / "final.pt")["trainer"]["mean"]
    state = found.learned.state_dict()
    assert {name: value.tolist() for name, value in state.items()} == {
        name: value.tolist() for name, value in kept.items()
    }
    example = found(images(run, "nonparametric").images.dataset.read([0]), generator_for(0))
    assert example.images.shape == (1, 1, 16, 16)


def test_label_maps_alone_have_the_images_of_their_training(tmp_path, cache):
    settings = {"segmenter.widths": "4,8", "segmenter.batch_size": "2", "segmenter.steps": "2", "pace.workers": "0"}
    settings |= {"synthesis.elastic_nodes": "4", "synthesis.bias": "4"}
    overrides = [f"{key}={value}" for key, value in settings.items()]
    options = {"seed": 1, "device": "cpu", "threads": 1, "quiet": True, "data": cache, "overrides": overrides}
    execute(label_maps.EXPERIMENT, tmp_path / "run", **options)
    found = images(tmp_path / "run")
    assert (found.stage, type(found.images.source)) == ("segmenter", Mixed)
    with Cache(cache) as opened:
        assert len(found.images.dataset.subjects) < len(opened.subjects)


def test_a_run_that_has_none_is_refused_in_a_line(tmp_path, cache, noise, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_experiment", lambda name: load_experiment("ridge"))
        assert refused(UsageError, noise) == f"{noise}: a run of 'ridge' has no training images"
    run = tmp_path / "naive"
    tiny_comparison.carry_out(real_world.EXPERIMENT, run, cache, methods="naive")
    assert refused(UsageError, run) == f"{run}: this run has learned nothing about its training images"
    gone = tmp_path / "gone"
    assert refused(UsageError, gone) == f"{gone}: holds no run (config.json is missing)"
    shutil.copytree(noise, tmp_path / "begun")
    (tmp_path / "begun" / "results.json").unlink()
    line = f"{tmp_path / 'begun'}: the run has no results yet; continue it with --resume"
    assert refused(UsageError, tmp_path / "begun") == line


def test_a_run_whose_files_or_data_were_changed_is_refused_in_a_line(tmp_path):
    cache = make_cache(tmp_path / "c.h5")
    run = carried_out(tmp_path / "run", cache)
    digest = json.loads((run / "config.json").read_text())["data"]["digest"]
    make_cache(cache, subjects=6)
    with Cache(cache) as opened:
        new = opened.info.digest
    assert refused(DataError, run) == (
        f"{run}: its data are not what it was made with: data.digest: {digest!r} -> {new!r}"
    )
    cache.unlink()
    assert refused(DataError, run) == f"{cache}: cannot be opened: No such file or directory"
    metrics = run / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + "\n")
    assert (
        refused(DataError, run)
        == f"{metrics}: was changed since the run wrote it (its SHA-256 is not that of SHA256SUMS)"
    )


def test_nothing_of_the_run_is_changed(noise):
    before = {path: path.read_bytes() for path in noise.rglob("*") if path.is_file()}
    images(noise, "sigma=0.05/learn")
    assert {path: path.read_bytes() for path in noise.rglob("*") if path.is_file()} == before
    with RunFolder.open(noise) as folder:
        assert np.isfinite(folder.results["wall_s"])
