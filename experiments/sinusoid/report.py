"""How the starts adapt: tables, figures, and what is read of a run's files."""

from typing import Any

import torch
from matplotlib.figure import Figure
from metasynth.experiments.sinusoid.problem import HIGH, LOW
from metasynth.experiments.sinusoid.settings import SHOWN

from metasynth.report.html import ReportContent, ReportFigure
from metasynth.report.style import COLORS, FAINT, INK, new_figure, style
from metasynth.report.tables import Table
from metasynth.running.records import CONFIG, METRICS, RESULTS, RunFolder
from metasynth.schema import COUNT, FLAG, NUMBER, TEXT, both, entries, json_value, listing, mapping

CURVES = "curves.json"
_TASKS = listing(listing(NUMBER), length=SHOWN)
_ADAPTED = {"curve": listing(NUMBER, least=1), "fits": mapping(_TASKS), "support": listing(_TASKS, length=2)}
_SETTINGS = {"inner_steps": COUNT, "shots": COUNT, "test_tasks": COUNT, "learn_rates": FLAG}
_ROW = {"start": TEXT, "before": NUMBER, "after": NUMBER, "fraction": NUMBER}
CONTENTS = {
    METRICS: listing(entries({"variant": TEXT, "outer_step": COUNT, "outer_loss": NUMBER}), least=1),
    RESULTS: entries({"rows": listing(entries(_ROW), least=1)}),
    CONFIG: entries({"config": entries(_SETTINGS)}),
    CURVES: both(entries({"random": json_value}), mapping(entries(_ADAPTED))),
}


def report(folder: RunFolder) -> ReportContent:
    """Errors before and after adaptation, by gradient step, and the fits of a few tasks."""
    rows, config, adapted = folder.results["rows"], folder.manifest["config"], folder.read_json(CURVES)
    steps, shots = config["inner_steps"], config["shots"]
    headings = {"start": "start", "before": "before adaptation", "after": f"after {steps} gradient steps"}
    headings["fraction"] = "of the random start's before adaptation"
    best = min(rows, key=lambda row: row["after"])
    return ReportContent(
        title="A start from which few steps on few points are enough",
        summary=[
            f"Starts for a network were learned on sinusoids, and then adapted to {config['test_tasks']} new ones by "
            f"gradient descent on {shots} points of each. After {steps} steps the mean squared error on other points "
            f"is {best['after']:.3f} from the best start ({best['start']}), {best['fraction']:.1%} of that of a "
            "random start before adaptation.",
            "'maml' differentiates through all inner steps; 'first-order' leaves out the second derivatives. A step "
            f"size for each weight tensor was {'learned too' if config['learn_rates'] else 'not learned'}.",
        ],
        tables=[Table.from_records("Mean squared error on new tasks.", rows, headings)],
        figures=[
            ReportFigure("steps", "Mean squared error on new tasks by gradient step.", _curves(adapted)),
            ReportFigure(
                "fits", f"The first new tasks: the {shots} points, and the fits.", _fits(adapted, steps, best)
            ),
        ],
    )


def _curves(adapted: dict[str, Any]) -> Figure:
    with style():
        figure = new_figure(5.0, 3.2)
        axes = figure.add_subplot()
        for color, (variant, found) in zip((FAINT, *COLORS), adapted.items(), strict=False):
            axes.plot(found["curve"], "o-", color=color, markersize=3, label=variant)
        axes.set(xlabel="gradient step", ylabel="mean squared error", yscale="log")
        axes.legend(title="start")
        return figure


def _fits(adapted: dict[str, Any], steps: int, best: dict[str, Any]) -> Figure:
    x = torch.linspace(LOW, HIGH, 101).tolist()
    with style():
        figure = new_figure(7.5, 2.6)
        for task, axes in enumerate(figure.subplots(1, SHOWN, sharey=True)):
            for color, name in zip((FAINT, COLORS[0]), ("random", best["start"]), strict=True):
                for style_of, step in ((":", 0), ("-", steps)):
                    label = f"{name}, {step} steps"
                    axes.plot(x, adapted[name]["fits"][str(step)][task], style_of, color=color, label=label)
            points = [part[task] for part in adapted["random"]["support"]]
            axes.plot(*points, "^", color=INK, label="points given")
            axes.set_xlabel("x")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=5)
        return figure
