"""The study of noise and intensity non-uniformity at a size that takes seconds, through the command line."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from metasynth.data_prep.cohorts.cohort import COHORTS
from metasynth.experiments.inu import EXPERIMENT, PRESETS, InuConfig
from support.tiny_noise import arguments, make_cache

from metasynth.augment.bias_field import KnownBias
from metasynth.cli.main import main
from metasynth.report.published import NOISE_AND_INU
from metasynth.running.settings.config import from_dict, to_dict
from metasynth.running.study import load_experiment
from metasynth.training.courses import tail_of, trajectory_of
from metasynth.training.evaluation import make_test_set

FIELDS = ("c_low", "c_mid", "c_high")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache") / "labels.h5")


def carried_out(run, cache, **settings):
    command = arguments(run, cache, seed=2, **settings)
    command[1] = "inu"
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads((run / "results.json").read_text())["rows"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache):
    run = tmp_path_factory.mktemp("inu") / "run"
    carried_out(run, cache, c="0.2,0.5,0.8", start_c="0.4", sigma="0.05,0.1")
    return run


def rows_of(run):
    return json.loads((run / "results.json").read_text())["rows"]


def test_rows_hold_the_exponents_beside_the_noise(run):
    rows = rows_of(run)
    assert [(row["model"], row["sigma_true"]) for row in rows] == [(m, s) for s in (0.05, 0.1) for m in "NLO"]
    for row in rows:
        assert row["augmenter"] == "parametric"
        assert row["c_true"] == [0.2, 0.5, 0.8]
        assert len(row["c_learned"]) == len(row["c_sd"]) == 3
        assert all(0 < c < 1 for c in row["c_learned"])
        assert row["c_learned"] != [0.4] * 3
        assert list(row["dice"]) == ["0", "0.1"]


def test_what_is_reported_is_the_mean_over_the_last_tenth(run):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    learned = [row for row in rows_of(run) if row["model"] == "L"]
    for row, label in zip(learned, ("0.05", "0.1"), strict=True):
        stage = f"sigma={label}/learn"
        values = [trajectory_of(records, stage, name)[1] for name in (*FIELDS, "sigma")]
        means, deviations = zip(*map(tail_of, values), strict=True)
        assert (*row["c_learned"], row["sigma_learned"]) == means
        assert (*row["c_sd"], row["sigma_sd"]) == deviations


def test_the_report_shows_tables_3_and_4_and_every_course(run):
    table = (run / "table.md").read_text()
    for heading in ("preset σ", "preset c", "learned c", "segmenter"):
        assert heading in table
    assert all(name in table for name in FIELDS)
    figures = {path.stem for path in (run / "figures").glob("*.png")}
    assert figures == {"sigma", "exponents-0", "exponents-1", "images", "segmentation", "dice"}
    page = (run / "report.html").read_text()
    assert "exponents 0." in page
    assert "0.049" in table  # what the paper reports for 0.05


def test_images_of_the_report_are_clean_learned_and_real(run):
    with np.load(run / "examples.npz") as shown:
        clean, learned, real = (shown[f"0.05/{name}"] for name in ("noise_free", "learned", "real"))
    assert -0.1 < clean.min() < clean.max() < 1.5
    assert np.abs(real - clean).mean() > 0.03
    assert np.abs(learned - clean).mean() > 0.03
    assert not np.array_equal(learned, real)


def test_test_images_have_the_preset_fields(run, cache):
    from metasynth.data.cache import Cache
    from metasynth.data.dataset import SliceDataset

    class Ones:
        def __call__(self, labels, generator):
            return 0 * labels[:, None].float() + 1, labels

    with Cache(cache) as opened:
        dataset = SliceDataset(opened, opened.subjects)
        test = make_test_set(dataset, Ones(), 0, 2, KnownBias((0.2, 0.5, 0.8)))
        plain = make_test_set(dataset, Ones(), 0, 2)
    assert (test.clean == 1).all()
    assert (plain.images == 1).all()
    logs = test.images.log().flatten(1)
    assert (logs.std(1) > 0.02).all()
    assert not np.array_equal(test.images[0], test.images[-1])  # one field an image


@pytest.mark.parametrize("level", ["0.05", "0.025:0.2"])
def test_a_network_may_be_learned_instead(tmp_path, cache, level):
    rows = carried_out(tmp_path / "run", cache, augmenter="nonparametric", network="4,4", sigma=level)
    assert [row["model"] for row in rows] == ["N", "L", "O"]
    assert {row["augmenter"] for row in rows} == {"nonparametric"}
    assert all("c_learned" not in row for row in rows)
    assert not list((tmp_path / "run" / "figures").glob("exponents*"))
    table = (tmp_path / "run" / "table.md").read_text().splitlines()
    assert table[4].count("–") == 2  # neither an error nor the paper's value belongs to this sigma
    with np.load(tmp_path / "run" / "examples.npz") as shown:
        label = next(iter(shown)).partition("/")[0]
        assert np.abs(shown[f"{label}/learned"] - shown[f"{label}/noise_free"]).max() > 0


def test_images_that_do_not_fit_the_network_are_told_before_the_run(tmp_path, cache):
    command = arguments(tmp_path / "run", cache, seed=2, augmenter="nonparametric", network="2,2,2,2,2,2")
    command[1] = "inu"
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    expected = "images of 16 x 16 cannot be halved 5 times; expected sizes divisible by 32 for an augmenting network of"
    assert done.output.splitlines()[-1] == f"Error: {cache}: {expected} 6 levels (network)"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    config = PRESETS[name]
    assert from_dict(InuConfig, json.loads(json.dumps(to_dict(config)))) == config
    assert config.cohort in COHORTS
    assert config.c == (0.5, 0.5, 0.5)
    assert config.nodes == (2, 4, 8)
    # It has to be found, not kept: from above, but for a network, which begins nearly clean.
    means = [(level.low + level.high) / 2 for level in config.sigma]
    if config.augmenter == "parametric":
        assert all(mean < config.start for mean in means)
    assert all(2 * mean < config.start or 2 * config.start < mean for mean in means)
    assert all(abs(config.start_c - c) > 0.3 for c in config.c)
    assert load_experiment("inu") is EXPERIMENT


def test_published_values():
    assert NOISE_AND_INU["table_3"] == [0.018, 0.049, 0.085, 0.147, 0.134]
    for rows in NOISE_AND_INU["table_4"].values():
        assert [len(row) for row in rows] == [5] * 5
    assert NOISE_AND_INU["table_4"]["nonparametric"][4][4] == 0.850


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"c": (0.5, -0.1, 0.5)}, "c must be three numbers of at least 0"),
        ({"start_c": 1.0}, "start_c must be between 0 and 1, got 1.0"),
        ({"nodes": (1, 4, 8)}, "nodes must be at least 2"),
        ({"network": ()}, "network must list at least one width"),
        ({"start": 0.0}, "start must be a positive number"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        InuConfig(**settings)
