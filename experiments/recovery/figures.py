"""Figures of a recovery study, from its rows, records and example images."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from metasynth.experiments.recovery.rows import MODELS, Label, Row, truth_of
from numpy.typing import NDArray

from metasynth.report.figures import DiceGroup, Series, dice_by_condition, trajectory
from metasynth.report.html import ReportFigure
from metasynth.report.image_figures import Triplet, image_triplet, segmentation_overlay
from metasynth.running.examples import load_examples
from metasynth.running.records import RunFolder


def sigma_figure(
    courses: Mapping[str, tuple[Sequence[int], Sequence[float]]], learned: Sequence[Row], label: Label, start: float
) -> ReportFigure:
    """Sigma against outer steps, with the truth as a dashed line.

    Parameters
    ----------
    courses : mapping
        Label -> outer steps and the values after them.
    learned : sequence of rows
        Those of model L.
    label : callable
        The label of a ``sigma_true``.
    start : float
        The value before the first outer step.
    """
    series = []
    for row in learned:
        name = label(row["sigma_true"])
        steps, values = courses[name]
        series.append(Series(f"σ {name}", [0, *steps], [start, *values], truth_of(row)))
    return ReportFigure("sigma", "Sigma against outer steps; the truth is the dashed line.", trajectory(series))


def exponent_figures(
    courses: Mapping[str, Mapping[str, tuple[Sequence[int], Sequence[float]]]],
    learned: Sequence[Row],
    label: Label,
    start: float,
) -> list[ReportFigure]:
    """The exponents against outer steps, one figure a setting; ``courses`` by label and name of the exponent."""
    figures = []
    for index, row in enumerate(learned):
        name = label(row["sigma_true"])
        series = [
            Series(field, [0, *steps], [start, *values], true)
            for (field, (steps, values)), true in zip(courses[name].items(), row["c_true"], strict=True)
        ]
        caption = f"Exponents of the fields against outer steps, for real σ {name}; the truth is the dashed line."
        figures.append(ReportFigure(f"exponents-{index}", caption, trajectory(series, ylabel="c")))
    return figures


def values_figures(courses: Mapping[str, Mapping[str, tuple[Sequence[int], Sequence[float]]]]) -> list[ReportFigure]:
    """Each value against outer steps; ``courses`` by its name and the label of the setting."""
    return [
        ReportFigure(
            f"learned-{value}",
            f"{value} against outer steps.",
            trajectory(
                [Series(f"σ {name}", list(steps), list(found)) for name, (steps, found) in of_value.items()],
                ylabel=value,
            ),
        )
        for value, of_value in courses.items()
    ]


def example_figures(folder: RunFolder, rows: Sequence[Row], labels: Sequence[str], label: Label) -> list[ReportFigure]:
    """The images of a run, the segmentations of its first setting, and every subject's Dice there."""
    shown = load_examples(folder)
    class_names = list(next(iter(rows[0]["dice"].values()))["per_class"])
    return [
        image_figure(shown, labels),
        segmentation_figure(shown, labels[0], class_names),
        dice_figure(rows, label, labels[0]),
    ]


def image_figure(examples: Mapping[str, NDArray[Any]], labels: Sequence[str]) -> ReportFigure:
    """Figure 2 of the paper, one row a setting."""
    parts = ("noise_free", "learned", "real")
    rows = [Triplet(f"σ {name}", *(examples[f"{name}/{part}"] for part in parts)) for name in labels]
    caption = "A test image without noise, with the learned noise, and as a real image (Figure 2 of the paper)."
    return ReportFigure("images", caption, image_triplet(rows))


def segmentation_figure(examples: Mapping[str, NDArray[Any]], name: str, class_names: Sequence[str]) -> ReportFigure:
    """A real test image under the truth and the segmentations there are."""
    maps = {part: examples[f"{name}/{part}"] for part in ("truth", *MODELS) if f"{name}/{part}" in examples}
    caption = f"A real image with σ {name}, its true classes and what the segmenters make of it."
    return ReportFigure("segmentation", caption, segmentation_overlay(examples[f"{name}/real"], maps, class_names))


def dice_figure(rows: Sequence[Row], label: Label, name: str) -> ReportFigure:
    """Every test subject's Dice, by test noise and segmenter, for one setting."""
    groups = [
        DiceGroup(row["model"], condition, [_number(v) for v in dice["per_subject"].values()])
        for row in rows
        if label(row["sigma_true"]) == name
        for condition, dice in row["dice"].items()
    ]
    caption = f"Dice by test noise for real σ {name}: every subject a point, their mean the bar."
    return ReportFigure("dice", caption, dice_by_condition(groups, xlabel="σ of the test images"))


def _number(value: float | None) -> float:
    return math.nan if value is None else value
