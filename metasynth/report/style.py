"""How every figure looks: colours that colour-blind readers can tell apart, small type, no clutter."""

import io
import warnings
from contextlib import AbstractContextManager
from typing import Any, Literal, final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

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
    "text.parse_math": False,  # a $ in the name of a class or a file begins no formula
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


@final
class _PlainNumbers(LogFormatter):
    """Labels where matplotlib has them, such as 0.01."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def log_scale(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with numbers written out: matplotlib's own labels are formulas."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(_PlainNumbers())
    axis.set_minor_formatter(_PlainNumbers(labelOnlyBase=False, minor_thresholds=(1.0, 0.4)))


def bare(axes: Axes) -> None:
    """Take away ticks and frame, for images."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def png(figure: Figure, dpi: int = DPI) -> bytes:
    """The figure as a PNG file, with no date or version in it."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a letter that the font does not have is a box
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
