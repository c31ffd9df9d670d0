"""Priors in studies: estimated from the real images of a run, or from a file that starts its generator."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from metasynth.experiments import cross_contrast, real_world
from metasynth.experiments.real_images.estimated_priors import keep_estimate, priors_tables
from metasynth.experiments.real_images.tables import Naming
from support import tampering
from support.tiny_comparison import carry_out, real_cache, results
from support.tiny_noise import CLASSES, STRUCTURES, TARGET, session

from metasynth.data.cache import Cache
from metasynth.data.dataset import SliceDataset
from metasynth.errors import DataError, UsageError
from metasynth.running.integrity.json_files import with_digest, without_digest
from metasynth.running.records import RunFolder
from metasynth.synthesis import BatchedGenerator, Prior, StructurePriors, read_priors, write_priors
from metasynth.training.priors import estimate_from

STUDIES = ("noise", "inu", "real_world", "unpaired")
PRIORS = StructurePriors(
    (
        Prior("background", "background"),
        *(
            Prior(name, CLASSES[k], 0.2 * at, 0.01, 0.02)
            for at, (name, k) in enumerate(zip(STRUCTURES, TARGET, strict=True))
            if at
        ),
    )
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return real_cache(tmp_path_factory.mktemp("fine") / "fine.h5", subjects=8, generation=True)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("priors") / "priors.json"
    write_priors(path, PRIORS, {})
    return path


@pytest.fixture
def made(monkeypatch):
    """The priors of all generators that are asked for images, with the powers that these are raised to."""
    found = []
    synthesise = BatchedGenerator.synthesise

    def noted(self, labels, seeds):
        found.append((self.priors, self.config.gamma))
        return synthesise(self, labels, seeds)

    monkeypatch.setattr(BatchedGenerator, "synthesise", noted)
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache):
    run = tmp_path_factory.mktemp("estimated") / "run"
    carry_out(real_world.EXPERIMENT, run, cache, methods="naive,estimated", subjects__train="3")
    return run


def test_priors_are_those_of_the_real_subjects_to_learn_from(run, cache):
    subjects = json.loads((run / "split.json").read_text())["train"][:3]
    with Cache(cache) as opened:
        expected = estimate_from(SliceDataset(opened, subjects))
    assert read_priors(run / "priors.json") == expected.priors
    origin = json.loads((run / "priors.json").read_text())["from"]
    assert (origin["cache"], origin["subjects"]) == ("fine.h5", subjects)
    assert len(origin["digest"]) == 64
    assert list(origin["medians"]) == subjects
    assert origin["medians"][subjects[0]][0] is None
    assert origin["medians"][subjects[0]][1:] == pytest.approx(expected.medians[0, 1:])
    # Images of the test are label / 4 with noise of 0.05.
    assert expected.priors.mean[1:] == pytest.approx([0.25, 0.5, 0.75, 1.0], abs=0.03)


def test_a_run_goes_on_with_the_priors_that_it_has(tmp_path, cache):
    """Such as those of an earlier version, which may have estimated in another way."""
    with Cache(cache) as opened, session(tmp_path / "run") as context:
        dataset = SliceDataset(opened, opened.subjects[:3])
        first = keep_estimate(context.folder, "priors.json", dataset)
        assert first == estimate_from(dataset).priors
        value = json.loads((tmp_path / "run" / "priors.json").read_text())
        for label in value["labels"]:
            del label["cut"]
        value["labels"][2]["texture"] = 0.4
        (tmp_path / "run" / "priors.json").write_text(json.dumps(value))
        again = keep_estimate(context.folder, "priors.json", dataset)
        assert again.texture == (*first.texture[:2], 0.4, *first.texture[3:])
        assert json.loads((tmp_path / "run" / "priors.json").read_text()) == value


def test_its_row_names_the_file_and_its_report_shows_it(run):
    rows = {(row["method"], row["checkpoint"]): row for row in results(run)}
    assert [key for key, row in rows.items() if "priors" in row] == [("estimated", "best"), ("estimated", "last")]
    assert rows["estimated", "best"]["priors"] == "priors.json"
    assert rows["estimated", "best"]["subjects"] == 3
    table = (run / "table.md").read_text()
    assert "SynthSeg, estimated priors: intensities by structure" in table
    assert re.search(r"\| core +\| white matter +\|", table)
    assert (run / "figures" / "priors.png").stat().st_size > 5000
    assert "priors.json" in (run / "SHA256SUMS").read_text()


def test_only_the_estimated_method_draws_from_priors(tmp_path, cache, made, run):
    again = tmp_path / "run"
    carry_out(real_world.EXPERIMENT, again, cache, methods="naive,estimated", subjects__train="3")
    assert set(made) == {(None, 0.6), (read_priors(again / "priors.json"), 0.0)}
    assert results(again) == results(run)
    naive = tmp_path / "naive"
    carry_out(real_world.EXPERIMENT, naive, cache, methods="naive", subjects__train="3")
    assert results(naive) == [row for row in results(run) if row["method"] == "naive"]


def test_every_number_of_subjects_has_a_file(tmp_path, cache):
    run = tmp_path / "run"
    tests = f"other={real_cache(tmp_path / 'other.h5', subjects=8, generation=True)}"
    asked = {"methods": "estimated", "subjects__train": "1,3", "tests": tests}
    carry_out(cross_contrast.EXPERIMENT, run, cache, **asked)
    assert sorted(path.name for path in run.glob("priors*")) == ["priors-1.json", "priors-3.json"]
    assert read_priors(run / "priors-1.json").spread == (0,) * 5
    assert {row["priors"] for row in results(run)} == {"priors-1.json", "priors-3.json"}
    assert sorted(path.name for path in (run / "figures").glob("priors*")) == ["priors-1.png", "priors-3.png"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda value: value["labels"][1].update(mean=2.0), "mean of 'fluid': expected a number in [0, 1], got 2.0"),
        (
            lambda value: value["from"].pop("medians"),
            "from: expected an entry 'medians', got ['cache', 'digest', 'subjects']",
        ),
    ],
)
def test_a_changed_file_is_told_when_the_report_is_made_again(run, tmp_path, changed, message):
    copy = shutil.copytree(run, tmp_path / "copy")
    value = json.loads((copy / "priors.json").read_text())
    changed(value)
    (copy / "priors.json").write_text(json.dumps(value))
    rows = results(copy)
    path = copy / "priors.json"
    with pytest.raises(DataError, match=f"^{re.escape(f'{path}: {message}')}$"):
        priors_tables(RunFolder.open(copy), rows, Naming.of(rows, {}))


@pytest.mark.parametrize("study", STUDIES)
def test_a_file_starts_the_generator_of_every_study(study, tmp_path, cache, file, made):
    tampering.carry_out(study, tmp_path / "run", cache, changes={"synthesis.priors": str(file)})
    assert (PRIORS.of_labels(STRUCTURES, [CLASSES[k] for k in TARGET]), 0.6) in made
    other = json.loads((tmp_path / "run" / "config.json").read_text())["data"]["others"]["synthesis.priors"]
    assert other["path"] == str(file.resolve())
    assert len(other["digest"]) == 64


def test_clusters_and_baselines_draw_from_it_too(tmp_path, cache, file, made):
    asked = {"methods": "naive,clustered", "baseline__priors": str(file), "clustered__clusters": "2"}
    carry_out(real_world.EXPERIMENT, tmp_path / "run", cache, **asked)
    assert set(made) == {(PRIORS, 0.6), (PRIORS.repeated(2), 0.6)}


def test_a_run_is_resumed_with_the_same_file_wherever_it_is_and_no_other(tmp_path, cache, file, monkeypatch):
    run, own = tmp_path / "run", shutil.copy(file, tmp_path / "own.json")
    asked = {"methods": "naive", "baseline__priors": str(own)}
    carry_out(real_world.EXPERIMENT, run, cache, **asked)
    done = results(run)
    (run / "results.json").unlink()
    moved = {"methods": "naive", "baseline__priors": str(shutil.move(own, tmp_path / "moved.json"))}
    carry_out(real_world.EXPERIMENT, run, cache, resume=True, **moved)
    assert results(run) == done
    (run / "results.json").unlink()
    write_priors(
        tmp_path / "moved.json",
        StructurePriors((PRIORS.labels[0], *(replace(own, mean=0.1) for own in PRIORS.labels[1:]))),
        {},
    )
    with pytest.raises(
        UsageError, match=r"cannot resume with other settings: data\.others\.baseline\.priors\.digest: '\w+' -> '\w+'$"
    ):
        carry_out(real_world.EXPERIMENT, run, cache, resume=True, **moved)


def test_a_run_from_before_there_were_priors_is_resumed(tmp_path, cache):
    run = tmp_path / "run"
    carry_out(real_world.EXPERIMENT, run, cache, methods="naive")
    done, config = results(run), json.loads((run / "config.json").read_text())
    for group in ("synthesis", "baseline"):
        assert config["config"][group].pop("priors") == ""
    (run / "config.json").write_text(json.dumps(with_digest(without_digest(config))))
    for name in ("results.json", "checkpoints"):
        (shutil.rmtree if (run / name).is_dir() else Path.unlink)(run / name)
    (run / "metrics.jsonl").unlink()
    carry_out(real_world.EXPERIMENT, run, cache, methods="naive", resume=True)
    assert results(run) == done


@pytest.mark.parametrize(
    ("priors", "message"),
    [
        (None, "the file is missing"),
        (
            StructurePriors((Prior("background", "background"), Prior("bone", "skull", 0.2))),
            "expected values of 'cortex' or of its class 'grey matter', got those of bone in the classes background, "
            "skull; they are for {cache}",
        ),
    ],
)
@pytest.mark.parametrize("study", STUDIES)
def test_a_file_that_cannot_be_used_is_told_before_there_is_a_run(study, priors, message, tmp_path, cache):
    path = tmp_path / "priors.json"
    if priors is not None:
        write_priors(path, priors, {})
    with pytest.raises(DataError, match=f"^{re.escape(f'{path}: {message.format(cache=cache)}')}$"):
        tampering.carry_out(study, tmp_path / "run", cache, changes={"synthesis.priors": str(path)})
    assert not (tmp_path / "run").exists()


def test_cornucopia_takes_no_priors(tmp_path, cache, file):
    settings = {"synthesis.priors": str(file), "generator": "cornucopia", "outer.reference": "random"}
    with pytest.raises(UsageError, match=r"synthesis\.priors needs generator = batched, got cornucopia$"):
        tampering.carry_out("noise", tmp_path / "run", cache, changes=settings)
