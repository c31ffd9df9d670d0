"""Segmentation of images larger than what a network is given at once."""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from metasynth.interrupts import check

VOXELS_AT_ONCE = 1 << 18  # more windows would take memory; on a CPU a single small one is several times slower a voxel
HALF_FROM = 1 << 30
"""Bytes from which on posteriors are kept in half precision: they are off by 1/4096 at most, of each view."""
OVERLAP = 0.5
SIGMA = 1 / 8  # of a window's length, the standard deviation of its weights (nnU-Net's too, Isensee et al. 2021)


def in_windows(network: nn.Module, images: Tensor, window: Sequence[int], device: str) -> Tensor:
    """Posteriors (B, K, *S) of images (B, 1, *S) through a sliding window.

    Images no larger than the window go through whole. Of larger ones windows that overlap by half are averaged with the
    weights of a Gaussian about their middle.

    Parameters
    ----------
    network : torch.nn.Module
        From images (B, 1, *window) to logits; in evaluation mode.
    images : Tensor (B, 1, *S)
        At least as large as the window along every axis.
    window : sequence of int
        Its shape.
    device : str
        Where the network is; images and posteriors are on the CPU.

    Returns
    -------
    Tensor
        float32, or float16 (`is_kept_in_half`).
    """
    shape = images.shape[2:]
    if tuple(shape) == tuple(window):
        return _posteriors(network, images, device)
    weights, total = _weights(window), torch.zeros(shape)
    corners = list(product(*(_starts(n, length) for n, length in zip(shape, window, strict=True))))
    for corner in corners:
        _place(total, corner, window).add_(weights)
    mean: Tensor | None = None
    at_once = max(1, VOXELS_AT_ONCE // (len(images) * math.prod(window)))
    for some in np.array_split(corners, -(-len(corners) // at_once)):
        parts = _posteriors(network, torch.cat([_place(images, corner, window) for corner in some]), device)
        if mean is None:
            whole = (len(images), parts.shape[1], *shape)
            mean = torch.zeros(whole, dtype=torch.float16 if is_kept_in_half(whole) else torch.float32)
        for corner, part in zip(some, parts.split(len(images)), strict=True):
            _place(mean, corner, window).add_(part * (weights / _place(total, corner, window)))
    assert mean is not None
    return mean


def is_kept_in_half(shape: Sequence[int]) -> bool:
    """Whether posteriors of a shape are kept in half precision: single precision would be more than `HALF_FROM`."""
    return 4 * math.prod(shape) > HALF_FROM


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
