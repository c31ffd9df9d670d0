"""Figures of numbers that studies share, of what is learned and of Dice; each function returns a matplotlib Figure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from metasynth.report.style import FAINT, INK, color, new_figure, style

TAIL = 0.1  # of the outer steps: over these a study's result is the mean


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


def trajectory(series: Sequence[Series], *, ylabel: str = "σ") -> Figure:
    """Learned parameters against outer steps: the truth dashed, the mean over the last part as a thick line.

    Parameters
    ----------
    series : sequence of Series
        One line each.
    ylabel : str
        The parameter, with its unit.

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
            count = max(1, round(TAIL * len(values)))
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
        axes.legend(title=f"mean of the last {TAIL:.0%} of steps", alignment="left", loc="best")
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
