"""From one scan to its label map, voxel by voxel those of the scan."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from metasynth.data_prep.scaling import SCALE_PERCENT, not_air, scale, scale_head
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
from metasynth.predict.geometry import Window, lengths_along, resample_share, stack_orientation, turned, turned_back
from metasynth.predict.network import posteriors_of
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
    """

    labels: NDArray[np.integer]
    certainty: NDArray[np.float32]
    posteriors: NDArray[np.float32] | None


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


def check_usable(model: TrainedModel) -> None:
    """Require a model whose preprocessing is done here.

    Raises
    ------
    DataError
        It needs images of another kind.
    """
    description = model.description
    for view in description.views:
        stack_orientation(view)
    if tuple(description.percentiles) != SCALE_PERCENT:
        raise DataError(f"the model scales by the {description.percentiles} %, this version by {SCALE_PERCENT}")
    if model.in_channels != 1:
        raise DataError(f"the model takes images of {model.in_channels} channels, expected 1")


def segment(
    model: TrainedModel,
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
    model : TrainedModel
        Whose network is on `device`.
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
    description = model.description
    stack = make_stack(image, mask, description)
    window = Window.about(stack.content, *window_lengths(model))
    require_room(window.shape, stack.own.shape, len(description.class_names), keep_posteriors, image.where)
    content = window.take(stack.content)
    posteriors = posteriors_of(model, window.take(stack.data), content, device)
    if not np.isfinite(posteriors).all():
        raise DataError(f"{image.where}: the network's output is not finite; its weights may be damaged")
    if description.takes_heads:
        allowed = None if stack.brain is None else window.take(stack.brain)
        require_brain(posteriors, content, description.brain_share, allowed, image, mask)
    if stack.brain is not None:
        # In planes that it has not learned from, a network may call anything brain.
        beyond = ~window.take(stack.brain)
        posteriors[:, beyond] = 0
        posteriors[0, beyond] = 1
    labels, certainty, kept = _on_own_grid(posteriors, window, stack, keep_posteriors)
    orientation = stack_orientation(description.views[0])
    back = [turned_back(data, image.affine, orientation) for data in (labels, certainty)]
    classes = None if kept is None else np.stack([turned_back(k, image.affine, orientation) for k in kept], axis=-1)
    return Segmentation(back[0], back[1], classes)


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


def window_lengths(model: TrainedModel) -> tuple[list[int], list[int]]:
    """The least length (3,) of each axis of what the network is shown of a stack, and what it is to be a multiple of.

    It is a field like that of the training images along each view, or all of the scan if that is larger.
    """
    flat, views = [1] * (3 - model.ndim), [stack_orientation(view) for view in model.description.views]
    least, divisors = (
        np.array([lengths_along((*flat, *lengths), views[0], view) for view in views])
        for lengths in (model.description.shape, model.stride or [1] * model.ndim)
    )
    return least.max(axis=0).tolist(), np.lcm.reduce(divisors).tolist()


def _on_own_grid(
    posteriors: NDArray[np.float32], window: Window, stack: Stack, keep: bool
) -> tuple[NDArray[np.integer], NDArray[np.float32], list[NDArray[np.float32]] | None]:
    """Labels, their posteriors, and all posteriors, on the scan's own voxels; one class at a time to save memory."""
    resampled = stack.grid is not stack.own
    matrix = np.linalg.inv(stack.grid.affine) @ stack.own.affine
    labels = np.zeros(stack.own.shape, dtype=np.uint8 if len(posteriors) <= 256 else np.int16)
    best = np.full(stack.own.shape, -1.0, dtype=np.float32)
    kept = []
    for k, part in enumerate(posteriors):
        share = window.put(part, stack.data.shape, around=float(k == 0))
        if resampled:
            share = resample_share(share, matrix, stack.own)
        wins = share > best
        labels[wins] = k
        best[wins] = share[wins]
        if keep:
            kept.append(share)
    return labels, best, kept if keep else None
