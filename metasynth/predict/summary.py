"""Means of scores over subjects."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from metasynth.segment.metrics import mean_of_present, sd_of_present

Record = dict[str, Any]


def summary(records: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Means over subjects, a record a class in the order they appear, then over all of them.

    Dice and the signed volume error are averaged where they are defined. `hd95_mm` is averaged where both have the
    class; `missed` counts the subjects in which only one has it. The last record averages the classes of a subject
    first, and counts all misses.
    """
    names = list(dict.fromkeys(record["class"] for record in records))
    rows = [_summarised(name, [[r] for r in records if r["class"] == name]) for name in names]
    if len(names) > 1:
        subjects = dict.fromkeys(record["subject"] for record in records)
        rows.append(_summarised("all", [[r for r in records if r["subject"] == subject] for subject in subjects]))
    return rows


def _summarised(name: str, groups: Sequence[Sequence[Mapping[str, Any]]]) -> Record:
    """Means of the groups' means, of the values that are finite."""
    columns = {}
    for key in ("dice", "hd95_mm", "volume_error_percent"):
        means = [mean_of_present([record[key] for record in group]) for group in groups]
        columns[key] = [mean for mean in means if mean is not None]
    dice = columns["dice"]
    return {
        "class": name,
        "subjects": len(dice),
        "dice": mean_of_present(dice),
        "dice_sd": sd_of_present(dice),
        "hd95_mm": mean_of_present(columns["hd95_mm"]),
        "missed": sum(record["hd95_mm"] == math.inf for group in groups for record in group),
        "volume_error_percent": mean_of_present(columns["volume_error_percent"]),
    }
