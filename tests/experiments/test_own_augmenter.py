"""An augmenter from outside the package goes through the studies to their reports."""

import json
import math
from dataclasses import replace
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
from metasynth.experiments.comparison.methods import in_order
from metasynth.experiments.cross_contrast import EXPERIMENT as CROSS_CONTRAST
from metasynth.experiments.inu import EXPERIMENT as INU
from metasynth.experiments.noise import EXPERIMENT as NOISE
from metasynth.experiments.real_images import figures as real_images_figures
from metasynth.experiments.real_world import EXPERIMENT as REAL_WORLD
from metasynth.experiments.unpaired.methods import Method, learned_among, method_of
from support.own_augmenter import AUGMENTER, Brightness
from support.tiny_comparison import carry_out, real_cache, results
from support.tiny_noise import SETTINGS, make_cache
from support.tiny_unpaired import carry_out as carry_out_unpaired
from torch import nn

from metasynth import plugins
from metasynth.augment import table
from metasynth.augment.augmenter import RECORDED
from metasynth.augment.class_intensity import ClassIntensities
from metasynth.augment.entry import AugmenterEntry
from metasynth.augment.label_generator import LabelGenerator
from metasynth.augment.table import entry_of, names, register
from metasynth.errors import DataError, RunError, UsageError
from metasynth.run import execute


@pytest.fixture(autouse=True)
def own_table(monkeypatch):
    monkeypatch.setattr(table.TABLE, "_registered", {})


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


class Shades(Brightness):
    """Structures in shades of grey, of a learned brightness."""

    takes = "structures"

    def forward(self, structures, draws):
        return super().forward(structures[:, None] / 4, draws)


SHADES = AugmenterEntry("shades", "shades", lambda start: Shades(start.structures / 10))


def test_one_that_makes_images_of_structures_goes_through_the_studies(tmp_path):
    register(SHADES)
    cache = make_cache(tmp_path / "c.h5", generation=True)
    (_, learned, optimised) = recovered(NOISE, tmp_path / "noise", cache, "shades")
    assert learned["learned"]["brightness"] == pytest.approx(0.5, rel=0.5)  # of five structures
    assert optimised["model"] == "O"
    scans = real_cache(tmp_path / "s.h5", subjects=6, generation=True)
    carry_out(REAL_WORLD, tmp_path / "real", scans, methods="shades,optimised", outer__reference="matched")
    assert [row["method"] for row in results(tmp_path / "real")] == ["shades"] * 2 + ["optimised"] * 2
    with np.load(tmp_path / "real" / "examples.npz") as shown:
        assert [name for name in shown.files if "augmentation" in name] == [
            f"augmentation/shades/2/{part}" for part in ("synthetic", "augmented")
        ]


def test_where_the_contrast_is_made_before_it_is_refused(tmp_path):
    register(SHADES)
    with pytest.raises(UsageError) as refused:
        carry_out_unpaired(tmp_path / "run", real_cache(tmp_path / "c.h5", subjects=6), methods="shades")
    assert str(refused.value) == (
        "augmenter: must take images, as the contrast is made before, got Shades, of structures"
    )
    assert not (tmp_path / "run").exists()


def test_what_is_learned_is_trained_before_what_trains_with_it(registered):
    found = [method.name for method in in_order(["optimised", "brightness", "nonparametric_fixed"])]
    assert found == ["nonparametric_fixed", "brightness", "optimised"]


class Tinted(Brightness):
    """With an offset, at the rate of a network's weights."""

    def __init__(self, start):
        super().__init__(start)
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, images, draws):
        return super().forward(images, draws) + self.offset

    def observed(self):
        return {**super().observed(), "offset": self.offset.item()}

    def parameter_groups(self):
        return {"values": [self.log_width], "weights": [self.offset]}


TINTED = AugmenterEntry("tinted", "a tint", lambda start: Tinted(start.sigma), undrawn=("offset",))


@pytest.mark.parametrize("way", ["registered", "declared"])
def test_scans_without_labels_are_learned_from_by_it(way, monkeypatch, tmp_path):
    if way == "registered":
        register(TINTED)
    else:
        monkeypatch.setattr("support.own_augmenter.TINTED", TINTED, raising=False)
        declared(monkeypatch, "support.own_augmenter:TINTED", "tinted")
    drawn = lines_drawn_by(real_images_figures, monkeypatch)
    run = tmp_path / "run"
    settings = {"methods": "tinted,naive", "outer__network_lr": "0.001", "generator__sigma": "0.2"}
    carry_out_unpaired(run, real_cache(tmp_path / "c.h5", subjects=6), **settings)
    rows, table = results(run), (run / "table.md").read_text()
    assert [row["method"] for row in rows] == ["naive", "tinted"]
    course = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if "outer_step" in line]
    assert [record["stage"] for record in course] == ["tinted/generator"] * 4
    moved = [abs(math.log(course[0]["brightness"] / 0.2)), abs(course[0]["offset"])]  # Adam's first step is its rate
    assert moved[1] / moved[0] == pytest.approx(0.001 / 0.03, rel=1e-2)
    assert rows[1]["learned"] == {key: course[-1][key] for key in ("accuracy", "brightness", "offset")}
    assert "Unpaired: random contrasts, a tint" in table
    assert "offset" in table
    assert drawn == [["brightness"]]


def test_one_of_ours_that_says_so_is_a_method_where_nothing_is_labelled(monkeypatch):
    ours = replace(TINTED, studies=("unpaired",))
    monkeypatch.setattr(table, "ENTRIES", (*table.ENTRIES, ours, replace(ours, name="other", studies=("inu",))))
    monkeypatch.setattr(table.TABLE, "_own", table.TABLE._own | {"tinted": ours, "other": ours})
    assert [method.name for method in learned_among(["tinted", "naive", "intensities"])] == ["intensities", "tinted"]
    assert method_of("tinted") == Method("tinted", "Unpaired: random contrasts, a tint", "tinted")
    with pytest.raises(UsageError, match=r"^methods: unknown method 'other': "):
        method_of("other")


def lines_drawn_by(module, monkeypatch):
    """The labels of the lines of every figure of courses that a module of figures draws from now on."""
    drawn, trajectory = [], module.trajectory

    def watched(series, **options):
        drawn.append([one.label for one in series])
        return trajectory(series, **options)

    monkeypatch.setattr(module, "trajectory", watched)
    return drawn


@pytest.mark.parametrize(
    ("line", "drawn"),
    [
        ({}, ["brightness", "offset"]),
        ({"undrawn": ("offset",)}, ["brightness"]),
        ({"sigma": ("brightness",)}, ["Learn2Synth, a tint"]),
    ],
)
def test_the_course_of_what_a_comparison_learns_is_drawn_as_its_line_says(line, drawn, tmp_path, monkeypatch):
    register(replace(TINTED, **({"undrawn": ()} | line)))
    found = lines_drawn_by(real_images_figures, monkeypatch)
    carry_out(REAL_WORLD, tmp_path / "run", real_cache(tmp_path / "c.h5", subjects=6), methods="tinted")
    assert found == [drawn]
    name = "sigma" if "sigma" in line else "learned-tinted-"
    assert [path for path in (tmp_path / "run" / "figures").iterdir() if path.stem.startswith(name)]


@pytest.mark.parametrize(
    ("line", "drawn"),
    [
        ({"undrawn": ("offset",)}, ["learned-brightness"]),
        ({"undrawn": (), "sigma": ("offset", "brightness")}, ["sigma"]),
    ],
)
def test_so_is_what_a_recovery_study_learns(line, drawn, tmp_path):
    """Of an augmenter with another name for its noise, and with exponents that have no truth here."""
    register(replace(TINTED, exponents=("offset",), **line))
    (_, row, _) = recovered(NOISE, tmp_path / "run", make_cache(tmp_path / "c.h5"), "tinted")
    assert "c_learned" not in row
    names = {path.stem for path in (tmp_path / "run" / "figures").iterdir()}
    assert sorted(names & {"sigma", "learned-brightness", "learned-offset"}) == drawn


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"sigma": ("width",)}, "sigma: expected values that it observes (brightness, offset), got 'width'"),
        ({"undrawn": ("width",)}, "undrawn: expected values that it observes (brightness, offset), got 'width'"),
        (
            {"exponents": ("offset",)},
            "exponents: expected 3 of the values that it observes (brightness, offset), got offset",
        ),
    ],
)
def test_a_line_that_names_values_it_does_not_observe(line, expected, tmp_path):
    register(replace(TINTED, **line))
    with pytest.raises(UsageError) as refused:
        recovered(INU, tmp_path / "run", make_cache(tmp_path / "c.h5"), "tinted")
    assert str(refused.value) == f"augmenter 'tinted': {expected}"
    assert not (tmp_path / "run").exists()


def test_its_network_has_to_fit_the_images_of_scans_without_labels(tmp_path):
    cache = real_cache(tmp_path / "c.h5", subjects=6)
    deep = {"methods": "naive,own", "generator__network": "2,2,2,2,2,2"}
    register(AugmenterEntry("own", "own", lambda start: Brightness(0.1), network=True))
    with pytest.raises(DataError, match=r"^.*c\.h5: .*5 times; .*\(generator\.network\)$"):
        carry_out_unpaired(tmp_path / "run", cache, **deep)
    assert not (tmp_path / "run").exists()


def declared(monkeypatch, value, name="brightness"):
    points = [EntryPoint(name, value, table.GROUP)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == table.GROUP else [])


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
        (lambda: AugmenterEntry("a", "", Brightness, sigma=("a", "b", "c")), "augmenter 'a': sigma: expected at most 2 "
         "names, got 3"),
        (lambda: AugmenterEntry("a/b", "", Brightness), "name of an augmenter: expected letters, digits, '_' and '-', "
         "got 'a/b'"),
    ):  # fmt: skip
        with pytest.raises(UsageError) as refused:
            act()
        assert str(refused.value) == line
    with pytest.raises(UsageError, match=r"^unknown augmenter 'blur': expected one of fixed, random_amplitude, "):
        entry_of("blur")


class Observing(Brightness):
    """Observes a value of a given name."""

    def __init__(self, start, name, value):
        super().__init__(start)
        self.name, self.value = name, value

    def observed(self):
        return {self.name: self.value}


def observing(name, value=0.5):
    register(AugmenterEntry("own", "own", lambda start: Observing(start.sigma, name, value)))


ANYWHERE = {
    "noise": lambda run, cache: recovered(NOISE, run, cache, "own"),
    "inu": lambda run, cache: recovered(INU, run, cache, "own"),
    "real_world": lambda run, cache: carry_out(REAL_WORLD, run, cache, methods="own"),
    "cross_contrast": lambda run, cache: carry_out(CROSS_CONTRAST, run, cache, methods="own", tests=f"t={cache}"),
    "unpaired": lambda run, cache: carry_out_unpaired(run, cache, methods="own"),
}


@pytest.mark.parametrize(
    ("study", "name"), [*(("noise", name) for name in RECORDED), *((study, "accuracy") for study in ANYWHERE)]
)
def test_a_value_that_is_named_like_another_entry_of_records(study, name, tmp_path):
    observing(name)
    with pytest.raises(UsageError) as refused:
        ANYWHERE[study](tmp_path / "run", real_cache(tmp_path / "c.h5", subjects=6))
    line = (
        "augmenter 'own': observed: expected other names than what records hold anyway (stage, step, inner_loss, "
        "outer_loss, reference_loss, hypergradient_norm, outer_step, validation, real_loss, synthetic_loss, accuracy), "
        f"got {name!r}"
    )
    where, own, said = str(refused.value).partition("augmenter")
    assert own + said == line
    assert where.partition(" ")[0] in ("", "--set")  # settings that say it together
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("study", ANYWHERE)
def test_all_entries_of_records_are_known_to_be_theirs(study, tmp_path):
    observing("width")
    ANYWHERE[study](tmp_path / "run", real_cache(tmp_path / "c.h5", subjects=6))
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {name for record in records for name in record} - {"width"} <= set(RECORDED)
    assert {record["width"] for record in records if "outer_step" in record} == {0.5}


@pytest.mark.parametrize("name", ["../../x", "a\\b", "", "a\nb", 3])
def test_a_value_whose_figure_could_not_be_written_is_refused_before_the_run(name, tmp_path):
    observing(name)
    with pytest.raises(UsageError) as refused:
        recovered(NOISE, tmp_path / "run", make_cache(tmp_path / "c.h5"), "own")
    expected = "expected names that files can have, as figures do"
    assert str(refused.value) == f"augmenter 'own': observed: {expected}, got {name!r}"
    assert not (tmp_path / "run").exists()


def test_a_value_that_is_no_number(tmp_path):
    observing("width", torch.ones(()))
    with pytest.raises(UsageError) as refused:
        recovered(NOISE, tmp_path / "run", make_cache(tmp_path / "c.h5"), "own")
    assert str(refused.value) == "augmenter 'own': observed: expected numbers, got a Tensor for 'width'"


def test_a_value_that_is_named_like_one_of_the_contrast():
    with pytest.raises(UsageError) as refused:
        LabelGenerator(ClassIntensities(3, 2), Observing(0.1, "blur", 0.5))
    assert str(refused.value) == "augmenter: expected other names of values than the contrast's, got 'blur'"


class Forgetful(Brightness):
    def parameter_groups(self):
        return {"values": []}


class Hurried(Brightness):
    def parameter_groups(self):
        return {"quickly": [self.log_width]}


@pytest.mark.parametrize(
    ("build", "error", "line"),
    [
        (lambda start: Forgetful(0.1), UsageError, "augmenter 'own': parameter_groups: expected parameter log_width in "
         "one group, got it in 0"),
        (lambda start: 3, RunError, "augmenter 'own' cannot be made: got a int, no Augmenter"),
    ],
)  # fmt: skip
def test_so_it_is_where_nothing_is_labelled(tmp_path, build, error, line):
    register(AugmenterEntry("own", "own", build))
    with pytest.raises(error) as refused:
        carry_out_unpaired(tmp_path / "run", real_cache(tmp_path / "c.h5", subjects=6), methods="own")
    assert str(refused.value) == line
    assert not (tmp_path / "run").exists()


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
