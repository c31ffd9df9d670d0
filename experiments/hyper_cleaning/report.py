"""Which labels were found, and what that is worth: tables, figures, and what is read of a run's files."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from metasynth.experiments.hyper_cleaning.problem import SELECTIONS

from metasynth.report.figures import Series, trajectory
from metasynth.report.html import ReportContent, ReportFigure
from metasynth.report.style import COLORS, INK, new_figure, style
from metasynth.report.tables import Table
from metasynth.running.records import CONFIG, METRICS, RESULTS, RunFolder
from metasynth.schema import COUNT, NUMBER, entries, listing

WEIGHTS = "weights.json"
_SETTINGS = {"corrupted": NUMBER, "train": COUNT, "validation": COUNT}
_ROW = {"repeat": COUNT, "found": NUMBER, "accuracy": entries(dict.fromkeys(SELECTIONS, NUMBER))}
CONTENTS = {
    METRICS: listing(entries({"repeat": COUNT, "outer_step": COUNT, "found": NUMBER}), least=1),
    RESULTS: entries({"rows": listing(entries(_ROW), least=1)}),
    CONFIG: entries({"config": entries(_SETTINGS)}),
    WEIGHTS: listing(entries(dict.fromkeys(("clean", "corrupted"), listing(NUMBER, least=1))), least=1),
}


def report(folder: RunFolder) -> ReportContent:
    """The accuracies, the weights of clean and corrupted samples, and how fast the wrong ones are found."""
    rows, config = folder.results["rows"], folder.manifest["config"]
    table = [{"training samples": text, **_spread(rows, name)} for name, text in SELECTIONS.items()]
    wrong, found = round(config["corrupted"] * config["train"]), [f"{row['found']:.1%}" for row in rows]
    weights, records = folder.read_json(WEIGHTS), folder.read_metrics()
    courses = [_found(records, row["repeat"]) for row in rows]
    return ReportContent(
        title="Wrong labels, found through the classifier's training",
        summary=[
            f"{wrong} of {config['train']} training labels of scikit-learn's digits were replaced by wrong ones. A "
            "weight of each sample was learned from hypergradients of the loss on "
            f"{config['validation']} clean samples.",
            f"Of the wrong labels, {', '.join(found)} have a weight below the median, in {len(rows)} repeats.",
            "The accuracies are of classifiers trained alike, from the same start and for as many steps, on different "
            "selections of the training samples. Only the learned weights have seen the validation set, which is why "
            "training on it alone is shown too.",
        ],
        tables=[Table.from_records("Test accuracy by what was trained on, over repeats.", table)],
        figures=[
            ReportFigure("weights", "Learned weights of all repeats, and their median.", _histogram(weights)),
            ReportFigure("found", "Wrong labels below the median weight.", trajectory(courses, ylabel="fraction")),
        ],
    )


def _spread(rows: list[dict[str, Any]], name: str) -> dict[str, float]:
    values = [row["accuracy"][name] for row in rows]
    return {"mean": float(np.mean(values)), "least": min(values), "most": max(values)}


def _found(records: list[dict[str, Any]], repeat: int) -> Series:
    of_repeat = [record for record in records if record["repeat"] == repeat]
    return Series(f"repeat {repeat}", [r["outer_step"] for r in of_repeat], [r["found"] for r in of_repeat])


def _histogram(weights: list[dict[str, list[float]]]) -> Figure:
    pooled = {name: np.concatenate([one[name] for one in weights]) for name in ("clean", "corrupted")}
    with style():
        figure = new_figure(5.0, 3.0)
        axes = figure.add_subplot()
        for color, (name, values) in zip(COLORS, pooled.items(), strict=False):
            axes.hist(values, bins=np.linspace(0, 1, 41).tolist(), color=color, alpha=0.6, label=f"{name} label")
        axes.axvline(float(np.median(np.concatenate(list(pooled.values())))), color=INK, ls="--", label="median")
        axes.set(xlabel="learned weight", ylabel="samples")
        axes.legend()
        return figure
