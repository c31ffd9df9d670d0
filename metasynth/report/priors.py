"""The intensities of structures that images are synthesised with, beside those of the scans that they are from."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from metasynth.report.style import FAINT, color, new_figure, style
from metasynth.report.tables import Table

Label = Mapping[str, Any]
"""One label of a file of priors: ``name``, ``class``, ``mean``, ``spread``, ``texture``, and perhaps ``people``,
``voxels``, ``erosion`` and ``cut``."""

_HEADINGS = {
    "name": "structure",
    "class": "class",
    "mean": "mean",
    "spread": "spread",
    "texture": "texture",
    "people": "people",
    "voxels": "voxels",
    "edges": "edges left out",
    "cut": "cut",
}
_EDGES = {"square": "yes", "cross": "in part", "none": "no"}


def priors_table(labels: Sequence[Label], title: str = "") -> Table:
    """Mean, spread and texture by structure; the background, which has none, is left out."""
    records = [{**label, **_source(label)} for label in labels[1:]]
    caption = (
        f"{f'{title}: ' if title else ''}intensities by structure, in units of the cache: mean, standard deviation "
        "between people, and texture (standard deviation within the structure). What nobody had takes the values of "
        "its class; of what was mostly cut, at an end of the scale, spread and texture are those of its class."
    )
    return Table.from_records(caption, records, _HEADINGS)


def _source(label: Label) -> dict[str, Any]:
    """What its values rest on, in words; of what nobody had no voxels and edges are told."""
    found = {"cut": "yes" if label.get("cut") else "", "edges": _EDGES.get(label.get("erosion", ""))}
    return found if label.get("people") else {**found, "voxels": None, "edges": None}


def priors_figure(labels: Sequence[Label], scans: Mapping[str, Sequence[float | None]]) -> Figure:
    """Intensity by structure: mean ± spread, mean ± texture, and the median of every scan as a point.

    Parameters
    ----------
    labels : sequence of mapping
        (G,) those of a file of priors.
    scans : mapping
        Person -> (G,) medians of the structures; None where a person has none.
    """
    shown = [(place, label) for place, label in enumerate(labels) if place]
    with style():
        figure = new_figure(6.0, 0.9 + 0.2 * len(shown))
        axes = figure.add_subplot()
        for row, (place, label) in enumerate(shown):
            mean, texture, spread = label["mean"], label["texture"], label["spread"]
            axes.plot([mean - texture, mean + texture], [row, row], color=FAINT, linewidth=1)
            axes.plot([mean - spread, mean + spread], [row, row], color=color(0), linewidth=5, alpha=0.45)
            axes.plot([mean, mean], [row - 0.3, row + 0.3], color=color(0), linewidth=1.5)
            values = [value for own in scans.values() if (value := own[place]) is not None]
            axes.scatter(values, [row] * len(values), s=9, color=color(1), linewidths=0, zorder=3)
        axes.set_yticks(range(len(shown)), [label["name"] for _, label in shown])
        axes.invert_yaxis()
        axes.set_xlim(min(0.0, *(label["mean"] - label["texture"] for _, label in shown)), None)
        axes.set_xlabel("intensity")
        axes.grid(axis="x", color=FAINT, alpha=0.3, linewidth=0.6)
    return figure
