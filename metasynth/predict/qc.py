"""What to check a segmentation by: a picture of planes along the three axes, and a score."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from metasynth.data_prep.montage import OPACITY
from metasynth.data_prep.naming.names import as_name
from metasynth.data_prep.slicing import AXIS_INDEX, Axis, content_along, plane_spacing, planes
from metasynth.data_prep.volumes.volumes import Volume, to_ras
from metasynth.files import write_atomically
from metasynth.outputs import SOFTWARE
from metasynth.pictures import colours, png_of
from metasynth.predict.scan import Segmentation
from metasynth.predict.usable import foreground

COLUMNS = 6
PANEL_INCHES = 1.7
HEAD_INCHES, LINE_INCHES = 0.3, 0.17
GAP = 0.01
TALLEST = 8.0  # of a plane, in its widths
SHOWN_PERCENT = (1.0, 99.5)


def expected_dice(found: Segmentation) -> list[float | None]:
    """The Dice that a scan's own posteriors make one expect, the mean over all classes but background and of each.

    2 sum(p s) / (sum(p) + sum(s)) of a class, p its posterior and s 1 where it is the label, 0 elsewhere: the Dice of
    the label map with the truth if every voxel's class were drawn by the posteriors, numerator and denominator each
    replaced by its mean. A network that is surer than it is right makes it too high; the order of scans is what it
    says (docs/measurements/predict.md). None where neither p nor s has any of the class.
    """
    each: list[float | None] = []
    for k, mass in list(enumerate(found.mass))[1:]:
        at = found.labels == k
        total = mass + np.count_nonzero(at)
        each.append(2 * float(found.certainty[at].sum(dtype=np.float64)) / total if total > 0 else None)
    there = [value for value in each if value is not None]
    return [sum(there) / len(there) if there else None, *each]


def write_picture(path: Path, image: Volume, labels: NDArray[np.integer], class_names: Sequence[str]) -> None:
    """Draw planes spread over the labels, for each axis a row of the scan and one with the labels over it.

    The numbers are indices along the axis, oriented to right, anterior and superior. The subject's left is on the left.

    Parameters
    ----------
    path : Path
        The PNG to write.
    image : Volume
        The scan.
    labels : numpy.ndarray
        (X, Y, Z) on its voxels.
    class_names : sequence of str
        K names, background first.

    Raises
    ------
    RunError
        The picture cannot be written.
    """
    scan, classes = to_ras(image), to_ras(Volume(labels, image.affine, image.where))
    names = list(class_names[1:])
    seen = np.isfinite(scan.data) & foreground(scan.data)
    low, high = np.percentile(scan.data[seen], SHOWN_PERCENT)
    shades = ListedColormap([(0.0, 0.0, 0.0, 0.0), *((*c[:3], OPACITY) for c in colours(len(names)))])
    height = 2 * sum(_height(scan, axis) for axis in AXIS_INDEX)
    foot = LINE_INCHES * (1 + -(-len(names) // COLUMNS))
    inches = PANEL_INCHES * height + HEAD_INCHES + foot
    figure = Figure(figsize=(PANEL_INCHES * COLUMNS, inches), facecolor="black")
    FigureCanvasAgg(figure)
    # One pair of axes for all planes, whose unit is a plane's width: a pair for each takes seconds.
    sheet = figure.add_axes((0.0, foot / inches, 1.0, PANEL_INCHES * height / inches))
    top = 0.0
    for axis in AXIS_INDEX:
        tall = _height(scan, axis)
        for column, at in enumerate(_chosen(classes.data, axis)):
            plane, found = (planes(v.data, axis, np.array([at]))[0] for v in (scan, classes))
            for row in range(2):
                place = (column + GAP, column + 1 - GAP, top + (row + 1) * tall, top + row * tall)
                sheet.imshow(np.nan_to_num(plane), cmap="gray", vmin=low, vmax=high, extent=place)
            sheet.imshow(found, cmap=shades, vmin=0, vmax=len(names), interpolation="nearest", extent=place)
            sheet.text(column + 2 * GAP, top + GAP, f"{axis} {at}", color="white", fontsize=5, va="top")
        top += 2 * tall
    sheet.set(xlim=(0, COLUMNS), ylim=(top, 0), aspect="auto")
    sheet.axis("off")
    handles = [Patch(color=c, label=n) for c, n in zip(colours(len(names)), names, strict=True)]
    most = min(len(names), COLUMNS)
    figure.legend(handles=handles, loc="lower center", ncols=most, frameon=False, labelcolor="white", fontsize=7)
    figure.suptitle(as_name(Path(image.where).name), color="white", fontsize=8, y=1 - 0.05 / inches, va="top")
    write_atomically(path, png_of(figure, 100, SOFTWARE))


def _chosen(classes: NDArray[np.integer], axis: Axis) -> list[int]:
    """Planes evenly spread over those with labels, or over all where there are none."""
    content = content_along(classes, axis)
    at = np.flatnonzero(content) if content.any() else np.arange(len(content))
    share = (np.arange(COLUMNS) + 0.5) / COLUMNS
    return (at[0] + share * (at[-1] - at[0])).round().astype(int).tolist()


def _height(scan: Volume, axis: Axis) -> float:
    """Height of a plane over its width; that of a long and narrow field is cut, so that the picture stays one."""
    _, down, across = plane_spacing(scan.spacing, axis)
    _, rows, columns = plane_spacing(scan.data.shape, axis)
    return min(max((rows * down) / (columns * across), 1 / TALLEST), TALLEST)
