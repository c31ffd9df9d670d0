"""Figures of a comparison on real images: Dice (Figure 4), segmentations (Figure 3), learned augmentation."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from metasynth.experiments.real_images.tables import Naming, Row, images_of, shown
from numpy.typing import NDArray

from metasynth.report.figures import Series, trajectory
from metasynth.report.html import ReportFigure
from metasynth.report.style import FAINT, INK, bare, color, new_figure, style

Arrays = Mapping[str, NDArray[Any]]

_COLUMNS = 5
_OPACITY = 0.55
PARTS = ("synthetic", "field", "network", "noise", "augmented")


def dice_figure(rows: Sequence[Row], naming: Naming) -> ReportFigure:
    """Every test subject's Dice, by method, one panel a condition (Figure 4 of the paper)."""
    chosen = shown(rows)
    conditions = list(chosen[0]["dice"])
    methods = list(dict.fromkeys(row["method"] for row in chosen))
    with style():
        figure = new_figure(3.2 + 1.9 * len(conditions), 0.8 + 0.28 * len(chosen))
        panels = np.atleast_1d(figure.subplots(1, len(conditions), sharey=True))
        for panel, condition in zip(panels, conditions, strict=True):
            for place, row in enumerate(chosen):
                values = [v for v in row["dice"][condition]["per_subject"].values() if v is not None]
                _bar(panel, place, values, color(methods.index(row["method"])))
            panel.set_title(images_of(chosen[0], condition))
            panel.set_xlim(0, 1)
            panel.set_xlabel("Dice")
            panel.set_axisbelow(True)
            panel.grid(axis="x", color=FAINT, alpha=0.3, linewidth=0.6)
        panels[0].set_yticks(range(len(chosen)), [naming(row) for row in chosen])
        panels[0].invert_yaxis()
    caption = "Dice by method (a colour each) and test images: subjects as points, their mean as bar; best checkpoints."
    return ReportFigure("dice", caption, figure)


def _bar(panel: Axes, place: int, values: Sequence[float], shade: str) -> None:
    if not values:
        return
    mean = math.fsum(values) / len(values)
    spread = np.linspace(-0.22, 0.22, len(values)) if len(values) > 1 else np.zeros(1)
    panel.barh(place, mean, 0.75, color=shade, alpha=0.35, linewidth=0)
    panel.scatter(values, place + spread, s=6, color=shade, linewidths=0, zorder=3)
    panel.plot([mean, mean], [place - 0.37, place + 0.37], color=INK, linewidth=1)


def segmentation_figures(
    rows: Sequence[Row], naming: Naming, examples: Arrays, class_names: Sequence[str]
) -> list[ReportFigure]:
    """One test image of each condition under the truth and every method's segmentation (Figure 3 of the paper)."""
    figures = []
    for number, condition in enumerate(rows[0]["dice"]):
        maps = {"truth": examples[f"truth/{condition}"]}
        for row in shown(rows):
            name = f"segmentation/{condition}/{row['method']}/{row['subjects']}"
            if name in examples:
                maps[naming(row)] = examples[name]
        caption = f"A test image ({images_of(rows[0], condition)}), its true classes and what the methods make of it."
        figure = _segmentations(examples[f"image/{condition}"], maps, class_names)
        figures.append(ReportFigure(f"segmentation-{number}", caption, figure))
    return figures


def _segmentations(image: NDArray[Any], maps: Arrays, class_names: Sequence[str]) -> Figure:
    colors = [color(at) for at in range(len(class_names) - 1)]
    palette = np.array([(0.0, 0.0, 0.0, 0.0), *((*to_rgb(one), _OPACITY) for one in colors)])
    panels: list[tuple[str, NDArray[Any] | None]] = [("image", None), *maps.items()]
    lines = -(-len(panels) // _COLUMNS)
    with style():
        height, width = image.shape
        figure = new_figure(2.1 * _COLUMNS, 0.6 + lines * (0.6 + 2.0 * height / width))
        grid = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        for axes, (title, labels) in zip(grid, panels, strict=False):
            axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            if labels is not None:
                axes.imshow(palette[labels], interpolation="nearest")
            axes.set_title(_wrapped(title), fontsize=7)
            bare(axes)
        patches = [Patch(color=one, label=name) for one, name in zip(colors, class_names[1:], strict=True)]
        figure.legend(handles=patches, loc="outside lower center", ncols=min(4, len(patches)))
    return figure


def augmentation_figures(rows: Sequence[Row], naming: Naming, examples: Arrays) -> list[ReportFigure]:
    """A synthetic image through each learned augmenter: field, network, noise, result; beside a real one."""
    condition = next(iter(rows[0]["dice"]))
    lines = []
    for row in shown(rows):
        prefix = f"augmentation/{row['method']}/{row['subjects']}"
        found = {part: examples[f"{prefix}/{part}"] for part in PARTS if f"{prefix}/{part}" in examples}
        if found:
            lines.append((naming(row), found))
    if not lines:
        return []
    titles = ("synthetic", "field or network", "noise", "augmented", f"real ({images_of(rows[0], condition)})")
    real = examples[f"image/{condition}"]
    with style():
        height, width = real.shape
        figure = new_figure(2.0 * len(titles), 0.3 + len(lines) * 2.1 * height / width)
        grid = figure.subplots(len(lines), len(titles), squeeze=False)
        for line, (name, found) in zip(grid, lines, strict=True):
            _augmentation(line, found, real)
            line[0].set_ylabel(_wrapped(name), fontsize=7)
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title)
    caption = (
        "What was learned: a synthetic image, the field it is multiplied by (0.5 to 1.5) or what the network adds "
        "(-0.5 to 0.5), the noise (-0.5 to 0.5), the augmented image, and a real one."
    )
    return [ReportFigure("augmentation", caption, figure)]


def _augmentation(line: Sequence[Axes], found: Arrays, real: NDArray[Any]) -> None:
    nothing = np.full_like(found["synthetic"], np.nan)  # an empty panel
    change, centre = (found["field"], 1.0) if "field" in found else (found.get("network", nothing), 0.0)
    panels = (
        (found["synthetic"], 0.0, 1.0),
        (change, centre - 0.5, centre + 0.5),
        (found.get("noise", nothing), -0.5, 0.5),
        (found["augmented"], 0.0, 1.0),
        (real, 0.0, 1.0),
    )
    for axes, (image, low, high) in zip(line, panels, strict=True):
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        bare(axes)


Courses = Mapping[str, tuple[Sequence[int], Sequence[float]]]
"""By name, outer steps and the values after them."""


def sigma_figure(courses: Courses) -> ReportFigure:
    """Sigma of each learned augmenter, by its title, against outer steps."""
    return ReportFigure("sigma", "Sigma of the learned noise against outer steps.", _lines(courses))


def values_figure(name: str, title: str, courses: Courses) -> ReportFigure:
    """The values of one learned augmenter, by their names, against outer steps."""
    caption = f"{title}: what is learned, against outer steps."
    return ReportFigure(f"learned-{name}", caption, _lines(courses, ylabel="value"))


def _lines(courses: Courses, **options: Any) -> Figure:
    return trajectory([Series(name, steps, values) for name, (steps, values) in courses.items()], **options)


def _wrapped(title: str) -> str:
    """At the commas and colons of a long title."""
    return title.replace(", ", ",\n").replace(": ", ":\n")
