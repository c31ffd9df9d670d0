"""Text of figures as it is written: names are anybody's, and a dollar sign in one begins no mathematics."""

import io
import warnings

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatterMathtext


def as_written(figure: Figure) -> Figure:
    """The figure, all of whose text is drawn literally but for the numbers of logarithmic axes, which are powers.

    To be called when nothing but drawing is left to do.
    """
    axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    powers = [axis for axis in axes if isinstance(axis.get_major_formatter(), LogFormatterMathtext)]
    numbers = {label for axis in powers for label in axis.get_ticklabels(which="both")}
    for text in figure.findobj(Text):
        if text not in numbers:
            text.set_parse_math(False)
    return figure


def png_of(figure: Figure, dpi: int, software: str | None) -> bytes:
    """The figure as a PNG file that names the software, with no date in it; a letter without a glyph is a box."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        as_written(figure).savefig(buffer, format="png", dpi=dpi, metadata={"Software": software})
    return buffer.getvalue()
