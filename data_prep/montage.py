"""A look at a cache: its slices with the labels drawn over them, and what it holds in words."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from metasynth.data.cache import Cache
from metasynth.errors import DataError
from metasynth.files import write_atomically
from metasynth.outputs import SOFTWARE
from metasynth.pictures import colours, png_of

OPACITY = 0.45
PANEL_INCHES = 1.6


def write_montage(cache_path: str | Path, out_png: str | Path, columns: int = 6, rows: int = 4) -> Path:
    """Draw evenly spaced slices of evenly spaced subjects, one row a subject.

    Every slice is shown twice, the image alone and under its labels; a label-only cache shows labels alone. Where there
    are generation labels, they come beside the classes.
    The numbers above are indices along the slicing axis, whose name stands before them where there are several. Of
    volumes the middle plane of the first axis is drawn. Row 0 of an array is at the top.

    Parameters
    ----------
    cache_path : str or Path
        The cache.
    out_png : str or Path
        The picture to write, PNG.
    columns : int
        Most slices of one subject, in one row.
    rows : int
        Most subjects.

    Returns
    -------
    Path
        The path of the picture.

    Raises
    ------
    DataError
        The cache, or an item that is drawn, is not valid, or the picture cannot be written.
    """
    # A changed content may be what one wants to look at; the values of what is drawn are checked when it is read.
    with Cache(cache_path, check_values=False, check_digest=False) as cache:
        chosen = _spread(np.arange(len(cache.subjects)), rows)
        grid = [_spread(np.flatnonzero(cache.subject_index == subject), columns) for subject in chosen]
        wide = max(len(items) for items in grid)
        overlays = _overlays(cache)
        panels = len(overlays) + cache.has_images
        ratio = cache.shape[-2] / cache.shape[-1]
        figure = Figure(
            figsize=(PANEL_INCHES * wide * panels, PANEL_INCHES * ratio * len(grid) + 0.25), facecolor="black"
        )
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(grid), wide * panels, squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for line, items in zip(axes, grid, strict=True):
            _draw_subject(cache, items, line, overlays)
        _add_legend(figure, [entry for overlay in overlays for entry in overlay.legend], cache.info.marks)
    out_png = Path(out_png)
    write_atomically(out_png, png_of(figure, 100, SOFTWARE), failure=DataError, make_folder=False, what="the picture")
    return out_png


class _Overlay(NamedTuple):
    """What is drawn over an image: how label maps (1, *S) of an item are read, and names and colours of its labels."""

    read: Callable[[list[int]], np.ndarray]
    legend: list[tuple[str, tuple[float, float, float, float]]]


def _overlays(cache: Cache) -> list[_Overlay]:
    """The classes, and generation labels where these are others."""
    found = [(cache.read_labels, cache.class_names)]
    if cache.info.has_generation:  # a class and one of its structures may have one name
        classes = tuple(f"{name} (class)" for name in cache.class_names)
        found = [(cache.read_labels, classes), (cache.read_structures, cache.generation_names)]
    return [_Overlay(read, [*zip(names[1:], colours(len(names) - 1), strict=True)]) for read, names in found]


def _add_legend(
    figure: Figure, entries: list[tuple[str, tuple[float, float, float, float]]], marks: tuple[str, ...]
) -> None:
    """Name the labels below the slices, in as many lines as the width asks for, and say what are no scans."""
    entry_inches = 0.5 + 0.075 * max(len(name) for name, _ in entries)
    columns = max(1, min(len(entries), int(figure.get_figwidth() / entry_inches)))
    lines = -(-len(entries) // columns)
    room = 0.3 + 0.2 * lines
    figure.set_figheight(figure.get_figheight() + room)
    handles = [Patch(color=colour, label=name) for name, colour in entries]
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=columns,
        frameon=False,
        labelcolor="white",
        fontsize=8,
    )
    head = 0.25
    if marks:
        head += 0.2
        figure.set_figheight(figure.get_figheight() + 0.2)
        above = 1 - 0.13 / figure.get_figheight()
        figure.text(0.5, above, ", ".join(marks), color="white", ha="center", va="center", fontsize=8)
    height = figure.get_figheight()
    figure.subplots_adjust(0.005, room / height, 0.995, 1 - head / height, wspace=0.02, hspace=0.12)


def describe(cache_path: str | Path) -> list[tuple[str, str]]:
    """What a cache holds, as (what, value) lines; reads and checks everything, once and some items at a time.

    Raises
    ------
    DataError
        The cache is not valid.
    """
    path = Path(cache_path)
    with Cache(path, check_values=False, check_digest=False) as cache:
        shares = np.zeros(cache.n_generation, dtype=np.int64)

        def count(name: str, _: int, block: np.ndarray) -> None:
            for item in block if name == "labels" else ():
                shares[:] += np.bincount(item.ravel(), minlength=cache.n_generation)

        state = "ok" if cache.is_as_written(count) else "WRONG: the content was changed after it was written"
        counts = [int(shares[cache.target == k].sum()) for k in range(cache.n_classes)]
        info = cache.info
        per_subject = np.bincount(cache.subject_index)
        spread = (
            f"{per_subject.min()}"
            if per_subject.min() == per_subject.max()
            else f"{per_subject.min()} to {per_subject.max()}"
        )
        kind = "volumes" if len(cache.shape) == 3 else "slices"
        lines = [
            ("file", f"{path} ({path.stat().st_size / 1e6:.1f} MB)"),
            ("holds", f"{cache.n} {kind} of {' x '.join(map(str, cache.shape))}"),
            ("images", ", ".join(("yes", *info.marks)) if cache.has_images else "no, labels only"),
            *([("shows", "whole heads")] if info.shows_heads else []),
            ("subjects", f"{len(cache.subjects)}, {spread} {kind} each"),
            ("spacing", f"{' x '.join(f'{s:g}' for s in info.spacing_mm)} mm"),
            ("axis", f"{info.axis}, orientation {info.orientation}"),
        ]
        lines += [
            (f"class {k}", f"{name}: {count / shares.sum():.2%} of the voxels")
            for k, (name, count) in enumerate(zip(cache.class_names, counts, strict=True))
        ]
        if info.has_generation:
            lines += [
                (f"structure {g}", f"{name}: {share / shares.sum():.2%} of the voxels, in class {k}")
                for g, (name, share, k) in enumerate(zip(cache.generation_names, shares, cache.target, strict=True))
            ]
        lines += [("mapping", info.mapping), ("source", info.source), ("created by", info.created_by)]
        return [*lines, ("digest", f"{info.digest} ({state})")]


def _spread(items: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the items, evenly spaced."""
    if len(items) <= most:
        return items
    return items[np.linspace(0, len(items) - 1, most).round().astype(int)]


def _draw_subject(cache: Cache, items: np.ndarray, line: np.ndarray, overlays: list[_Overlay]) -> None:
    """Draw the given items of one subject into a row of axes."""
    panels = len(overlays) + cache.has_images
    for i, item in enumerate(items):
        axes = line[panels * i : panels * (i + 1)]
        if cache.has_images:
            image = _plane(cache.read_images([item])[0])
            for axis in axes:
                axis.imshow(image, cmap="gray", vmin=0.0, vmax=1.0)
        for axis, (read, legend) in zip(axes[cache.has_images :], overlays, strict=True):
            opacity = OPACITY if cache.has_images else 1.0
            shades = ListedColormap([(0.0, 0.0, 0.0, 0.0), *((*colour[:3], opacity) for _, colour in legend)])
            axis.imshow(_plane(read([item])[0]), cmap=shades, vmin=0, vmax=len(legend), interpolation="nearest")
        name = cache.subjects[cache.subject_index[item]] if i == 0 else ""
        along = "" if cache.view is None else cache.info.axes[cache.view[item]]
        title = [name, along, str(cache.slice_index[item])]
        axes[0].set_title(" ".join(filter(None, title)), color="white", fontsize=6, pad=2)


def _plane(array: np.ndarray) -> np.ndarray:
    """A slice itself (H, W), or the middle plane of a volume (D, H, W)."""
    return array if array.ndim == 2 else array[array.shape[0] // 2]
