"""Posteriors of stacks: every slice by itself, along each axis that a network has learned, or a sliding window."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from metasynth.predict.geometry import Window, lengths_along, seen_along, stack_orientation
from metasynth.segment.model_description import TrainedModel
from metasynth.segment.windows import in_windows, is_kept_in_half

VOXELS_AT_ONCE = 1 << 20


def window_of(content: NDArray[np.bool_], model: TrainedModel) -> Window:
    """What the network is shown: a field like that of the training images, or all of the scan if it is larger."""
    return Window.about(content, *window_lengths(model))


def window_lengths(model: TrainedModel) -> tuple[list[int], list[int]]:
    """The least lengths of a stack that the network is shown, and what they are multiples of; for all views."""
    flat, views = [1] * (3 - model.ndim), [stack_orientation(view) for view in model.description.views]
    least, divisors = (
        np.array([lengths_along((*flat, *lengths), views[0], view) for view in views])
        for lengths in (model.description.window, model.stride or [1] * model.ndim)
    )
    return least.max(axis=0).tolist(), np.lcm.reduce(divisors).tolist()


def posteriors_of(
    model: TrainedModel, stack: NDArray[np.float32], content: NDArray[np.bool_], device: str
) -> NDArray[np.floating]:
    """Posteriors (K, D, H, W) of a stack (D, H, W), turned as the first of the model's views.

    A network in 2D that has learned slices along several axes sees those along each, and the mean of what it finds is
    taken (view aggregation; Henschel et al. 2020, FastSurfer, there with a network a view).

    Parameters
    ----------
    model : TrainedModel
        Whose network is on the device.
    stack : numpy.ndarray
        At least as large as the training images along every axis.
    content : numpy.ndarray
        (D, H, W) bool, not empty. What lies before the first slice with content or after the last is background.
    device : str
        Where the network is.

    Returns
    -------
    numpy.ndarray
        float32, or float16 (`is_kept_in_half`).
    """
    shape, stride = model.description.window, model.stride
    if model.ndim == 3:
        window = tuple(-(-n // s) * s for n, s in zip(shape, stride or (1, 1, 1), strict=True))
        return volume_posteriors(model.network, stack, window, device)
    views = [stack_orientation(view) for view in model.description.views]
    whole = (len(model.description.class_names), *stack.shape)
    mean = np.zeros(whole, dtype=np.float16 if is_kept_in_half(whole) else np.float32)
    for view in views:
        slices, shown = (seen_along(data, views[0], view) for data in (stack, content))
        into = np.moveaxis(seen_along(np.moveaxis(mean, 0, -1), views[0], view), -1, 0)
        at = np.flatnonzero(shown.any(axis=(1, 2)))
        first, stop = int(at[0]), int(at[-1]) + 1
        for start, found in _of_slices(model.network, slices[first:stop], device, None if stride else shape):
            into[:, first + start : first + start + found.shape[1]] += np.divide(found, len(views), out=found)
        into[0, :first] += 1 / len(views)
        into[0, stop:] += 1 / len(views)
    return mean


def slice_posteriors(
    network: nn.Module, stack: NDArray[np.float32], device: str, window: Sequence[int] | None = None
) -> NDArray[np.float32]:
    """Posteriors (K, D, H, W) of every slice of a stack (D, H, W) by a network in 2D.

    Slices go through whole, or in windows as volumes do (`volume_posteriors`).
    """
    return np.concatenate([found for _, found in _of_slices(network, stack, device, window)], axis=1)


def _of_slices(
    network: nn.Module, stack: NDArray[np.float32], device: str, window: Sequence[int] | None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(index of the first, posteriors (K, d, H, W)) of as many slices as go through at once."""
    at_once = max(1, VOXELS_AT_ONCE // int(np.prod(stack.shape[1:])))
    for start in range(0, len(stack), at_once):
        slices = torch.from_numpy(np.ascontiguousarray(stack[start : start + at_once])).unsqueeze(1)
        yield start, in_windows(network, slices, window or slices.shape[2:], device).movedim(1, 0).numpy()


def volume_posteriors(
    network: nn.Module, stack: NDArray[np.float32], window: Sequence[int], device: str
) -> NDArray[np.floating]:
    """Posteriors (K, D, H, W) of a stack (D, H, W) by a network in 3D, in the type that `posteriors_of` says.

    A stack no larger than the window goes through whole, a larger one in windows (`in_windows`).

    Parameters
    ----------
    network : torch.nn.Module
        Takes images (1, 1, *window).
    stack : numpy.ndarray
        At least as large as the window along every axis.
    window : sequence of int
        Its shape, that of the training images or of patches of them.
    device : str
        Where the network is.
    """
    return in_windows(network, torch.from_numpy(stack)[None, None], window, device)[0].numpy()
