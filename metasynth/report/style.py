"""How every figure looks: colours that colour-blind readers can tell apart, small type, no clutter."""

from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metasynth.pictures import png_of

# Okabe and Ito's set, without its yellow, which is too light for lines on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, FAINT = "#222222", "#8a8a8a"
DPI = 150

_SETTINGS: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.2,
    "figure.facecolor": "white",
}


def style() -> AbstractContextManager[None]:
    """The settings of every figure, for a ``with`` block."""
    return mpl.rc_context(_SETTINGS)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that no window system knows of."""
    return Figure(figsize=(width, height), layout="constrained")


def color(index: int) -> str:
    """The colour of series ``index``; they repeat after seven."""
    return COLORS[index % len(COLORS)]


def bare(axes: Axes) -> None:
    """Take away ticks and frame, for images."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, with no date or version in it."""
    return png_of(figure, DPI, None)
