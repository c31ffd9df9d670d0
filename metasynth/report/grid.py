"""The report on a grid of runs of any study: every number of its rows, over seeds, for each combination of settings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from matplotlib.figure import Figure

from metasynth.report.html import ReportContent, ReportFigure
from metasynth.report.statistics import interval
from metasynth.report.style import FAINT, INK, color, new_figure, style
from metasynth.report.tables import Table
from metasynth.running.records import RunFolder, flatten

MOST_FIGURES = 8
INTERVALS = "± is half the width of a 95 % t-interval of the mean."


class Point(Protocol):
    """One run's place in its grid."""

    @property
    def seed(self) -> int:
        """Of every random draw."""

    @property
    def values(self) -> Mapping[str, Any]:
        """The settings that the grid varies."""


class GridResults(Protocol):
    """What reports read of a grid."""

    @property
    def results(self) -> dict[str, Any]:
        """``rows`` of all finished runs, each with its ``seed`` and varied settings; ``seeds`` and ``vary``."""

    @property
    def finished(self) -> Sequence[tuple[Point, RunFolder]]:
        """The runs that have finished."""


@dataclass(frozen=True)
class GridCase:
    """What is repeated over seeds: one row of the results under one combination of settings."""

    settings: tuple[tuple[str, Any], ...]
    row: str

    @property
    def label(self) -> str:
        """For the axis of a figure."""
        return "\n".join([*(f"{key} {value}" for key, value in self.settings), *([self.row] if self.row else [])])


def describe_runs(grid: GridResults) -> str:
    """How many runs there are, over what."""
    results, n = grid.results, len(grid.finished)
    seeds = ", ".join(map(str, results["seeds"]))
    over = [f"seed{'s' * (len(results['seeds']) > 1)} {seeds}"]
    over += [f"{key} {', '.join(map(str, values))}" for key, values in results["vary"].items()]
    return f"{n} run{'s' * (n > 1)}, over {'; '.join(over)}."


def summarise(grid: GridResults, title: str) -> ReportContent:
    """A table and, for the first ones, a figure of every number in the rows of a study.

    Rows of different runs are matched by their place in the run. Numbers that not every run of a case has (such as
    those of subjects that only some seeds test on) are left out.
    """
    values = _values(grid)
    figures = [
        ReportFigure(f"value-{number}", f"{key}: a point for each seed, and their mean with its 95 % interval.", figure)
        for number, (key, cases) in enumerate(list(values.items())[:MOST_FIGURES])
        for figure in [_strips(key, cases)]
    ]
    summary = [describe_runs(grid), INTERVALS]
    return ReportContent(title, summary, [_table(key, cases) for key, cases in values.items()], figures)


def _values(grid: GridResults) -> dict[str, dict[GridCase, list[float]]]:
    """Dotted name -> case -> its number in each run."""
    runs: dict[GridCase, int] = {}
    values: dict[str, dict[GridCase, list[float]]] = {}
    for point, folder in grid.finished:
        rows = folder.results["rows"]
        for row, name in zip(rows, _row_names(rows), strict=True):
            case = GridCase(tuple(point.values.items()), name)
            runs[case] = runs.get(case, 0) + 1
            for key, value in flatten(row).items():
                if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                    values.setdefault(key, {}).setdefault(case, []).append(value)
    whole = {key: {case: v for case, v in of.items() if len(v) == runs[case]} for key, of in values.items()}
    return {key: cases for key, cases in whole.items() if cases}


def _row_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What tells the rows of a run apart: their texts, or else their places too; nothing where there is one row."""
    if len(rows) == 1:
        return [""]
    texts = [", ".join(value for value in row.values() if isinstance(value, str)) for row in rows]
    if len(set(texts)) == len(texts):
        return texts
    return [f"{text} (row {number})".lstrip() for number, text in enumerate(texts, start=1)]


def _table(key: str, cases: Mapping[GridCase, Sequence[float]]) -> Table:
    records = []
    for case, values in cases.items():
        found = interval(values)
        numbers = {"n": found.n, "mean": found.mean, "half": found.half, "least": min(values), "most": max(values)}
        records.append({name: str(value) for name, value in case.settings} | {"row": case.row} | numbers)
    settings = {name: name for case in cases for name, _ in case.settings}
    row = {"row": "row"} if any(case.row for case in cases) else {}
    headings = settings | row | {"n": "runs", "mean": "mean", "half": "±", "least": "least", "most": "most"}
    rows = tuple(tuple(record[name] for name in headings) for record in records)
    return Table(f"{key}, over seeds. {INTERVALS}", tuple(headings.values()), rows)


def _strips(key: str, cases: Mapping[GridCase, Sequence[float]]) -> Figure:
    with style():
        longest = max(len(line) for case in cases for line in case.label.split("\n"))
        upright = len(cases) * longest > 75
        figure = new_figure(max(3.0, min(9.0, 1.2 + len(cases) * 0.8)), 3.0 + 0.06 * longest * upright)
        axes = figure.add_subplot()
        for place, values in enumerate(cases.values()):
            found = interval(values)
            spread = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(1)
            axes.scatter(place + spread, values, s=14, color=color(0), alpha=0.7, linewidths=0)
            axes.errorbar(
                place + 0.26, found.mean, yerr=found.half, color=INK, marker="_", markersize=9, capsize=2.5, linewidth=1
            )
        axes.set_xticks(range(len(cases)), [case.label for case in cases], rotation=90 if upright else 0)
        axes.set_xlim(-0.6, len(cases) - 0.4)
        axes.set_ylabel(key)
        axes.set_axisbelow(True)
        axes.grid(axis="y", color=FAINT, alpha=0.3, linewidth=0.6)
        return figure
