"""The study of section 4.2.2 at a size that takes seconds: sizes, contrasts, test sets and their report."""

import json

import pytest
from click.testing import CliRunner
from metasynth.data_prep.cohorts import cohort
from metasynth.data_prep.cohorts.cohort import COHORTS
from metasynth.experiments.cross_contrast import EXPERIMENT, FLASH, PRESETS, CrossContrastConfig
from support.tiny_comparison import SETTINGS, carry_out, real_cache, rename, results
from support.tiny_noise import make_cache

from metasynth.cli.main import main
from metasynth.errors import UsageError
from metasynth.running.settings.config import from_dict, to_dict

METHODS = ("naive", "supervised", "parametric_fixed")
ASKED = {"methods": ",".join(METHODS), "subjects__train": "1,2,0", "segmenter__steps": "4"}


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """MPRAGE of seven people, two contrasts of them and two others, label maps of four more."""
    folder = tmp_path_factory.mktemp("caches")
    for name, contrast in (("mprage", 1.0), ("flash-3", 0.3), ("flash-30", 2.0)):
        real_cache(folder / f"{name}.h5", contrast, subjects=7 if name == "mprage" else 9)
    rename(make_cache(folder / "labels.h5", subjects=4), lambda index, name: f"other {name}")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, caches):
    run = tmp_path_factory.mktemp("cross") / "run"
    tests = ",".join(f"{name}={caches / f'{name}.h5'}" for name in ("flash-3", "flash-30"))
    carry_out(EXPERIMENT, run, caches / "mprage.h5", labels=str(caches / "labels.h5"), tests=tests, **ASKED)
    return run


def test_each_size_is_trained_and_tested_on_the_same_subjects(run):
    rows = results(run)
    assert [(row["method"], row["subjects"]) for row in rows if row["checkpoint"] == "best"] == [
        ("naive", 0),
        *((method, n) for n in (1, 2, 5) for method in METHODS[1:]),
    ]
    assert len({json.dumps(row["dice"]) for row in rows}) >= 1 + 3 * 2
    split = json.loads((run / "split.json").read_text())
    for row in rows:
        assert list(row["dice"]) == ["MPRAGE", "flash-3", "flash-30"]
        assert list(row["dice"]["MPRAGE"]["per_subject"]) == split["test"]
        for name in ("flash-3", "flash-30"):
            assert list(row["dice"][name]["per_subject"]) == split[f"test {name}"]
    assert set(split["test flash-3"]) == {*split["test"], "s7", "s8"}
    assert all(name.startswith("other") for name in split["maps"])


def test_the_manifest_names_every_cache(run, caches):
    data = json.loads((run / "config.json").read_text())["data"]
    assert set(data["others"]) == {"labels", "tests.flash-3", "tests.flash-30"}
    assert len({data["digest"], *(other["digest"] for other in data["others"].values())}) == 4


def test_the_report(run):
    table = (run / "table.md").read_text()
    for text in ("Supervised U-Net (1)", "Supervised U-Net (5)", "flash-30", "0.419", "5, 5, 29"):
        assert text in table
    figures = {path.stem for path in (run / "figures").iterdir()}
    assert figures == {"dice", "segmentation-0", "segmentation-1", "segmentation-2", "augmentation", "sigma"}


@pytest.mark.parametrize("generation", [False, True], ids=["classes", "structures"])
def test_remapped_images_of_the_test_people(tmp_path, monkeypatch, generation):
    """From the command line: nobody who is learned from is tested, and all that shows their Dice says REMAPPED."""
    monkeypatch.chdir(tmp_path)
    real_cache(tmp_path / "t1.h5", subjects=8, generation=generation)
    for name, curve in (("inverted", "inverted"), ("own", "0:0.5,0.5:1,1:0")):
        done = CliRunner().invoke(main, ["prep", "remap", "t1.h5", "--curve", curve, "--out", f"{name}.h5"])
        assert done.exit_code == 0, done.output
    changed = {
        **SETTINGS,
        "methods": "naive,supervised",
        "tests": "inverted=inverted.h5,own=own.h5",
        "subjects.validation": "2",
        "subjects.test": "3",
    }
    words = [word for key, value in changed.items() for word in ("--set", f"{key}={value}")]
    command = ["run", "cross_contrast", "--data", "t1.h5", "--out", "run", "--device", "cpu", "--threads", "1"]
    done = CliRunner().invoke(main, [*command, "--quiet", *words])
    assert done.exit_code == 0, done.output
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    for name in ("test inverted", "test own"):
        assert sorted(split[name]) == sorted(split["test"])
        assert not set(split[name]) & {*split["train"], *split["val"], *split["maps"]}
    rows = results(tmp_path / "run")
    for row in rows:
        assert {name: dice.get("marks") for name, dice in row["dice"].items()} == {
            "MPRAGE": None,
            "inverted": ["REMAPPED"],
            "own": ["REMAPPED"],
        }
        assert row["dice"]["inverted"]["per_subject"] != row["dice"]["MPRAGE"]["per_subject"]
    page = (tmp_path / "run" / "report.html").read_text()
    for text in (
        *("<th>MPRAGE</th>", "<th>inverted, REMAPPED</th>", "<th>own, REMAPPED</th>", "A test image (own, REMAPPED),"),
        "tested on 3 (MPRAGE), 3 (inverted, REMAPPED), 3 (own, REMAPPED), the same",
    ):
        assert text in page, text
    table = (tmp_path / "run" / "table.md").read_text()
    assert (
        len([line for line in table.splitlines() if line.startswith("| inverted, REMAPPED ")]) == 3
    )  # classes, difference


def test_other_contrasts_are_needed(caches, tmp_path):
    with pytest.raises(UsageError, match="tests: needs caches of other contrasts"):
        carry_out(EXPERIMENT, tmp_path / "run", caches / "mprage.h5")


def test_the_embedded_cohorts(caches, monkeypatch):
    asked = []

    def ensure(spec, progress=None):
        asked.append(spec.name)
        stem = spec.name.rpartition("-")[0]
        return caches / {"mprage-young": "mprage.h5", "template": "labels.h5"}.get(stem, "flash-3.h5")

    monkeypatch.setattr(cohort, "ensure_cohort", ensure)
    for name, size in {"quick": "64", "standard": "96", "paper": "192"}.items():
        config = PRESETS[name]
        asked.clear()
        prepared = EXPERIMENT.prepare(config, None, _Silent())
        assert asked == [f"{stem}-{size}" for stem in ("mprage-young", "template", *FLASH)]
        assert all(cohort in COHORTS for cohort in asked)
        assert set(prepared.others) == {"labels", *(f"tests.{name}" for name in FLASH)}
        assert from_dict(CrossContrastConfig, json.loads(json.dumps(to_dict(config)))) == config


class _Silent:
    """Progress that nobody sees."""

    def counter(self, name):
        return self

    def __enter__(self):
        return None

    def __exit__(self, *_):
        return None
