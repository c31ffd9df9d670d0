"""What all pictures share: the colours of classes, and text as it is written.

Names are anybody's, and a dollar sign in one begins no mathematics.
"""

import io
import warnings
from collections.abc import Container, Iterator

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatterMathtext

COLOURS = ("#4e79a7", "#e15759", "#59a14f", "#f2b134", "#b07aa1", "#76b7b2", "#ff9da7", "#9c755f")


def colours(n: int) -> list[tuple[float, float, float, float]]:
    """Colours of n classes, background apart, in pictures and tables: red, green, blue and opacity from 0 to 1.

    Eight that are easily told apart, or as many of three palettes of 20 as are needed.
    """
    if n <= len(COLOURS):
        return [to_rgba(colour) for colour in COLOURS[:n]]
    r, g, b, a = np.concatenate([colormaps[name](np.arange(20)) for name in ("tab20", "tab20b", "tab20c")]).T
    palettes = list(zip(r.tolist(), g.tolist(), b.tolist(), a.tolist(), strict=True))
    return [palettes[i % len(palettes)] for i in range(n)]


def as_written(figure: Figure) -> Figure:
    """The figure, all of whose text is drawn literally but for the numbers of logarithmic axes, which are powers.

    To be called when nothing but drawing is left to do.
    """
    axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    powers = [axis for axis in axes if isinstance(axis.get_major_formatter(), LogFormatterMathtext)]
    numbers = {label for axis in powers for label in axis.get_ticklabels(which="both")}
    off = {axis for axes in figure.axes if not axes.axison for axis in (axes.xaxis, axes.yaxis)}
    for text in _texts(figure, off):
        if text not in numbers:
            text.set_parse_math(False)
    return figure


def _texts(artist: Artist, without: Container[Artist]) -> Iterator[Text]:
    """All text of an artist; that of ``without``, axes that are not drawn, would be made for it, which takes long."""
    if isinstance(artist, Text):
        yield artist
    for child in artist.get_children():
        if child not in without:
            yield from _texts(child, without)


def png_of(figure: Figure, dpi: int, software: str | None) -> bytes:
    """The figure as a PNG file that names the software, with no date in it; a letter without a glyph is a box."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        as_written(figure).savefig(buffer, format="png", dpi=dpi, metadata={"Software": software})
    return buffer.getvalue()
