import pytest
from support.many_runs import make_grid

from metasynth.report.grid import summarise
from metasynth.report.html import write_report


def numbers(seed, values):
    steps = values["steps"]
    return [
        {"model": "a", "total": seed + steps, "deep": {"x": 0.5, f"only {seed}": 1.0}, "on": True, "none": None},
        {"model": "b", "total": 2.0 * steps, "deep": {"x": 1.5}},
    ]


@pytest.fixture
def grid(tmp_path):
    return make_grid(tmp_path / "g", numbers, seeds=(0, 2, 4), vary={"steps": ("10", "20")})


def cells(table):
    return [list(table.columns), *table.cells()]


def test_every_number_over_seeds(grid):
    content = summarise(grid, "Does it add up?")
    assert [table.caption.partition(",")[0] for table in content.tables] == ["total", "deep.x"]
    total = cells(content.tables[0])
    assert total[0] == ["steps", "row", "runs", "mean", "±", "least", "most"]
    half = 4.302652729911275 * 2 / 3**0.5  # the quantile for two degrees of freedom
    assert total[1] == ["10", "a", "3", "12.00", f"{half:.3f}", "10", "14"]
    assert [row[:4] for row in total[2:]] == [
        ["10", "b", "3", "20.00"],
        ["20", "a", "3", "22.00"],
        ["20", "b", "3", "40.00"],
    ]
    assert content.title == "Does it add up?"
    assert content.summary[0] == "6 runs, over seeds 0, 2, 4; steps 10, 20."


def test_a_figure_shows_every_run_and_the_mean(grid):
    figure = summarise(grid, "t").figures[0].figure
    (axes,) = figure.axes
    points = [tuple(point) for dots in axes.collections[::2] for point in dots.get_offsets().tolist()]
    assert sorted(y for _, y in points) == [10, 12, 14, 20, 20, 20, 20, 22, 24, 40, 40, 40]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "steps 10\na",
        "steps 10\nb",
        "steps 20\na",
        "steps 20\nb",
    ]
    assert axes.get_ylabel() == "total"


def test_rows_that_no_text_tells_apart_are_numbered(tmp_path):
    grid = make_grid(tmp_path / "g", lambda seed, values: [{"x": 1}, {"x": 2}])
    (table,) = summarise(grid, "t").tables
    assert [row[:3] for row in cells(table)] == [
        ["row", "runs", "mean"],
        ["(row 1)", "2", "1.000"],
        ["(row 2)", "2", "2.000"],
    ]


def test_one_run_of_one_row(tmp_path):
    grid = make_grid(tmp_path / "g", lambda seed, values: [{"x": 1.5}], seeds=(3,))
    content = summarise(grid, "t")
    assert cells(content.tables[0]) == [["runs", "mean", "±", "least", "most"], ["1", "1.500", "–", "1.500", "1.500"]]
    assert content.summary[0] == "1 run, over seed 3."


def test_the_page_of_a_grid(grid):
    page = write_report(grid, summarise(grid, "Does it add up?")).read_text()
    assert "g: experiment noise, preset quick, seeds 0, 2, 4, 6.0 minutes" in page
    assert "vary.steps" in page
    assert (grid.path / "table.csv").read_text().startswith("seed,steps,model,total,")
    assert len(list((grid.path / "figures").iterdir())) == 2
