"""What was learned of the regressions: tables, figures, and what is read of a run's files."""

from typing import Any

from matplotlib.figure import Figure
from metasynth.experiments.ridge.problem import GRID

from metasynth.report.figures import Series, trajectory
from metasynth.report.html import ReportContent, ReportFigure
from metasynth.report.style import color, new_figure, style
from metasynth.report.tables import Table
from metasynth.running.records import METRICS, RESULTS, RunFolder
from metasynth.schema import COUNT, NUMBER, TEXT, entries, listing

CURVES = "curves.json"
_CASE = {"problem": COUNT, "strategy": TEXT, "start": NUMBER}
_FOUND = dict.fromkeys(("learned", "optimum", "relative_error", "loss", "least_loss"), NUMBER)
CONTENTS = {
    METRICS: listing(entries({**_CASE, "outer_step": COUNT, "decay": NUMBER}), least=1),
    RESULTS: entries({"rows": listing(entries({**_CASE, **_FOUND}), least=1)}),
    CURVES: listing(listing(NUMBER, length=len(GRID)), least=1),
}


def report(folder: RunFolder) -> ReportContent:
    """Learned and optimal λ, the course of λ, and the held-out loss over λ."""
    rows, records = folder.results["rows"], folder.read_metrics()
    table = [{**row, "percent": 100 * row["relative_error"]} for row in rows]
    worst = max(row["percent"] for row in table)
    headings = {"problem": "regression", "strategy": "strategy", "start": "start", "learned": "learned λ"}
    headings |= {"optimum": "optimal λ", "percent": "error (%)"}
    headings |= {"loss": "held-out loss", "least_loss": "least held-out loss"}
    return ReportContent(
        title="A weight decay, learned by hypergradients",
        summary=[
            f"The λ of {rows[-1]['problem'] + 1} ridge regressions was learned from the held-out loss. The optimum is "
            "that of the closed-form solution, found without hypergradients. The largest relative error of a learned "
            f"λ is {worst:.2g} %.",
        ],
        tables=[Table.from_records("Learned and optimal weight decay.", table, headings)],
        figures=[
            ReportFigure("decay", "λ against outer steps, first regression.", _courses(rows, records)),
            ReportFigure("loss", "Held-out loss over λ (lines), and what was found.", _curves(rows, folder)),
        ],
    )


def _courses(rows: list[dict[str, Any]], records: list[dict[str, Any]]) -> Figure:
    series = []
    for row in (row for row in rows if row["problem"] == 0):
        case = [r for r in records if all(r[key] == row[key] for key in ("problem", "strategy", "start"))]
        label = f"{row['strategy']} from {row['start']:g}"
        steps, values = [0, *(r["outer_step"] for r in case)], [row["start"], *(r["decay"] for r in case)]
        series.append(Series(label, steps, values, row["optimum"]))
    return trajectory(series, ylabel="λ")


def _curves(rows: list[dict[str, Any]], folder: RunFolder) -> Figure:
    with style():
        figure = new_figure(5.0, 3.2)
        axes = figure.add_subplot()
        for problem, curve in enumerate(folder.read_json(CURVES)):
            found = [row for row in rows if row["problem"] == problem]
            axes.plot(GRID, curve, color=color(problem), label=f"regression {problem}")
            axes.plot([r["learned"] for r in found], [r["loss"] for r in found], "o", color=color(problem), mfc="none")
        axes.set(xscale="log", xlabel="λ", ylabel="held-out mean squared error")
        axes.legend()
        return figure
