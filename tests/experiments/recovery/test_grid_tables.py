import numpy as np
import pytest
from metasynth.experiments.recovery.grid_report import RecoveryGridReport
from metasynth.experiments.recovery.grid_tables import (
    comparison_table,
    dice_table_over_seeds,
    recovery_table,
)
from metasynth.experiments.recovery.quantities import SIGMA, exponents
from scipy import stats
from support.many_runs import dice, make_grid

from metasynth.augment import table as augmenters
from metasynth.augment.entry import AugmenterEntry
from metasynth.augment.noise import NoiseLevel
from metasynth.report.html import write_report

LEVELS = (0.05, 0.1, [0.025, 0.2])


def label(value):
    return NoiseLevel.from_json(value).label


def row(model, truth, learned, seed=0, **more):
    return {"seed": seed, "model": model, "sigma_true": truth, "sigma_learned": learned, "dice": {}, **more}


def cells(table):
    return [list(table.columns), *table.cells()]


def column(table, name):
    return [line[table.columns.index(name)] for line in table.rows]


def test_learned_values_of_each_preset_and_of_all():
    values = {0.05: [0.04, 0.06, 0.05, 0.09], 0.1: [0.1, 0.1, 0.1, 0.13]}
    learned = [row("L", truth, found) for truth, of_truth in values.items() for found in of_truth]
    learned += [row("L", [0.025, 0.2], 0.12)]
    table = recovery_table(learned, SIGMA, label)
    assert table.columns == ("preset σ", "runs", "learned σ", "±", "mean absolute error", "worst absolute error")
    half = stats.t.ppf(0.975, 3) * np.std(values[0.05], ddof=1) / 2
    assert table.rows[0] == pytest.approx(("0.05", 4, 0.06, half, 0.015, 0.04))
    assert table.rows[1][4:] == pytest.approx((0.0075, 0.03))
    assert table.rows[2] == ("U[0.025, 0.2]", 1, 0.12, None, None, None)  # a range is no single truth
    assert table.rows[3] == pytest.approx(("all with a truth", 8, None, None, 0.01125, 0.04))


def test_values_that_do_not_mean_what_the_preset_means_have_no_error():
    learned = [row("L", 0.1, 0.3, augmenter="random_amplitude"), row("L", 0.05, [0.01, 0.2], augmenter="range")]
    table = recovery_table(learned, SIGMA, label)
    assert table.rows == (("0.1", 1, 0.3, None, None, None), ("0.05", 0, None, None, None, None))


def test_other_settings_have_rows_of_their_own():
    learned = [row("L", 0.1, 0.1 + rate, **{"outer.lr": rate}) for rate in (0.01, 0.02) for _ in range(2)]
    table = recovery_table(learned, SIGMA, label, by=("outer.lr",))
    assert table.columns[:2] == ("outer.lr", "preset σ")
    assert column(table, "worst absolute error") == pytest.approx([0.01, 0.01, 0.02, 0.02])
    assert column(table, "preset σ") == ["0.1", "all with a truth"] * 2


def test_exponents_are_items_of_lists():
    learned = [row("L", 0.1, 0.1, c_true=[1, 0.5, 0], c_learned=[0.8, 0.5, found]) for found in (0.1, 0.3)]
    low, _, high = (recovery_table(learned, one, label) for one in exponents(["c_low", "c_mid", "c_high"]))
    assert high.columns[:4] == ("preset σ", "true c_high", "runs", "learned c_high")
    assert high.rows[0][:4] == pytest.approx(("0.1", 0.0, 2, 0.2))
    assert high.rows[0][5:] == pytest.approx((0.2, 0.3))
    assert low.rows[0][5:] == pytest.approx((0.2, 0.2))


def dice_rows():
    """N does not depend on the start, and L does; two seeds with test subjects of their own."""
    rows = []
    for seed in (0, 1):
        for start, gain in ((0.02, 0.0), (0.4, 0.2)):
            for model, value in {"N": 0.5, "L": 0.4 + gain, "O": 0.7}.items():
                own = dice(**{f"s{seed}": value + seed / 50, f"t{seed}": value, "u": None})
                rows.append(row(model, 0.1, 0.1, seed, start=start, dice={"0": dice(a=0.1), "0.1": own}))
    return rows


def test_dice_is_averaged_within_a_seed_and_the_best_is_marked():
    table = dice_table_over_seeds(dice_rows(), label)
    assert table.columns == ("real σ", "segmenter", "seeds", "test 0", "test 0.1")
    half = stats.t.ppf(0.975, 1) * np.std([0.0, 0.01], ddof=1) / 2**0.5
    assert table.rows == (
        ("0.1", "N (naive)", 2, "0.100 ± 0.000 *", f"0.505 ± {half:.3f}"),
        ("0.1", "L (Learn2Synth)", 2, "0.100 ± 0.000 *", f"0.505 ± {half:.3f}"),
        ("0.1", "O (optimised)", 2, "0.100 ± 0.000 *", f"0.705 ± {half:.3f} *"),
    )


def test_dice_of_one_seed_has_no_interval_and_may_be_absent():
    rows = [row("L", 0.1, 0.1, dice={"0": dice(a=0.25), "0.1": dice(a=None)})]
    assert dice_table_over_seeds(rows, label).rows == (("0.1", "L (Learn2Synth)", 1, "0.250 *", None),)


def test_segmenters_are_compared_in_pairs_of_seed_and_subject():
    table = comparison_table(dice_rows(), label)
    assert column(table, "segmenters") == ["L - N", "O - L"]
    assert column(table, "pairs") == [4, 4]
    assert column(table, "difference") == pytest.approx([0.0, 0.2])
    assert column(table, "seeds") == [2, 2]


def test_a_comparison_is_that_of_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.7, 0.05, (2, 3, 5))
    rows = [
        row(model, 0.1, 0.1, seed, dice={"0.1": dice(**{f"s{n}": float(v) for n, v in enumerate(values)})})
        for seed in range(3)
        for model, values in (("N", b[seed]), ("L", a[seed]))
    ]
    table = comparison_table(rows, label)
    ((_, pair, mean, half, n, p, rank, seed_half, seeds),) = table.rows
    assert (pair, n, seeds) == ("L - N", 15, 3)
    low, high = stats.ttest_rel(a.ravel(), b.ravel()).confidence_interval()
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert p == f"{stats.ttest_rel(a.ravel(), b.ravel()).pvalue:.2g}"
    assert rank == f"{stats.wilcoxon(a.ravel() - b.ravel()).pvalue:.2g}"
    over_seeds = stats.ttest_1samp((a - b).mean(1), 0).confidence_interval()
    assert (mean - seed_half, mean + seed_half) == pytest.approx(tuple(over_seeds))


def test_several_tests_are_corrected_and_untested_noise_has_none():
    scores = {"N": [0.5, 0.5, 0.5], "L": [0.51, 0.54, 0.52], "O": [0.6, 0.57, 0.7]}
    rows = [
        row(model, truth, 0.1, dice={"0.1": dice(**dict(zip("abc", values, strict=True)))})
        for truth in (0.1, 0.3)
        for model, values in scores.items()
    ]
    table = comparison_table(rows, label)
    assert column(table, "real σ") == ["0.1", "0.1"]  # 0.3 was not among the test conditions
    p = [stats.ttest_rel(scores[one], scores[other]).pvalue for one, other in ("LN", "OL")]
    assert 0.05 < p[0] < p[1]
    assert column(table, "p (t)") == [f"{one:.2g}" for one in p]
    assert column(table, "p (t, Holm)") == [f"{2 * p[0]:.2g}", f"{max(2 * p[0], p[1]):.2g}"]


def study_rows(seed, values):
    return [
        {
            **row(model, truth, float(np.mean(truth)) + 0.01 * seed, seed),
            "dice": {label(level): dice(a=value, b=value + 0.1) for level in LEVELS},
        }
        for truth in LEVELS
        for model, value in {"N": 0.5, "L": 0.5 + 0.01 * seed, "O": 0.6}.items()
    ]


def study_records(seed, values):
    for truth in LEVELS:
        for step in range(4):
            yield {"stage": f"sigma={label(truth)}/learn", "step": step, "inner_loss": 1.0}
            record = {"stage": f"sigma={label(truth)}/learn", "step": step, "outer_step": step + 1}
            yield record | {"sigma": float(np.mean(truth)) + 0.1 / (step + 1)}
        yield {"stage": f"sigma={label(truth)}/naive", "step": 0, "inner_loss": 1.0}


def report_of(grid):
    return RecoveryGridReport("Learned?", label, lambda name: f"sigma={name}/learn")(grid)


def test_the_whole_report(tmp_path):
    grid = make_grid(
        tmp_path / "g", study_rows, seeds=(0, 1, 2), vary={"start": ("0.02", "0.4")}, records_of=study_records
    )
    content = report_of(grid)
    assert content.summary[0] == "6 runs, over seeds 0, 1, 2; start 0.02, 0.4."
    assert content.summary[1] == (
        "Where the truth is a single value, the mean absolute error of the learned σ was 0.0100 and the worst 0.0200 "
        "(12 values)."
    )
    recovered, scores, compared = content.tables
    assert [line[:2] for line in recovered.rows] == [
        ("0.05", 6),
        ("0.1", 6),
        ("U[0.025, 0.2]", 6),
        ("all with a truth", 12),
    ]
    assert len(scores.rows) == 9
    assert len(compared.rows) == 6
    assert [figure.name for figure in content.figures] == ["recovered-sigma", "courses-sigma"]
    panels = content.figures[1].figure.axes
    assert len(panels) == 3
    assert len(panels[0].lines) == 6 + 1
    begun = {line.get_xydata().tolist()[0][1] for line in panels[0].lines[:6]}
    assert begun == {0.02, 0.4}
    page = write_report(grid, content).read_text()
    assert "seeds 0, 1, 2" in page


def test_a_grid_that_learned_ranges_only(tmp_path):
    def ranges(seed, values):
        return [{**row("L", [0.025, 0.2], [0.03, 0.19]), "augmenter": "range", "dice": {"0": dice(a=0.5)}}]

    content = report_of(make_grid(tmp_path / "g", ranges))
    assert len(content.tables) == 1
    assert content.figures == []


def test_a_grid_with_bias_fields(tmp_path):
    def rows(seed, values):
        return [{**row("L", 0.1, 0.11), "c_true": [1, 0], "c_learned": [0.9, 0.1], "dice": {"0.1": dice(a=0.5)}}]

    def records(seed, values):
        yield {"stage": "sigma=0.1/learn", "step": 0, "outer_step": 1, "sigma": 0.1, "c_low": 0.9, "c_high": 0.1}

    grid = make_grid(tmp_path / "g", rows, records_of=records)
    quantities = (SIGMA, *exponents(["c_low", "c_high"]))
    content = RecoveryGridReport("Learned?", label, lambda name: f"sigma={name}/learn", quantities)(grid)
    assert [table.columns[2 if "c_" in table.columns[1] else 1] for table in content.tables[:3]] == ["runs"] * 3
    assert [figure.name for figure in content.figures] == [
        f"{kind}-{name}" for name in ("sigma", "c_low", "c_high") for kind in ("recovered", "courses")
    ]
    (truth,) = content.figures[3].figure.axes[0].lines[2:]
    assert truth.get_ydata()[0] == 1


def own_grid(tmp_path, monkeypatch, rows, records, **line):
    """The report on runs with an augmenter from outside, of whose line only what is said of its values counts."""
    monkeypatch.setattr(augmenters.TABLE, "_registered", {})
    augmenters.register(AugmenterEntry("own", "own", lambda start: None, **line))
    grid = make_grid(tmp_path / "g", rows, records_of=records)
    quantities = (SIGMA, *exponents(["c_low", "c_high"]))
    content = RecoveryGridReport("Learned?", label, lambda name: f"sigma={name}/learn", quantities)(grid)
    write_report(grid, content)
    return content


def own_rows(**learned):
    def rows(seed, values):
        base = {"seed": seed, "sigma_true": 0.1, "augmenter": "own", "dice": {"0.1": dice(a=0.5)}}
        return [{"model": model, **base, **learned} for model in "NL"]

    return rows


def own_records(seed, values):
    for step in (1, 2):
        yield {
            **{"stage": "sigma=0.1/learn", "step": step, "outer_step": step, "width": seed + 0.1 * step},
            **{"level": 0.2, "far": 0.3, "near": 0.4, "sigma": 9.0, "c_low": 9.0},
        }
    yield {"stage": "sigma=0.1/learn", "step": 3, "inner_loss": 1.0}


def drawn(content):
    """The points of every line of every figure of courses, by the figure's name."""
    figures = [figure for figure in content.figures if figure.name.startswith("courses-")]
    return {
        figure.name.removeprefix("courses-"): [line.get_xydata().tolist() for line in figure.figure.axes[0].lines]
        for figure in figures
    }


def test_courses_in_a_grid_are_of_the_values_that_the_line_names(tmp_path, monkeypatch):
    rows = own_rows(sigma_learned=0.2, sigma_sd=0.0, c_true=[1, 0], c_learned=[0.3, 0.4], c_sd=[0, 0])
    content = own_grid(tmp_path, monkeypatch, rows, own_records, sigma=("level",), exponents=("far", "near"))
    assert drawn(content) == {
        "sigma": [[[0, 0.4], [1, 0.2], [2, 0.2]]] * 2,
        "c_low": [[[1, 0.3], [2, 0.3]]] * 2,
        "c_high": [[[1, 0.4], [2, 0.4]]] * 2,
    }


def test_of_a_range_the_upper_end_is_drawn(tmp_path, monkeypatch):
    rows = own_rows(sigma_learned=[0.1, 0.2], sigma_sd=[0.0, 0.0])
    content = own_grid(tmp_path, monkeypatch, rows, own_records, sigma=("width", "level"))
    assert drawn(content) == {"sigma": [[[0, 0.4], [1, 0.2], [2, 0.2]]] * 2}


def test_values_that_are_no_sigma_have_tables_and_courses(tmp_path, monkeypatch):
    rows = own_rows(learned={"width": 0.2, "level": 0.2}, learned_sd={"width": 0.0, "level": 0.0})
    content = own_grid(tmp_path, monkeypatch, rows, own_records, undrawn=("level",))
    assert drawn(content) == {"width": [[[1, 0.1], [2, 0.2]], [[1, 1.1], [2, 1.2]]]}
    (figure,) = content.figures
    assert figure.caption == "width against outer steps in every run."
    width, level, _, _ = content.tables
    assert width.columns == ("preset σ", "runs", "learned width", "±")
    assert width.rows == (("0.1", 2, 0.2, 0.0),)
    assert level.columns[2] == "learned level"


@pytest.mark.parametrize(
    ("learned", "expected"),
    [
        ({"learned": {"width": 0.2, "level": 0.2}, "learned_sd": {"width": 0.0, "level": 0.0}}, ["width", "level"]),
        ({"sigma_learned": 0.2, "sigma_sd": 0.0}, []),
    ],
)
def test_where_the_augmenter_is_missing_what_needs_no_line_is_drawn(tmp_path, learned, expected):
    grid = make_grid(tmp_path / "g", own_rows(**learned), records_of=own_records)
    assert list(drawn(report_of(grid))) == expected
