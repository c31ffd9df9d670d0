"""From one scan to its label map, voxel by voxel those of the scan."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from metasynth.data_prep.scaling import not_air, scale, scale_head
from metasynth.data_prep.volumes.resample import (
    Grid,
    grid_of,
    grid_with_spacing,
    has_spacing,
    resample_image,
    resample_mask,
    to_source,
)
from metasynth.data_prep.volumes.volumes import Volume, check_affine
from metasynth.errors import DataError
from metasynth.predict.geometry import (
    Window,
    resample_share,
    seen_along,
    stack_orientation,
    turned,
    turned_back,
)
from metasynth.predict.network import posteriors_of, window_of
from metasynth.predict.usable import foreground, mask_on_grid_of, require_brain, require_head, require_mr, require_room
from metasynth.segment.model_description import ModelDescription, TrainedModel

_BEYOND = "beyond the 3.4e38 that single precision holds"


@dataclass(frozen=True)
class Segmentation:
    """What was found in a scan.

    Attributes
    ----------
    labels : numpy.ndarray
        (X, Y, Z) uint8, or int16 for more than 256 classes.
    certainty : numpy.ndarray
        (X, Y, Z) float32, the posterior of the label.
    posteriors : numpy.ndarray or None
        (X, Y, Z, K) float32, or None where they were not asked for.
    mass : tuple of K float
        The sum of each class's posteriors: the voxels that are expected to be of it.
    """

    labels: NDArray[np.integer]
    certainty: NDArray[np.float32]
    posteriors: NDArray[np.float32] | None
    mass: tuple[float, ...]


@dataclass(frozen=True)
class Stack:
    """A scan as the network is given it.

    Attributes
    ----------
    data : numpy.ndarray
        (D, H, W) float32 in [0, 1], of the training images' spacing; 0 is background.
    content : numpy.ndarray
        (D, H, W) bool, what is not background.
    brain : numpy.ndarray or None
        (D, H, W) bool, where brain may be, holes included: dark fluid may have been scaled to 0. None: anywhere.
    grid : Grid
        Where its voxels lie.
    own : Grid
        The scan's own voxels, turned in the same way.
    """

    data: NDArray[np.float32]
    content: NDArray[np.bool_]
    brain: NDArray[np.bool_] | None
    grid: Grid
    own: Grid


def segment(
    model: TrainedModel | Sequence[TrainedModel],
    image: Volume,
    mask: Volume | None = None,
    *,
    device: str = "cpu",
    keep_posteriors: bool = False,
) -> Segmentation:
    """Label every voxel of a scan with the class of the largest posterior.

    Posteriors, not labels, are brought back to the scan's voxels. Where the image is background for as far as a window
    of the training images' size reaches, the label is 0; with a network for brains alone, wherever there is none.

    Parameters
    ----------
    model : TrainedModel or sequence of TrainedModel
        Whose network is on `device`; of several, which have the same classes, the mean of the posteriors is taken.
    image : Volume
        Any grid and orientation.
    mask : Volume or None
        The brain, above 0, on any grid; without it all of the image but its background is taken for it.
    device : str
        "cpu", "cuda", ...
    keep_posteriors : bool
        Return them too.

    Raises
    ------
    DataError
        The scan cannot be used.
    """
    models = [model] if isinstance(model, TrainedModel) else model
    parts = [_shares(each, image, mask, device, keep_posteriors) for each in models]
    labels, certainty, kept, mass = _on_own_grid(parts, keep_posteriors)
    orientation = parts[0].orientation
    back = [turned_back(data, image.affine, orientation) for data in (labels, certainty)]
    classes = None if kept is None else turned_back(np.moveaxis(kept, 0, -1), image.affine, orientation)
    return Segmentation(back[0], back[1], classes, mass)


@dataclass(frozen=True)
class _Shares:
    """The posteriors of one model, on the grid that its network was given."""

    posteriors: NDArray[np.floating]
    window: Window
    stack: Stack
    orientation: str

    def on_own_grid(self, k: int, orientation: str) -> NDArray[np.float32]:
        """The share of a class on the scan's own voxels, turned to an orientation."""
        part = self.posteriors[k].astype(np.float32, copy=False)
        share = self.window.put(part, self.stack.data.shape, around=float(k == 0))
        if self.stack.grid is not self.stack.own:
            matrix = np.linalg.inv(self.stack.grid.affine) @ self.stack.own.affine
            share = resample_share(share, matrix, self.stack.own)
        return seen_along(share, self.orientation, orientation)


def _shares(model: TrainedModel, image: Volume, mask: Volume | None, device: str, keep: bool) -> _Shares:
    """What a model finds in a scan."""
    description = model.description
    stack = make_stack(image, mask, description)
    window = window_of(stack.content, model)
    require_room(window.shape, stack.own.shape, len(description.class_names), keep, image.where)
    content = window.take(stack.content)
    posteriors = posteriors_of(model, window.take(stack.data), content, device)
    if not all(np.isfinite(share).all() for share in posteriors):  # one at a time to save memory, as below
        raise DataError(f"{image.where}: the network's output is not finite; its weights may be damaged")
    if description.takes_heads:
        allowed = None if stack.brain is None else window.take(stack.brain)
        require_brain(posteriors, content, description.brain_share, allowed, image, mask)
    if stack.brain is not None:
        # In planes that it has not learned from, a network may call anything brain.
        beyond = ~window.take(stack.brain)
        for k, share in enumerate(posteriors):
            share[beyond] = k == 0
    return _Shares(posteriors, window, stack, stack_orientation(description.views[0]))


def make_stack(image: Volume, mask: Volume | None, description: ModelDescription) -> Stack:
    """Turn, scale, strip and resample a scan as `metasynth prep` does for training.

    Raises
    ------
    DataError
        The image has no contrast, values that are not finite, or voxels of no size; no voxel of the mask lies in it.
        It is CT; it is nothing but air, where a head is needed.
    """
    check_affine(image, allow_shear=True)
    require_mr(image)
    orientation, head = stack_orientation(description.views[0]), description.takes_heads
    seen = foreground(image.data)
    brain = seen if mask is None else mask_on_grid_of(image, mask, seen)
    if not brain.any():
        value = float(image.data.flat[0])
        beyond = f", or {_BEYOND}" if np.isinf(value) else ""
        raise DataError(f"{image.where}: shows nothing to segment, every voxel is {value!r}{beyond}")
    whole = mask is not None and not description.brain_only
    wrong = ~np.isfinite(image.data) & (seen if head else whole | brain)
    if wrong.any():
        raise DataError(f"{image.where}: {int(wrong.sum())} voxels that are needed are NaN or infinite, or {_BEYOND}")
    if head:
        require_head(image)
    scaled = scale_head(image.data, image.where) if head else scale(image.data, brain, image.where, keep_outside=whole)
    limited = description.brain_only or (head and mask is not None)
    volume = turned(Volume(scaled, image.affine, image.where), orientation)
    filled: NDArray[np.bool_] | None = None
    if limited:
        filled = turned(Volume(binary_fill_holes(brain), image.affine, image.where), orientation).data
    own = grid_of(volume)
    d, h, w = (mm or kept for mm, kept in zip(stack_spacing(description), volume.spacing, strict=True))
    wanted = (d, h, w)
    if has_spacing(volume, wanted):
        return Stack(np.ascontiguousarray(volume.data), _shown(volume.data, head), filled, own, own)
    grid = grid_with_spacing(volume, wanted)
    matrix = to_source(volume, grid)
    data = resample_image(volume.data, matrix, grid)
    if description.brain_only:
        data[~resample_mask(volume.data > 0, matrix, grid)] = 0
    if not data.any():
        raise DataError(f"{image.where}: nothing is left of the brain at {description.spacing_mm} mm")
    limit = None if filled is None else resample_mask(filled, matrix, grid)
    return Stack(data, _shown(data, head), limit, grid, own)


def stack_spacing(description: ModelDescription) -> tuple[float | None, ...]:
    """(3,) mm that the voxels of a stack are to have, None along an axis where they stay as they are."""
    if len(description.shape) == 3:
        return description.spacing_mm
    # Slices along one axis are not thinned out or made up: every plane of the scan is one.
    across = None if len(description.views) == 1 else description.spacing_mm[0]
    return (across, *description.spacing_mm)


def _shown(data: NDArray[np.float32], head: bool) -> NDArray[np.bool_]:
    """What is not background in a scaled image, or in a head not air."""
    return not_air(data) if head else data > 0


def _on_own_grid(
    parts: Sequence[_Shares], keep: bool
) -> tuple[NDArray[np.integer], NDArray[np.float32], NDArray[np.float32] | None, tuple[float, ...]]:
    """Labels, their posteriors, all posteriors (K, D, H, W) and their sums, a class at a time to save memory.

    They are on the scan's own voxels, turned as the first part.
    """
    shape, n_classes = parts[0].stack.own.shape, len(parts[0].posteriors)
    labels = np.zeros(shape, dtype=np.uint8 if n_classes <= 256 else np.int16)
    best = np.full(shape, -1.0, dtype=np.float32)
    kept = np.empty((n_classes, *shape), dtype=np.float32) if keep else None
    mass = []
    for k in range(n_classes):
        share = parts[0].on_own_grid(k, parts[0].orientation)
        for part in parts[1:]:
            share = share + part.on_own_grid(k, parts[0].orientation)
        if len(parts) > 1:
            share /= len(parts)
        wins = share > best
        labels[wins] = k
        best[wins] = share[wins]
        mass.append(float(share.sum(dtype=np.float64)))
        if kept is not None:
            kept[k] = share
    return labels, best, kept, tuple(mass)
