"""The study of section 4.2.1 at a size that takes seconds: every method, resumption, the report and other caches."""

import csv
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from metasynth.data_prep.cohorts.cohort import COHORTS
from metasynth.experiments.comparison.methods import BILEVEL_METHODS, METHODS
from metasynth.experiments.comparison.study import stage_name
from metasynth.experiments.noise import EXPERIMENT as NOISE
from metasynth.experiments.real_world import EXPERIMENT, PRESETS, RealWorldConfig
from support.tiny_comparison import CLASSES, FINETUNE, SETTINGS, STEPS, carry_out, real_cache, rename, results
from support.tiny_noise import make_cache

from metasynth.cli.main import main
from metasynth.errors import UsageError
from metasynth.run import execute
from metasynth.running import study
from metasynth.running.checkpoint import load_checkpoint
from metasynth.running.records import RunFolder
from metasynth.running.settings.config import from_dict, to_dict
from metasynth.segment.atlas.segmenter import AtlasSegmenter
from metasynth.segment.model_file import load_model

SUBJECTS = 6
NAMES = [name for name in METHODS if not METHODS[name].sized] + [name for name in METHODS if METHODS[name].sized]
STAGES = [stage_name(name, 2) for name in NAMES if name not in ("interpolated", "atlas")]
ALL, FEW = ",".join(METHODS), "naive,finetuned"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return real_cache(tmp_path_factory.mktemp("cache") / "real.h5", subjects=SUBJECTS)


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache):
    run = tmp_path_factory.mktemp("real") / "run"
    carry_out(EXPERIMENT, run, cache, methods=ALL)
    return run


def records(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def split_of(run):
    return json.loads((run / "split.json").read_text())


def test_every_method_has_a_row_for_its_best_and_last_checkpoint(run):
    rows = results(run)
    trained = [name for name in [*NAMES, "learn2synth"] if name != "atlas"]
    assert [(row["method"], row["checkpoint"]) for row in rows if row["method"] != "atlas"] == [
        (name, checkpoint) for name in trained for checkpoint in ("best", "last")
    ]
    assert [row["checkpoint"] for row in rows if row["method"] == "atlas"] == ["only"]
    test = split_of(run)["test"]
    for row in rows:
        sizes = {"naive": 0, "clustered": 0, "atlas": 0, "supervised_all": SUBJECTS - 2}
        assert row["subjects"] == sizes.get(row["method"], 2)
        if row["method"] == "atlas":  # nothing to choose
            assert row["validation"] is None
        else:
            assert 0 <= row["validation"] <= 1
        dice = row["dice"]["test"]
        assert list(dice["per_subject"]) == list(dice["per_subject_class"]) == test
        assert list(dice["per_class"]) == list(CLASSES)
        for subject in test:
            foreground = dice["per_subject_class"][subject][1:]
            assert dice["per_subject"][subject] == pytest.approx(np.mean(foreground))


def test_budgets_are_equal_but_where_the_paper_says_otherwise(run):
    steps = {row["method"]: row["steps"] for row in results(run)}
    assert steps.pop("finetuned") == FINETUNE
    assert steps.pop("interpolated") == steps.pop("atlas") == 0
    assert set(steps.values()) == {STEPS}
    counts = {stage: sum(record["stage"] == stage for record in records(run)) for stage in STAGES}
    assert counts.pop("n=2/finetuned") == FINETUNE
    assert set(counts.values()) == {STEPS}


def test_costs_add_up(run):
    rows = {r["method"]: r for r in json.loads((run / "results.json").read_text())["rows"] if r["checkpoint"] == "best"}
    assert all(row["peak_mib"] > 0 for name, row in rows.items() if name != "interpolated")
    assert all(row["wall_s"] > 0 for name, row in rows.items() if name != "interpolated")
    both = rows["naive"]["wall_s"] + rows["finetuned"]["wall_s"]
    assert rows["finetuned"]["total_s"] == pytest.approx(both, abs=0.002)
    assert rows["learn2synth"]["total_s"] == pytest.approx(
        sum(rows[name]["wall_s"] for name in BILEVEL_METHODS), abs=0.005
    )


def test_the_chosen_variant_is_the_best_on_validation(run):
    rows = results(run)
    for checkpoint in ("best", "last"):
        variants = {r["method"]: r for r in rows if r["method"] in BILEVEL_METHODS and r["checkpoint"] == checkpoint}
        (chosen,) = (r for r in rows if r["method"] == "learn2synth" and r["checkpoint"] == checkpoint)
        assert chosen["validation"] == max(row["validation"] for row in variants.values())
        assert chosen["dice"] == variants[chosen["variant"]]["dice"]
    assert next(row for row in rows if row["method"] == "optimised")["augmenter"] in BILEVEL_METHODS


def test_the_best_checkpoint_is_the_best_look_at_the_validation_subjects(run):
    looks = {
        stage: [r["validation"] for r in records(run) if r["stage"] == stage and "validation" in r] for stage in STAGES
    }
    assert {len(values) for values in looks.values()} == {STEPS // 2, 2}
    for row in results(run):
        stage = stage_name(row["method"], 2) if row["method"] in METHODS else ""
        if stage in looks:
            assert row["validation"] == (max(looks[stage]) if row["checkpoint"] == "best" else looks[stage][-1])


def test_learned_parameters_moved(run):
    for row in results(run):
        if row["method"] in BILEVEL_METHODS:
            assert row["learned"]["sigma"] != pytest.approx(0.1, abs=1e-4)
            assert ("c_low" in row["learned"]) == (not row["method"].startswith("nonparametric"))


def interrupted_in(run, cache, stage, monkeypatch):
    """Go on with a run until shortly after the first checkpoint of a stage.

    Without the fits of the atlas, of which such a session keeps nothing.
    """
    append = RunFolder.append

    def stopping(folder, record):
        if record["stage"] == stage and record["step"] == 4 - (stage == "n=2/finetuned"):
            raise KeyboardInterrupt
        append(folder, record)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", stopping)
        patch.setattr(AtlasSegmenter, "segment", lambda _, images: torch.zeros_like(images[:, 0], dtype=torch.int64))
        with pytest.raises(KeyboardInterrupt):
            carry_out(EXPERIMENT, run, cache, methods=ALL, resume=(run / "config.json").is_file())


def test_a_run_interrupted_in_every_method_ends_as_one_that_was_not(run, cache, tmp_path, monkeypatch):
    again = tmp_path / "again"
    for stage in STAGES:
        interrupted_in(again, cache, stage, monkeypatch)
    assert load_checkpoint(again / "checkpoints" / STAGES[-1].replace("/", "-") / "latest.pt")["step"] == 2
    carry_out(EXPERIMENT, again, cache, methods=ALL, resume=True)
    assert results(again) == results(run)
    assert (again / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    with np.load(again / "examples.npz") as ours, np.load(run / "examples.npz") as theirs:
        assert ours.files == theirs.files
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours.files)
    for path in (run / "models").iterdir():
        ours, theirs = (load_model(one).network.state_dict() for one in (again / "models" / path.name, path))
        assert all(bool((ours[name] == theirs[name]).all()) for name in theirs)


def test_models_of_both_checkpoints_are_kept(run):
    names = {path.stem for path in (run / "models").iterdir()}
    stages = [*STAGES, "n=2/interpolated"]
    assert names == {f"{stage.replace('/', '-')}-{which}" for stage in stages for which in ("best", "last")}


def test_tables_and_figures(run):
    table = (run / "table.md").read_text()
    for text in ("Naive SynthSeg", "difference to naive", "peak memory", "white matter", "0.869", "c_mid"):
        assert text in table
    assert not any("0.869" in line and "Learn2Synth, chosen" in line for line in table.splitlines())
    assert {path.stem for path in (run / "figures").iterdir()} == {
        *("dice", "segmentation-0", "augmentation", "sigma", "priors"),
        *("n=2-synthesis_random.priors", "n=2-synthesis_estimated.priors"),
    }
    assert len(list(csv.DictReader((run / "table.csv").read_text().splitlines()))) == 2 * len(METHODS) + 1
    with np.load(run / "examples.npz") as shown:
        field = shown["augmentation/parametric_fixed/2/field"]
        parts = [shown[f"augmentation/parametric_fixed/2/{name}"] for name in ("synthetic", "noise", "augmented")]
        np.testing.assert_allclose(parts[0] * field + parts[1], parts[2], atol=1e-6)
        assert np.ptp(field) > 0.05
        assert "augmentation/nonparametric_fixed/2/network" in shown
    assert "Label maps of 4 subjects" in (run / "report.html").read_text()


class Point:
    """An entry point, whether or not the package was installed since it was added."""

    value = "here"

    def __init__(self, experiment):
        self.experiment = experiment

    def load(self):
        return self.experiment


def test_label_maps_of_other_people(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(study, "discover_experiments", lambda: {"real_world": Point(EXPERIMENT), "noise": Point(NOISE)})
    labels = make_cache(tmp_path / "labels.h5", subjects=8, shape=(12, 20))
    rename(labels, lambda index, name: name if index < 3 else f"other {name}")
    refused = CliRunner().invoke(main, ["run", "noise", "--label-cache", str(labels), "--out", str(tmp_path / "no")])
    assert refused.exit_code == 2
    assert "experiment 'noise' takes no label maps of their own" in refused.stderr
    run = tmp_path / "run"
    settings = SETTINGS | {"methods": "naive,parametric_fixed", "fit_labels": "true", "segmenter.steps": "4"}
    command = ["run", "real_world", "--data", str(cache), "--label-cache", str(labels), "--out", str(run), "--quiet"]
    command += ["--device", "cpu", "--threads", "1"]
    command += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    split = split_of(run)
    assert {f"other s{i}" for i in range(3, 8)} <= set(split["maps"])
    assert not set(split["maps"]) & {*split["val"], *split["test"]}
    manifest = json.loads((run / "config.json").read_text())
    assert manifest["data"]["others"]["labels"]["path"] == str(labels)
    assert manifest["config"]["labels"] == str(labels)
    assert [row["method"] for row in results(run)] == ["naive"] * 2 + ["parametric_fixed"] * 2


def test_a_run_goes_on_with_the_same_label_maps_only(tmp_path, cache, monkeypatch):
    labels = make_cache(tmp_path / "labels.h5", subjects=8)
    other = make_cache(tmp_path / "other.h5", subjects=7)
    run = tmp_path / "run"

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", stop)
        with pytest.raises(KeyboardInterrupt):
            carry_out(EXPERIMENT, run, cache, labels=str(labels), methods=FEW)
    for changed in ({"labels": str(other)}, {}):
        with pytest.raises(UsageError, match=r"cannot resume with other settings: .*data\.others\.labels\.digest"):
            carry_out(EXPERIMENT, run, cache, resume=True, methods=FEW, **changed)
    labels.rename(tmp_path / "moved.h5")
    execute(EXPERIMENT, run, labels=tmp_path / "moved.h5", resume=True, quiet=True)  # all else as it was
    assert {row["method"] for row in results(run)} == set(FEW.split(","))


def test_a_grid_has_the_same_tables(run):
    class Grid:
        results = {  # noqa: RUF012 - what a folder of a grid has
            "seeds": [0],
            "vary": {"subjects.rotation": [0, 1]},
            "rows": [
                {"seed": 0, "subjects.rotation": rotation, **row}
                for rotation in range(2)
                for row in RunFolder.open(run).results["rows"]
            ],
        }
        finished = (None, None)

    content = EXPERIMENT.grid_report(Grid())
    one = EXPERIMENT.report(RunFolder.open(run))
    shared = [table for table in one.tables if table.columns[0] != "structure"]  # every run estimates for itself
    assert [table.columns[:7] for table in content.tables] == [table.columns[:7] for table in shared]
    assert [line[:7] for line in content.tables[1].rows] == list(one.tables[1].rows)  # both tested the same subject
    assert {line[8] for line in content.tables[1].rows} == {2}
    assert content.summary[0].startswith("2 runs")
    assert any("Learn2Synth, chosen on validation: " in text for text in content.summary)


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    config = PRESETS[name]
    assert from_dict(RealWorldConfig, json.loads(json.dumps(to_dict(config)))) == config
    assert config.cohort in COHORTS
    size = int(config.cohort.rpartition("-")[2])
    assert size % 2 ** (len(config.segmenter.widths) - 1) == 0


def test_the_preset_nnunet_has_nnunets_own_network():
    pytest.importorskip("dynamic_network_architectures")
    network = PRESETS["nnunet"].segmenter.build(5, 2, torch.Generator(), (192, 192), (1.0, 1.0))
    assert network.recipe["features"] == (32, 64, 128, 256, 512, 512)
    assert type(network.network).__name__ == "PlainConvUNet"
