"""The study of the supplement's section 10 at a size that takes seconds: rows, resumption, the report, refusals."""

import json
from dataclasses import replace

import numpy as np
import pytest
from metasynth.data_prep.cohorts.cohort import COHORTS
from metasynth.experiments.unpaired import EXPERIMENT, PRESETS, UnpairedConfig
from metasynth.experiments.unpaired.methods import TITLES, VARIANTS
from metasynth.experiments.unpaired.settings import PeopleSettings
from support.tiny_comparison import CLASSES, real_cache, rename, results
from support.tiny_noise import make_cache
from support.tiny_unpaired import SETTINGS, carry_out

from metasynth.errors import DataError, UsageError
from metasynth.run import execute
from metasynth.running.progress import Progress
from metasynth.running.records import RunFolder
from metasynth.running.settings.config import apply_overrides, from_dict, to_dict
from metasynth.segment.model_file import load_model

SUBJECTS = 7
METHODS = tuple(SETTINGS["methods"].split(","))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return real_cache(tmp_path_factory.mktemp("cache") / "real.h5", subjects=SUBJECTS)


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache):
    return carry_out(tmp_path_factory.mktemp("unpaired") / "run", cache)


def test_another_network_than_the_u_net(tmp_path, cache):
    """Its levels follow from the images, so the segmenter has to be made for them."""
    settings = {"segmenter.network": "nnunet", "segmenter.widths": "4,8", "methods": "naive"}
    run = carry_out(tmp_path / "run", cache, **settings)
    assert [row["method"] for row in results(run)] == ["naive"]
    assert load_model(run / "models" / "naive.pt").network.recipe["kind"] == "nnunet"


def split_of(run):
    return json.loads((run / "split.json").read_text())


def test_a_row_for_every_method_and_nobody_is_learned_from_twice(run):
    rows, split = results(run), split_of(run)
    assert [row["method"] for row in rows] == list(METHODS)
    assert {row["checkpoint"] for row in rows} == {"last"}
    people = [*split["maps"], *split["scans"], *split["val"], *split["test"]]
    assert len(people) == len(set(people)) == SUBJECTS
    for row in rows:
        assert row["subjects"] == (0 if row["method"] == "naive" else len(split["scans"]))
        assert list(row["dice"]["test"]["per_subject"]) == split["test"]
        if row["method"] in VARIANTS:
            assert 0 <= row["learned"]["accuracy"] <= 1
            assert row["learned"]["sigma"] != pytest.approx(0.05, abs=1e-5)
            assert ("mean_1" in row["learned"]) == (row["method"] == "intensities")
            assert list(row["intensities"]) == list(CLASSES[1:])


def test_the_discriminator_is_recorded(run):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    course = [r for r in records if r["stage"] == "intensities/generator"]
    assert [("outer_step" in r) for r in course] == [False, False, True, True, True, True]
    wanted = {"real_loss", "synthetic_loss", "accuracy", "hypergradient_norm", "outer_loss", "mean_2", "c_1"}
    assert wanted <= set(course[-1])


def interrupted_in(run, cache, stage, monkeypatch):
    append = RunFolder.append

    def stopping(folder, record):
        if record["stage"] == stage and record["step"] == 4:
            raise KeyboardInterrupt
        append(folder, record)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", stopping)
        with pytest.raises(KeyboardInterrupt):
            carry_out(run, cache, resume=(run / "config.json").is_file())


def test_a_run_interrupted_in_stages_of_both_kinds_ends_as_one_that_was_not(run, cache, tmp_path, monkeypatch):
    again = tmp_path / "again"
    for stage in ("nonparametric/generator", "intensities/generator", "intensities/segmenter"):
        interrupted_in(again, cache, stage, monkeypatch)
    carry_out(again, cache, resume=True)
    assert results(again) == results(run)
    assert (again / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    with np.load(again / "examples.npz") as ours, np.load(run / "examples.npz") as theirs:
        assert ours.files == theirs.files
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours.files)
    assert {path.stem for path in (run / "models").iterdir()} == set(METHODS)
    for path in (run / "models").iterdir():
        ours, theirs = (load_model(one).network.state_dict() for one in (again / "models" / path.name, path))
        assert all(bool((ours[name] == theirs[name]).all()) for name in theirs)


def test_tables_and_figures(run):
    table = (run / "table.md").read_text()
    for text in ("Naive SynthSeg", "difference to naive", "grey matter", "test scans, by their labels", "mean_2"):
        assert text in table
    figures = {path.stem for path in (run / "figures").iterdir()}
    courses = {"told-apart", "learned-nonparametric", "learned-intensities"}
    assert figures == {"dice", "segmentation-0", "generated"} | courses
    assert "0.874" in (run / "report.html").read_text()


def test_without_a_learned_generator(tmp_path, cache):
    run = carry_out(tmp_path / "run", cache, methods="naive")
    assert [row["method"] for row in results(run)] == ["naive"]
    assert {path.stem for path in (run / "figures").iterdir()} == {"dice", "segmentation-0"}


def test_label_maps_of_other_people(tmp_path, cache):
    labels = rename(make_cache(tmp_path / "labels.h5", subjects=9), lambda i, old: old if i < 7 else f"other {old}")
    run = carry_out(tmp_path / "run", cache, labels=labels, methods="naive,intensities")
    split = split_of(run)
    assert set(split["scans"]) == set(split["train"])
    assert sorted(split["maps"]) == ["other s7", "other s8"]


def test_a_seed_that_leaves_no_label_maps_is_refused_before_there_is_a_folder(tmp_path, cache):
    """Label maps of two people, who may be among those whose scans are used, validated or tested."""
    labels = rename(make_cache(tmp_path / "labels.h5", subjects=2), lambda index, old: f"s{3 + index}")
    config = apply_overrides(PRESETS["quick"], [f"{k}={v}" for k, v in SETTINGS.items()])
    config = replace(config, labels=str(labels), people=PeopleSettings(scans=2))
    prepared = EXPERIMENT.prepare(config, cache, Progress(quiet=True))
    outcomes = {}
    for seed in range(30):
        try:
            EXPERIMENT.check(config, prepared, seed)
        except DataError as error:
            outcomes[seed] = str(error)
        else:
            outcomes[seed] = None
    assert {None, f"{labels}: has label maps only of people whose scans are used or tested"} <= set(outcomes.values())
    bad = next(seed for seed, message in outcomes.items() if message and "only of people" in message)
    options = {"seed": bad, "labels": labels, "device": "cpu", "threads": 1, "quiet": True}
    overrides = [*(f"{k}={v}" for k, v in SETTINGS.items()), "people.scans=2"]
    with pytest.raises(DataError, match="has label maps only of people whose scans are used or tested"):
        execute(EXPERIMENT, tmp_path / "run", overrides=overrides, data=cache, **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"methods": "naive,gan"}, UsageError, "methods: unknown method 'gan'"),
        ({"outer__reference": "random"}, UsageError, "outer.reference must be none"),
        ({"adversarial__real": "-1"}, UsageError, "synthetic and real must be at least 0"),
        ({"people__scans": "5"}, DataError, "asks for 5 subjects; there are 5 training subjects, of which at least 1"),
        ({"people__test": "5"}, DataError, "real.h5"),
        ({"discriminator__widths": "2,2,2,2,2,2"}, DataError, "16 x 16 cannot be halved 5 times"),
        (
            {"methods": "nonparametric", "generator__network": "2,2,2,2,2,2"},
            DataError,
            r"5 times; .*generator\.network",
        ),
    ],
)
def test_refused_in_one_line_before_there_is_a_folder(tmp_path, cache, settings, error, message):
    with pytest.raises(error, match=message) as caught:
        carry_out(tmp_path / "run", cache, **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    config = PRESETS[name]
    assert from_dict(UnpairedConfig, json.loads(json.dumps(to_dict(config)))) == config
    assert config.cohort in COHORTS
    assert set(config.methods) <= set(TITLES)
    size = int(config.cohort.rpartition("-")[2])
    for widths in (config.segmenter.widths, config.discriminator.widths):
        assert size % 2 ** (len(widths) - 1) == 0
