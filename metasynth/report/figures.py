"""The figures that studies share; each function returns a matplotlib Figure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from metasynth.report.style import COLORS, FAINT, INK, bare, color, new_figure, style

Image = NDArray[np.floating]
Labels = NDArray[np.integer]


@dataclass(frozen=True)
class Series:
    """A learned parameter against outer steps.

    Attributes
    ----------
    label : str
        What it is, for the legend.
    steps : sequence of float
        (T,) outer steps, rising.
    values : sequence of float
        (T,) values after those steps.
    truth : float or None
        The value that should be found, or None if there is none.
    """

    label: str
    steps: Sequence[float]
    values: Sequence[float]
    truth: float | None = None

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.values) or not len(self.steps):
            got = f"{len(self.steps)} steps and {len(self.values)} values"
            raise ValueError(f"series {self.label!r}: expected as many values as steps, at least one; got {got}")


def trajectory(series: Sequence[Series], *, ylabel: str = "σ", tail: float = 0.1) -> Figure:
    """Learned parameters against outer steps: the truth dashed, the mean over the last part as a thick line.

    Parameters
    ----------
    series : sequence of Series
        One line each.
    ylabel : str
        The parameter, with its unit.
    tail : float
        The fraction of steps that is averaged; the result a study reports.

    Raises
    ------
    ValueError
        There is no series.
    """
    if not series:
        raise ValueError("series: expected at least one, got none")
    with style():
        figure = new_figure(6.0, 3.4)
        axes = figure.add_subplot()
        for index, one in enumerate(series):
            steps, values = np.asarray(one.steps, float), np.asarray(one.values, float)
            count = max(1, round(tail * len(values)))
            mean = values[-count:].mean()
            found = f"{one.label}: {mean:.3f}" + ("" if one.truth is None else f" (truth {one.truth:.3f})")
            axes.plot(steps, values, color=color(index), label=found)
            axes.plot(steps[[-count, -1]], [mean, mean], color=color(index), linewidth=4, alpha=0.45)
            if one.truth is not None:
                axes.axhline(one.truth, color=color(index), linestyle=(0, (4, 3)), linewidth=0.9)
        axes.set_xlabel("outer step")
        axes.set_ylabel(ylabel)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.margins(x=0.01)
        axes.legend(title=f"mean of the last {tail:.0%} of steps", alignment="left", loc="best")
        return figure


@dataclass(frozen=True)
class Triplet:
    """One row of the paper's Figure 2.

    Attributes
    ----------
    label : str
        The setting, shown at the left.
    noise_free : Image
        (H, W) synthetic image before the augmenter.
    learned : Image
        (H, W) the same image after the learned augmenter.
    real : Image
        (H, W) a real image.
    """

    label: str
    noise_free: Image
    learned: Image
    real: Image


def image_triplet(
    rows: Sequence[Triplet], *, titles: tuple[str, str, str] = ("noise-free", "learned", "real")
) -> Figure:
    """The paper's Figure 2: noise-free, learned and real images side by side, those of a row on one grey scale.

    Raises
    ------
    ValueError
        There is no row.
    """
    if not rows:
        raise ValueError("rows: expected at least one, got none")
    with style():
        height, width = rows[0].noise_free.shape
        figure = new_figure(6.0, 0.3 + len(rows) * 2.0 * height / width)
        grid = np.atleast_2d(figure.subplots(len(rows), 3))
        for at, row in enumerate(rows):
            images = (row.noise_free, row.learned, row.real)
            white = _white(*images)
            for axes, image in zip(grid[at], images, strict=True):
                _show(axes, image, white)
            grid[at, 0].set_ylabel(row.label)
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title)
        return figure


def segmentation_overlay(
    image: Image,
    maps: Mapping[str, Labels],
    class_names: Sequence[str],
    *,
    colors: Sequence[str] = COLORS,
    alpha: float = 0.55,
) -> Figure:
    """The image, and the image under each label map; class 0 stays clear.

    Parameters
    ----------
    image : Image
        (H, W).
    maps : mapping of str to numpy.ndarray
        Title -> (H, W) class indices, such as the truth and predictions.
    class_names : sequence of str
        (K,) names; the first is the background.
    colors : sequence of str
        Of the classes from 1 on.
    alpha : float
        Opacity of the classes.

    Raises
    ------
    ValueError
        A label map has another shape than the image, or there are fewer colours than classes.
    """
    if len(colors) < len(class_names) - 1:
        raise ValueError(f"colors: expected at least {len(class_names) - 1} for the classes, got {len(colors)}")
    for title, labels in maps.items():
        if labels.shape != image.shape:
            raise ValueError(f"maps: {title!r} has shape {labels.shape}, the image has {image.shape}")
    with style():
        height, width = image.shape
        count = 1 + len(maps)
        figure = new_figure(2.0 * count, 0.8 + 2.0 * height / width)
        grid = np.atleast_1d(figure.subplots(1, count))
        white = _white(image)
        _show(grid[0], image, white)
        grid[0].set_title("image")
        for axes, (title, labels) in zip(grid[1:], maps.items(), strict=True):
            _show(axes, image, white)
            axes.imshow(_painted(labels, colors[: len(class_names) - 1], alpha), interpolation="nearest")
            axes.set_title(title)
        patches = [Patch(color=c, label=name) for c, name in zip(colors, class_names[1:], strict=False)]
        figure.legend(handles=patches, loc="outside lower center", ncols=min(4, max(1, len(patches))))
        return figure


@dataclass(frozen=True)
class DiceGroup:
    """Dice of one method under one test condition.

    Attributes
    ----------
    method : str
        A colour in the figure.
    condition : str
        A place on its x axis.
    values : sequence of float
        (n,) one value a subject; NaN where a class is absent.
    """

    method: str
    condition: str
    values: Sequence[float]


def dice_by_condition(groups: Sequence[DiceGroup], *, xlabel: str = "test condition") -> Figure:
    """Every subject's Dice as a point and their mean as a bar, by condition and method.

    Raises
    ------
    ValueError
        There is no group.
    """
    if not groups:
        raise ValueError("groups: expected at least one, got none")
    methods = list(dict.fromkeys(group.method for group in groups))
    conditions = list(dict.fromkeys(group.condition for group in groups))
    step = 0.8 / len(methods)
    with style():
        figure = new_figure(max(4.0, 1.2 + 0.5 * len(methods) * len(conditions)), 3.4)
        axes = figure.add_subplot()
        for group in groups:
            index = methods.index(group.method)
            place = conditions.index(group.condition) + (index - (len(methods) - 1) / 2) * step
            values = np.asarray([value for value in group.values if math.isfinite(value)], float)
            if not len(values):
                continue
            axes.bar(place, values.mean(), 0.9 * step, color=color(index), alpha=0.35, linewidth=0)
            spread = np.linspace(-0.25, 0.25, len(values)) * step if len(values) > 1 else np.zeros(1)
            axes.scatter(place + spread, values, s=9, color=color(index), linewidths=0, zorder=3)
            axes.plot([place - 0.45 * step, place + 0.45 * step], [values.mean()] * 2, color=INK, linewidth=1)
        axes.set_xticks(range(len(conditions)), conditions)
        axes.set_xlabel(xlabel)
        axes.set_ylabel("Dice")
        axes.set_ylim(0, 1)
        axes.set_axisbelow(True)
        axes.grid(axis="y", color=FAINT, alpha=0.3, linewidth=0.6)
        patches = [Patch(color=color(index), label=name) for index, name in enumerate(methods)]
        figure.legend(handles=patches, loc="outside upper right", ncols=len(patches))
        return figure


def _show(axes: Axes, image: Image, white: float) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=white, interpolation="nearest")
    bare(axes)


def _white(*images: Image) -> float:
    """What is shown as white: 1, or what 1 % of the voxels exceed where fields make images brighter than that."""
    return max(1.0, float(np.quantile(np.stack(images), 0.99)))


def _painted(labels: Labels, colors: Sequence[str], alpha: float) -> NDArray[np.float64]:
    """(H, W, 4) colours of the classes; the background is transparent."""
    palette = np.array([(0.0, 0.0, 0.0, 0.0), *((*to_rgb(c), alpha) for c in colors)])
    return palette[labels]
