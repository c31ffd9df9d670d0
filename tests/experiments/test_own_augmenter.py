"""An augmenter from outside the package goes through the studies to their reports."""

import json
from importlib.metadata import EntryPoint

import pytest
from metasynth.experiments.comparison.methods import in_order
from metasynth.experiments.inu import EXPERIMENT as INU
from metasynth.experiments.noise import EXPERIMENT as NOISE
from metasynth.experiments.real_world import EXPERIMENT as REAL_WORLD
from support.own_augmenter import AUGMENTER, Brightness
from support.tiny_comparison import carry_out, real_cache, results
from support.tiny_noise import SETTINGS, make_cache

from metasynth.augment import table
from metasynth.augment.entry import AugmenterEntry
from metasynth.augment.table import entry_of, names, register
from metasynth.errors import RunError, UsageError
from metasynth.run import execute


@pytest.fixture(autouse=True)
def own_table(monkeypatch):
    monkeypatch.setattr(table, "_TABLE", dict(table._TABLE))


@pytest.fixture
def registered():
    register(AUGMENTER)


def recovered(experiment, out, cache, augmenter="brightness", **settings):
    changed = SETTINGS | {"sigma": "0.1", "augmenter": augmenter} | settings
    overrides = [f"{key}={value}" for key, value in changed.items()]
    execute(experiment, out, overrides=overrides, seed=0, data=cache, device="cpu", threads=1, quiet=True)
    return json.loads((out / "results.json").read_text())["rows"]


@pytest.mark.parametrize("experiment", [NOISE, INU], ids=lambda one: one.name)
def test_recovery_studies_learn_it_and_show_its_values(registered, experiment, tmp_path):
    rows = recovered(experiment, tmp_path / "run", make_cache(tmp_path / "c.h5"))
    assert [row["model"] for row in rows] == ["N", "L", "O"]
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    last = [record["brightness"] for record in records if "outer_step" in record][-1]
    assert rows[1]["augmenter"] == "brightness"
    assert rows[1]["learned"] == {"brightness": pytest.approx(last)}
    assert last != pytest.approx(0.4, abs=1e-4)
    assert rows[2]["sigma_train"] is None
    assert "sigma_learned" not in rows[1]
    assert f"| 0.1      | brightness |   {last:.3f} |" in (tmp_path / "run" / "table.md").read_text()
    report = (tmp_path / "run" / "report.html").read_text()
    assert "changed by the augmenter brightness" in report
    assert f"learned brightness {last:.4f}." in report


def test_comparisons_train_it_as_a_method(registered, tmp_path):
    cache = real_cache(tmp_path / "c.h5", subjects=6)
    carry_out(REAL_WORLD, tmp_path / "run", cache, methods="brightness,optimised")
    rows = results(tmp_path / "run")
    assert [row["method"] for row in rows] == ["brightness"] * 2 + ["optimised"] * 2
    assert list(rows[0]["learned"]) == ["brightness"]
    assert rows[2]["augmenter"] == "brightness"
    assert "| Learn2Synth, brightness " in (tmp_path / "run" / "table.md").read_text()


def test_what_is_learned_is_trained_before_what_trains_with_it(registered):
    found = [method.name for method in in_order(["optimised", "brightness", "nonparametric_fixed"])]
    assert found == ["nonparametric_fixed", "brightness", "optimised"]


def declared(monkeypatch, value, name="brightness"):
    points = [EntryPoint(name, value, table.GROUP)]
    monkeypatch.setattr(table, "entry_points", lambda group: points if group == table.GROUP else [])


def test_an_entry_point_adds_it(monkeypatch):
    declared(monkeypatch, "support.own_augmenter:AUGMENTER")
    assert names("noise") == ("fixed", "random_amplitude", "range", "brightness")
    assert entry_of("brightness") is AUGMENTER
    with pytest.raises(UsageError, match=r"^augmenter 'brightness': the name is taken$"):
        register(AUGMENTER)


@pytest.mark.parametrize(
    ("value", "name", "line"),
    [
        ("support.absent:A", "a", "augmenter 'a' (support.absent:A) cannot be loaded: ModuleNotFoundError: "
         "No module named 'support.absent'"),
        ("support.own_augmenter:Brightness", "a", "augmenter 'a' (support.own_augmenter:Brightness) is a ABCMeta, no "
         "AugmenterEntry"),
        ("support.own_augmenter:AUGMENTER", "a", "augmenter 'a' (support.own_augmenter:AUGMENTER) has the name "
         "'brightness'; its entry point must have it too"),
    ],
)  # fmt: skip
def test_an_entry_point_that_gives_none(monkeypatch, value, name, line):
    declared(monkeypatch, value, name)
    with pytest.raises(RunError) as refused:
        entry_of(name)
    assert str(refused.value) == line


def test_names_that_are_taken_unknown_or_none():
    for act, line in (
        (lambda: register(entry_of("fixed")), "augmenter 'fixed': the name is taken"),
        (lambda: AugmenterEntry("a/b", "", Brightness), "name of an augmenter: expected letters, digits, '_' and '-', "
         "got 'a/b'"),
    ):  # fmt: skip
        with pytest.raises(UsageError) as refused:
            act()
        assert str(refused.value) == line
    with pytest.raises(UsageError, match=r"^unknown augmenter 'blur': expected one of fixed, random_amplitude, "):
        entry_of("blur")


class Forgetful(Brightness):
    def parameter_groups(self):
        return {"values": []}


class Hurried(Brightness):
    def parameter_groups(self):
        return {"quickly": [self.log_width]}


def broken(start):
    raise TypeError("no such thing")


@pytest.mark.parametrize(
    ("build", "error", "line"),
    [
        (lambda start: Forgetful(0.1), UsageError, "augmenter 'own': parameter_groups: expected parameter log_width in "
         "one group, got it in 0"),
        (lambda start: Hurried(0.1), UsageError, "augmenter 'own': parameter_groups: expected the rates values, "
         "weights, got quickly"),
        (broken, RunError, "augmenter 'own' cannot be made: TypeError: no such thing"),
        (lambda start: 3, RunError, "augmenter 'own' cannot be made: got a int, no Augmenter"),
    ],
)  # fmt: skip
def test_an_augmenter_that_is_wrong_is_refused_before_its_folder_is_made(tmp_path, build, error, line):
    register(AugmenterEntry("own", "own", build))
    with pytest.raises(error) as refused:
        recovered(NOISE, tmp_path / "run", make_cache(tmp_path / "c.h5"), "own")
    assert str(refused.value) == line
    assert not (tmp_path / "run").exists()
