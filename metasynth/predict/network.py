"""Posteriors of stacks: every slice by itself, or a volume through a sliding window."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metasynth.interrupts import check

VOXELS_AT_ONCE = 1 << 20
OVERLAP = 0.5
SIGMA = 1 / 8  # of a window's length, the standard deviation of its weights (nnU-Net's too, Isensee et al. 2021)


def slice_posteriors(
    network: nn.Module, stack: NDArray[np.float32], device: str, window: Sequence[int] | None = None
) -> NDArray[np.float32]:
    """Posteriors (K, D, H, W) of every slice of a stack (D, H, W) by a network in 2D.

    Slices go through whole, or in windows as volumes do (`volume_posteriors`).
    """
    at_once = max(1, VOXELS_AT_ONCE // int(np.prod(stack.shape[1:])))
    slices = torch.from_numpy(stack).unsqueeze(1).split(at_once)
    found = [_in_windows(network, part, window or part.shape[2:], device) for part in slices]
    return torch.cat(found).movedim(1, 0).contiguous().numpy()


def volume_posteriors(
    network: nn.Module, stack: NDArray[np.float32], window: Sequence[int], device: str
) -> NDArray[np.float32]:
    """Posteriors (K, D, H, W) of a stack (D, H, W) by a network in 3D.

    A stack no larger than the window goes through whole. Of a larger one windows that overlap by half are averaged with
    the weights of a Gaussian about their middle.

    Parameters
    ----------
    network : torch.nn.Module
        Takes images (1, 1, *window).
    stack : numpy.ndarray
        At least as large as the window along every axis.
    window : sequence of int
        Its shape, that of the training images.
    device : str
        Where the network is.
    """
    return _in_windows(network, torch.from_numpy(stack)[None, None], window, device)[0].numpy()


def _in_windows(network: nn.Module, images: Tensor, window: Sequence[int], device: str) -> Tensor:
    """Posteriors (B, K, *S) of images (B, 1, *S)."""
    shape = images.shape[2:]
    if tuple(shape) == tuple(window):
        return _posteriors(network, images, device)
    weights = _weights(window)
    total = torch.zeros(shape)
    mean: Tensor | None = None
    starts = [_starts(n, length) for n, length in zip(shape, window, strict=True)]
    for corner in product(*starts):
        part = _posteriors(network, _place(images, corner, window), device)
        if mean is None:
            mean = torch.zeros(*part.shape[:2], *shape)
        _place(mean, corner, window).add_(weights * part)
        _place(total, corner, window).add_(weights)
    assert mean is not None
    return mean / total


def _place(images: Tensor, corner: Sequence[int], window: Sequence[int]) -> Tensor:
    """The window of images (..., *S) that begins at a corner, as a view."""
    for axis, (start, length) in enumerate(zip(corner, window, strict=True), images.ndim - len(window)):
        images = images.narrow(axis, start, length)
    return images


def _posteriors(network: nn.Module, images: Tensor, device: str) -> Tensor:
    check()
    with torch.inference_mode():
        return network(images.to(device)).softmax(dim=1).float().cpu()


def _starts(n: int, length: int) -> list[int]:
    """Evenly spaced starts of windows that cover an axis and overlap by `OVERLAP` at least."""
    count = 1 + int(np.ceil((n - length) / (length * (1 - OVERLAP))))
    return np.linspace(0, n - length, count).round().astype(int).tolist()


def _weights(window: Sequence[int]) -> Tensor:
    """Weights (*window), at most 1 and above 0."""
    out = torch.ones(())
    for length in window:
        at = (torch.arange(length) - (length - 1) / 2) / (SIGMA * length)
        out = out.unsqueeze(-1) * torch.exp(-0.5 * at**2)
    return out
