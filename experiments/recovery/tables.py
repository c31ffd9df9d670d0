"""Tables and figures of a recovery study, from its rows, records and example images.

A row has ``model`` (N, L or O), ``sigma_true``, ``sigma_learned``, ``sigma_sd`` and ``dice`` by test condition, each a
summary with ``mean``, ``per_class`` and ``per_subject``. A setting is known by its label, such as '0.1'.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from metasynth.augment.table import known_entry
from metasynth.report.figures import (
    DiceGroup,
    Series,
    Triplet,
    dice_by_condition,
    image_triplet,
    segmentation_overlay,
    trajectory,
)
from metasynth.report.html import ReportFigure
from metasynth.report.tables import Table
from metasynth.running.records import METRICS, RESULTS
from metasynth.schema import NUMBER, TEXT, Problem, either, entries, listing, mapping, maybe, one_of, scalar

MODELS = {"N": "naive", "L": "Learn2Synth", "O": "optimised"}

LEVEL = either(listing(NUMBER, length=2), NUMBER)
"""A sigma, or a range of it."""

DICE = entries({"mean": maybe(NUMBER), "per_class": mapping(maybe(NUMBER)), "per_subject": mapping(maybe(NUMBER))})
_TESTED = entries(
    {"model": one_of(*MODELS), "sigma_true": LEVEL, "dice": mapping(DICE, least=1)},
    {"augmenter": TEXT, "c_true": listing(NUMBER)},
)
_LEARNED = entries({"sigma_learned": LEVEL, "sigma_sd": LEVEL})
_VALUES = entries({name: mapping(NUMBER, least=1) for name in ("learned", "learned_sd")})
_EXPONENTS = entries({name: listing(NUMBER) for name in ("c_true", "c_learned", "c_sd")})


def _row(value: Any) -> Problem | None:
    """What is wrong with a row."""
    learned = isinstance(value, Mapping) and value.get("model") == "L"
    exponents = isinstance(value, Mapping) and "c_learned" in value
    of_model = _VALUES if isinstance(value, Mapping) and "learned" in value else _LEARNED
    return _TESTED(value) or (of_model(value) if learned else None) or (_EXPONENTS(value) if exponents else None)


def _rows(value: Any) -> Problem | None:
    found = listing(_row, least=1)(value)
    learned = scalar("rows with at least one of model L", lambda rows: any(row["model"] == "L" for row in rows))
    return found or learned(value)


CONTENTS = {METRICS: listing(entries({"stage": TEXT}), least=1), RESULTS: entries({"rows": _rows})}
"""What is read of the files of a run; an ``Experiment.contents``."""

Row = Mapping[str, Any]
Label = Callable[[Any], str]


def sigma_table(learned: Sequence[Row], label: Label, published: Mapping[str, float]) -> Table:
    """Preset against learned sigma (Tables 1 and 3 of the paper), one row a setting.

    Parameters
    ----------
    learned : sequence of rows
        Those of model L.
    label : callable
        The label of a ``sigma_true``.
    published : mapping
        Label -> the value the paper reports.
    """
    records = [
        {
            "preset": label(row["sigma_true"]),
            "learned": row["sigma_learned"],
            "error": error_of(row),
            "sd": row["sigma_sd"],
            "paper": published.get(label(row["sigma_true"])) if is_comparable(row) else None,
        }
        for row in learned
    ]
    headings = {
        "preset": "preset σ",
        "learned": "learned σ",
        "error": "absolute error",
        "sd": "sd over the tail",
        "paper": "paper (full scale)",
    }
    caption = "Preset and learned noise. The paper's values are for its own data and scale."
    return Table.from_records(caption, records, headings)


def error_of(row: Row) -> float | None:
    """|learned - true|; None where one of them is a range, or the augmenter's sigma means something else."""
    truth = _truth(row)
    return abs(row["sigma_learned"] - truth) if truth is not None else None


def is_comparable(row: Row) -> bool:
    """Whether what was learned means what the preset means; rows that name no augmenter are older than the choice."""
    entry = known_entry(row.get("augmenter", "fixed"))
    return entry is not None and entry.comparable


def _truth(row: Row) -> float | None:
    """The preset sigma, where it is a single value that the learned one should have."""
    truth = row["sigma_true"]
    return float(truth) if is_comparable(row) and isinstance(truth, int | float) else None


def exponent_table(learned: Sequence[Row], label: Label, names: Sequence[str]) -> Table:
    """Preset against learned exponents of the fields (Eq. 7), one row a setting and field.

    Parameters
    ----------
    learned : sequence of rows
        Those of model L, with ``c_true``, ``c_learned`` and ``c_sd``.
    label : callable
        The label of a ``sigma_true``.
    names : sequence of str
        Of the exponents, in their order.
    """
    records = [
        {"noise": label(row["sigma_true"]), "field": name, "preset": true, "learned": found, "error": error, "sd": sd}
        for row in learned
        for name, true, found, sd in zip(names, row["c_true"], row["c_learned"], row["c_sd"], strict=True)
        for error in [abs(found - true)]
    ]
    headings = {"noise": "preset σ", "field": "exponent", "preset": "preset c", "learned": "learned c"}
    headings |= {"error": "absolute error", "sd": "sd over the tail"}
    return Table.from_records("Preset and learned exponents of the fields, coarsest first.", records, headings)


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


def dice_table(rows: Sequence[Row], label: Label) -> Table:
    """Mean foreground Dice by training and test condition (Tables 2 and 4 of the paper)."""
    conditions = list(rows[0]["dice"])
    records = [
        {
            "real": label(row["sigma_true"]),
            "model": f"{row['model']} ({MODELS[row['model']]})",
            **{f"test {name}": row["dice"][name]["mean"] for name in conditions},
        }
        for row in rows
    ]
    headings = {"real": "real σ", "model": "segmenter"} | {f"test {name}": f"test {name}" for name in conditions}
    caption = (
        "Mean Dice of the foreground classes over test subjects, by test noise: N trained with the preset noise, "
        "L learning it, O trained with what L found."
    )
    return Table.from_records(caption, records, headings)


def class_table(rows: Sequence[Row], label: Label) -> Table:
    """Dice per class of each segmenter, tested on the noise of its own real images where that was tested."""
    records = []
    for row in rows:
        real = label(row["sigma_true"])
        condition = real if real in row["dice"] else next(iter(row["dice"]))
        foreground = dict(list(row["dice"][condition]["per_class"].items())[1:])
        records.append({"real": real, "test": condition, "model": row["model"], **foreground})
    headings = {"real": "real σ", "test": "test σ", "model": "segmenter"}
    headings |= {name: name for record in records for name in record if name not in headings}
    return Table.from_records("Dice per class, mean over test subjects.", records, headings)


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
        series.append(Series(f"σ {name}", [0, *steps], [start, *values], _truth(row)))
    return ReportFigure("sigma", "Sigma against outer steps; the truth is the dashed line.", trajectory(series))


def values_table(learned: Sequence[Row], label: Label) -> Table:
    """All observed values of an augmenter that has no sigma, one row a setting and value."""
    records = [
        {"noise": label(row["sigma_true"]), "value": name, "learned": found, "sd": row["learned_sd"][name]}
        for row in learned
        for name, found in row["learned"].items()
    ]
    headings = {"noise": "preset σ", "value": "value", "learned": "learned", "sd": "sd over the tail"}
    return Table.from_records("What was learned, in the augmenter's own units.", records, headings)


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
