"""Figures of images that studies share: side by side, and under label maps; each returns a matplotlib Figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from metasynth.pictures import colours
from metasynth.report.style import bare, new_figure, style

Image = NDArray[np.floating]
Labels = NDArray[np.integer]
Colour = tuple[float, float, float, float]

OPACITY = 0.55  # of classes over an image


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


def image_triplet(rows: Sequence[Triplet]) -> Figure:
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
        for axes, title in zip(grid[0], ("noise-free", "learned", "real"), strict=True):
            axes.set_title(title)
        return figure


def segmentation_overlay(
    image: Image,
    maps: Mapping[str, Labels],
    class_names: Sequence[str],
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

    Raises
    ------
    ValueError
        A label map has another shape than the image.
    """
    shades = colours(len(class_names) - 1)
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
            axes.imshow(_painted(labels, shades), interpolation="nearest")
            axes.set_title(title)
        patches = [Patch(color=c, label=name) for c, name in zip(shades, class_names[1:], strict=True)]
        figure.legend(handles=patches, loc="outside lower center", ncols=min(4, max(1, len(patches))))
        return figure


def _show(axes: Axes, image: Image, white: float) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=white, interpolation="nearest")
    bare(axes)


def _white(*images: Image) -> float:
    """What is shown as white: 1, or what 1 % of the voxels exceed where fields make images brighter than that."""
    return max(1.0, float(np.quantile(np.stack(images), 0.99)))


def _painted(labels: Labels, shades: Sequence[Colour]) -> NDArray[np.float64]:
    """(H, W, 4) colours of the classes; the background is transparent."""
    palette = np.array([(0.0, 0.0, 0.0, 0.0), *((*c[:3], OPACITY) for c in shades)])
    return palette[labels]
