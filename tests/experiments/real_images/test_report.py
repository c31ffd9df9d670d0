"""Tables of a comparison from made-up rows, of one run and of several."""

import numpy as np
import pytest
from metasynth.experiments.real_images.figures import dice_figure
from metasynth.experiments.real_images.report import pooled
from metasynth.experiments.real_images.tables import (
    Naming,
    class_table,
    cost_table,
    difference_table,
    learned_table,
    method_table,
)

from metasynth.report.published import CROSS_CONTRAST, REAL_WORLD, SAME_TEST_SIZE
from metasynth.report.statistics import interval, paired

TITLES = {"naive": "Naive SynthSeg", "mixed": "Mixed SynthSeg"}
NAIVE = {"a": 0.5, "b": 0.6, "c": 0.7}
MIXED = {"a": 0.6, "b": 0.65, "c": 0.9}


def row(method, values, subjects=0, checkpoint="best", **more):
    by_class = {subject: [1.0, value - 0.1, value + 0.1] for subject, value in values.items()}
    means = [float(np.mean(column)) for column in zip(*by_class.values(), strict=True)]
    dice = {
        "mean": float(np.mean(list(values.values()))),
        "sd": float(np.std(list(values.values()), ddof=1)) if len(values) > 1 else None,
        "per_class": dict(zip(("background", "white", "grey"), means, strict=True)),
        "per_subject": values,
        "per_subject_class": by_class,
    }
    costs = {"validation": 0.5, "steps": 10, "wall_s": 60.0, "total_s": 90.0, "peak_mib": 100.0}
    place = {"method": method, "subjects": subjects, "checkpoint": checkpoint}
    return {**place, **costs, **more, "dice": {"test": dice}}


ROWS = [row("naive", NAIVE), row("naive", NAIVE, checkpoint="last"), row("mixed", MIXED, 5)]
NAMING = Naming.of(ROWS, TITLES)


def test_means_and_deviations():
    table = method_table(ROWS, NAMING)
    assert table.columns == ("method", "real subjects", "checkpoint", "validation", "test")
    assert table.rows[0] == ("Naive SynthSeg", 0, "best", 0.5, "0.600 ± 0.100")
    assert [line[2] for line in table.rows] == ["best", "last", "best"]


def test_images_that_are_no_scans_are_marked_wherever_their_dice_is_shown():
    rows = [{**one, "dice": {"T2": {**one["dice"]["test"], "marks": ["REMAPPED", "SIMULATED"]}}} for one in ROWS]
    assert method_table(rows, NAMING).columns[-1] == "T2, REMAPPED, SIMULATED"
    assert {line[0] for line in class_table(rows, NAMING).rows} == {"T2, REMAPPED, SIMULATED"}
    assert {line[0] for line in difference_table(rows, NAMING).rows} == {"T2, REMAPPED, SIMULATED"}
    (panel,) = dice_figure(rows, NAMING).figure.axes
    assert panel.get_title() == "T2, REMAPPED, SIMULATED"
    runs = [{"seed": seed, "subjects.rotation": 0, **rows[0]} for seed in range(2)]
    assert method_table(pooled(runs, []), NAMING).columns[-1] == "T2, REMAPPED, SIMULATED"


def test_differences_are_paired_by_subject_and_of_the_best_checkpoints():
    (line,) = difference_table(ROWS, NAMING).rows
    expected = paired(list(MIXED.values()), list(NAIVE.values()))
    low, high = (expected.difference.mean + sign * expected.difference.half for sign in (-1, 1))
    assert line[:2] == ("test", "Mixed SynthSeg")
    assert line[2] == pytest.approx(0.1167, abs=1e-4)
    assert line[3] == f"[{low:+.3f}, {high:+.3f}]"
    assert line[4] == 3
    assert float(line[5]) == pytest.approx(expected.p_t, rel=0.05)


def test_p_are_corrected_for_the_tests_of_the_table():
    more = [*ROWS, row("mixed", {key: value + 0.001 for key, value in MIXED.items()}, 1)]
    naming = Naming.of(more, TITLES)
    alone, together = (difference_table(rows, NAMING).rows[0][5] for rows in (ROWS, more))
    assert float(together) == pytest.approx(2 * float(alone), rel=0.1)
    assert naming(more[-1]) == "Mixed SynthSeg (1)"
    assert naming(more[0]) == "Naive SynthSeg"


def test_subjects_that_one_of_them_was_not_scored_on_are_left_out():
    rows = [ROWS[0], row("mixed", {"a": 0.6, "d": 0.9})]
    (line,) = difference_table(rows, NAMING).rows
    assert line[2:5] == (pytest.approx(0.1), None, 1)
    assert difference_table(ROWS[2:], NAMING).rows == ()


def test_costs_and_learned_values():
    rows = [*ROWS, row("parametric_fixed", NAIVE, 5, learned={"c_low": 0.2, "sigma": 0.1})]
    assert cost_table(rows, NAMING).rows[0] == ("Naive SynthSeg", 10, 1.0, 1.5, 100.0)
    table = learned_table(rows, NAMING)
    assert table.columns == ("method", "c_low", "sigma")
    assert table.rows == (("parametric_fixed", 0.2, 0.1),)


def test_runs_are_pooled_by_subject():
    runs = [
        {"seed": 0, "subjects.rotation": 0, "cohort": "young", **row("naive", {"a": 0.4, "b": 0.6})},
        {"seed": 0, "subjects.rotation": 1, "cohort": "young", **row("naive", {"c": 0.8})},
        {"seed": 1, "subjects.rotation": 0, "cohort": "young", **row("naive", {"a": 0.6, "c": 0.9})},
        {"seed": 0, "subjects.rotation": 0, "cohort": "older", **row("naive", {"d": 0.3})},
    ]
    young, older = pooled(runs, ["cohort"])
    found = young["dice"]["test"]
    assert found["per_subject"] == {"a": 0.5, "b": 0.6, "c": pytest.approx(0.85)}
    assert found["mean"] == pytest.approx(0.65)
    assert found["sd"] == pytest.approx(np.std([0.5, 0.6, 0.85], ddof=1))
    assert found["per_class"]["white"] == pytest.approx(0.55)
    assert young["wall_s"] == 60
    assert NAMING(older) == "cohort older: Naive SynthSeg"
    assert older["dice"]["test"]["mean"] == 0.3


def test_a_group_is_compared_with_its_own_naive_rows():
    values = {"young": NAIVE, "older": {key: value + 0.2 for key, value in NAIVE.items()}}
    runs = [
        {"seed": 0, "cohort": cohort, **one}
        for cohort, own in values.items()
        for one in (row("naive", own), row("mixed", {key: value + 0.05 for key, value in own.items()}, 5))
    ]
    rows = pooled(runs, ["cohort"])
    table = difference_table(rows, Naming.of(rows, TITLES))
    assert [line[1] for line in table.rows] == ["cohort young: Mixed SynthSeg", "cohort older: Mixed SynthSeg"]
    assert [line[2] for line in table.rows] == [pytest.approx(0.05)] * 2
    assert "runs" not in table.columns


def test_several_runs_have_an_interval_over_runs():
    gains = (0.02, 0.05, 0.11)
    runs = [
        {"seed": seed, "subjects.rotation": 0, **one}
        for seed, gain in enumerate(gains)
        for one in (row("naive", NAIVE), row("mixed", {key: value + gain for key, value in NAIVE.items()}, 5))
    ]
    rows = pooled(runs, [])
    (line,) = difference_table(rows, Naming.of(rows, TITLES)).rows
    found = interval(gains)
    assert line[2:5] == (pytest.approx(found.mean), "[+0.060, +0.060]", 3)  # the same gain for every subject
    assert line[-2:] == (f"[{found.mean - found.half:+.3f}, {found.mean + found.half:+.3f}]", 3)


def test_validation_is_the_mean_of_the_runs_that_looked_at_it():
    looks = {"naive": (0.4, 0.6), "atlas": (None, None)}
    runs = [
        {"seed": seed, **row(method, NAIVE, validation=value)}
        for method, values in looks.items()
        for seed, value in enumerate(values)
    ]
    rows = pooled(runs, [])
    assert [one["validation"] for one in rows] == [pytest.approx(0.5), None]
    assert [line[3] for line in method_table(rows, NAMING).rows] == [pytest.approx(0.5), None]


def test_what_the_paper_reports():
    for table in (REAL_WORLD, CROSS_CONTRAST, SAME_TEST_SIZE):
        assert {len(line) for line in table["rows"]} == {len(table["columns"])}
    assert {line[0]: line[1:] for line in REAL_WORLD["rows"]}["Naive SynthSeg"] == [0.869, 0.831]
    assert CROSS_CONTRAST["rows"][9][3:] == [0.867, 0.798, 0.789, 0.795, 0.799]
