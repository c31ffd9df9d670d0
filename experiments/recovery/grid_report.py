"""The report on a grid of runs of a recovery study: what was learned in all of them, and how well it segments."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from metasynth.experiments.recovery.grid_figures import Course, Recovered, courses_figure, recovered_figure
from metasynth.experiments.recovery.grid_tables import (
    comparison_table,
    dice_table_over_seeds,
    recovery_table,
)
from metasynth.experiments.recovery.quantities import SIGMA, Quantity, values
from metasynth.experiments.recovery.rows import Label, Row

from metasynth.report.grid import GridResults, describe_runs
from metasynth.report.html import ReportContent, ReportFigure


@dataclass(frozen=True)
class RecoveryGridReport:
    """Makes the report from a grid; an ``Experiment.grid_report``.

    Attributes
    ----------
    title : str
    label : callable
        The label of a ``sigma_true``, by which a preset is known.
    stage : callable
        Label -> the stage of training that learned it, as in the records.
    quantities : sequence of Quantity
        What is recovered; each is reported on if rows have it. So is what augmenters without a sigma observe.
    preset, starts : str, sequence of str
        Settings that are not told apart in tables: that of the preset, which has a column of its own, and starts.
    """

    title: str
    label: Label
    stage: Callable[[str], str]
    quantities: Sequence[Quantity] = (SIGMA,)
    preset: str = "sigma"
    starts: Sequence[str] = ("start", "start_c")

    def __call__(self, grid: GridResults) -> ReportContent:
        """Tables 1 (or 3) and 2 (or 4) of the paper over runs, paired comparisons, learned values and their courses."""
        results = grid.results
        rows: list[Row] = results["rows"]
        by = [key for key in results["vary"] if key != self.preset and key not in self.starts]
        learned = [row for row in rows if row["model"] == "L"]
        quantities = (*self.quantities, *values(learned))
        present = [one for one in quantities if any(one.learned_in(row) is not None for row in learned)]
        tables = [recovery_table(learned, quantity, self.label, by) for quantity in present]
        tables.append(dice_table_over_seeds(rows, self.label, by))
        compared = comparison_table(rows, self.label, by)
        if compared.rows:
            tables.append(compared)
        figures = [figure for quantity in quantities for figure in self._figures(grid, quantity, learned)]
        return ReportContent(self.title, list(_summary(grid, learned, present)), tables, figures)

    def _figures(self, grid: GridResults, quantity: Quantity, learned: Sequence[Row]) -> Iterator[ReportFigure]:
        varied = [key for key in grid.results["vary"] if key != self.preset]
        points = [
            Recovered(_group(row, varied), truth, value)
            for row in learned
            if isinstance(truth := quantity.truth_in(row), float) and (value := quantity.learned_in(row)) is not None
        ]
        if points:
            caption = f"Learned against true {quantity.name}: a point for each run, which should lie on the line."
            yield ReportFigure(f"recovered-{quantity.observed}", caption, recovered_figure(points, quantity.name))
        courses = list(self._courses(grid, quantity, varied))
        if courses:
            known = any(course.truth is not None for course in courses)
            told = "; the truth is dashed, a range shaded" if known else ""
            caption = f"{quantity.name} against outer steps in every run{told}."
            yield ReportFigure(f"courses-{quantity.observed}", caption, courses_figure(courses, quantity.name))

    def _courses(self, grid: GridResults, quantity: Quantity, varied: Sequence[str]) -> Iterator[Course]:
        for point, folder in grid.finished:
            records = [record for record in folder.read_metrics() if "outer_step" in record]
            start = folder.manifest["config"].get(quantity.start)
            for row in folder.results["rows"]:
                label = self.label(row["sigma_true"])
                stage = self.stage(label)
                name = quantity.course_in(row) if row["model"] == "L" else None
                course = [record for record in records if record["stage"] == stage and name in record]
                if name is None or not course:
                    continue
                begin = [] if start is None else [start]
                yield Course(
                    f"σ {label}",
                    _group(point.values, varied),
                    [0] * len(begin) + [r["outer_step"] for r in course],
                    begin + [r[name] for r in course],
                    quantity.truth_in(row),
                )


def _group(values: Any, varied: Sequence[str]) -> str:
    return ", ".join(f"{key} {values[key]}" for key in varied)


def _summary(grid: GridResults, learned: Sequence[Row], quantities: Sequence[Quantity]) -> Iterator[str]:
    yield describe_runs(grid)
    for quantity in quantities:
        errors = [error for row in learned if (error := quantity.error_in(row)) is not None]
        if errors:
            yield (
                f"Where the truth is a single value, the mean absolute error of the learned {quantity.name} was "
                f"{fmean(errors):.4f} and the worst {max(errors):.4f} ({len(errors)} values)."
            )
    yield (
        "The learned value of a run is the mean over the last tenth of its outer steps. Another seed means other "
        "weights, images, draws and another division of the subjects. Runs that differ in the start only share all of "
        "that, so the intervals over runs describe these seeds and starts together."
    )
