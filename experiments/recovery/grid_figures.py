"""Figures of a recovery study over many runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from metasynth.report.style import FAINT, INK, color, new_figure, style

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
Truth = float | tuple[float, float] | None


@dataclass(frozen=True)
class Recovered:
    """What one run learned.

    Attributes
    ----------
    group : str
        A colour and marker, such as the start; empty where there is only one.
    truth, learned : float
    """

    group: str
    truth: float
    learned: float


@dataclass(frozen=True)
class Course:
    """A learned value of one run against outer steps.

    Attributes
    ----------
    panel : str
        The preset, by its label.
    group : str
        A colour, such as the start; empty where there is only one.
    steps, values : sequences of T float
        Outer steps, rising, and the values after them.
    truth : float, pair of float or None
        What should be found; a pair is a range.
    """

    panel: str
    group: str
    steps: Sequence[float]
    values: Sequence[float]
    truth: Truth = None


def recovered_figure(points: Sequence[Recovered], name: str) -> Figure:
    """Learned against true values, a point for each run, and the line on which they should lie.

    Points of several groups stand side by side, so that none hides another.

    Raises
    ------
    ValueError
        If there is no point.
    """
    if not points:
        raise ValueError("points: expected at least one, got none")
    groups = list(dict.fromkeys(point.group for point in points))
    truths = sorted({point.truth for point in points})
    values = [*truths, *(point.learned for point in points)]
    low, high = min(0.0, *values), max(values)
    margin = 0.08 * (high - low or 1.0)
    step = 0.022 * (high - low or 1.0)
    with style():
        figure = new_figure(4.4, 4.0)
        axes = figure.add_subplot()
        ends = [low - margin, high + margin]
        axes.plot(ends, ends, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        for index, group in enumerate(groups):
            of_group = [point for point in points if point.group == group]
            shift = (index - (len(groups) - 1) / 2) * step
            axes.scatter(
                [point.truth + shift for point in of_group],
                [point.learned for point in of_group],
                s=22,
                color=color(index),
                marker=MARKERS[index % len(MARKERS)],
                alpha=0.75,
                linewidths=0,
                label=group,
            )
        axes.set_xlim(*ends)
        axes.set_ylim(*ends)
        axes.set_aspect("equal")
        axes.set_xticks(truths, [f"{truth:g}" for truth in truths])
        axes.set_xlabel(f"true {name}")
        axes.set_ylabel(f"learned {name}")
        if any(groups):
            axes.legend(loc="upper left", handletextpad=0.2)
        return figure


def courses_figure(courses: Sequence[Course], name: str) -> Figure:
    """All courses of a learned value, a panel for each preset, with its truth dashed or, where it is a range, shaded.

    Raises
    ------
    ValueError
        If there is no course.
    """
    if not courses:
        raise ValueError("courses: expected at least one, got none")
    panels = list(dict.fromkeys(course.panel for course in courses))
    groups = list(dict.fromkeys(course.group for course in courses))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with style():
        figure = new_figure(max(4.5, 2.5 * columns), 0.5 + 2.1 * rows)
        grid = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel()
        for axes, panel in zip(grid, panels, strict=False):
            shown = [course for course in courses if course.panel == panel]
            for course in shown:
                axes.plot(
                    course.steps, course.values, color=color(groups.index(course.group)), linewidth=0.8, alpha=0.7
                )
            for truth in dict.fromkeys(course.truth for course in shown):
                if isinstance(truth, tuple):
                    axes.axhspan(*truth, color=FAINT, alpha=0.18, linewidth=0)
                elif truth is not None:
                    axes.axhline(truth, color=INK, linestyle=(0, (4, 3)), linewidth=0.9)
            axes.set_title(f"preset {panel}")
            axes.margins(x=0.01)
        grid[0].set_ylim(bottom=min(0.0, grid[0].get_ylim()[0]))
        for empty in grid[len(panels) :]:
            empty.set_visible(False)
        for number in range(len(panels)):
            if number + columns >= len(panels):
                grid[number].set_xlabel("outer step")
                grid[number].tick_params(labelbottom=True)
            if number % columns == 0:
                grid[number].set_ylabel(name)
        if any(groups):
            lines = [Line2D([], [], color=color(index), label=group) for index, group in enumerate(groups)]
            figure.legend(handles=lines, loc="outside lower center", ncols=min(4, len(lines)))
        return figure
