"""Posteriors of stacks: every slice by itself, or a volume through a sliding window."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

VOXELS_AT_ONCE = 1 << 20
OVERLAP = 0.5
SIGMA = 1 / 8  # of a window's length, the standard deviation of its weights (nnU-Net's too, Isensee et al. 2021)


def slice_posteriors(network: nn.Module, stack: NDArray[np.float32], device: str) -> NDArray[np.float32]:
    """Posteriors (K, D, H, W) of every slice of a stack (D, H, W) by a network in 2D."""
    at_once = max(1, VOXELS_AT_ONCE // int(np.prod(stack.shape[1:])))
    slices = torch.from_numpy(stack).unsqueeze(1).split(at_once)
    return torch.cat([_posteriors(network, part, device) for part in slices]).movedim(1, 0).contiguous().numpy()


def volume_posteriors(
    network: nn.Module, stack: NDArray[np.float32], window: Sequence[int], device: str
) -> NDArray[np.float32]:
    """Posteriors (K, D, H, W) of a stack (D, H, W) by a network in 3D.

    A stack no larger than the window goes through whole. Of a larger one windows that overlap by half are averaged with
    the weights of a Gaussian about their middle.

    Args:
        network: Takes images (1, 1, *window).
        stack: At least as large as the window along every axis.
        window: Its shape, that of the training images.
        device: Where the network is.

    """
    images = torch.from_numpy(stack)[None, None]
    if tuple(stack.shape) == tuple(window):
        return _posteriors(network, images, device)[0].numpy()
    weights = _weights(window)
    total = torch.zeros(stack.shape)
    mean: Tensor | None = None
    starts = [_starts(n, length) for n, length in zip(stack.shape, window, strict=True)]
    for corner in product(*starts):
        place = tuple(slice(at, at + length) for at, length in zip(corner, window, strict=True))
        part = _posteriors(network, images[(slice(None), slice(None), *place)], device)[0]
        if mean is None:
            mean = torch.zeros(len(part), *stack.shape)
        mean[(slice(None), *place)] += weights * part
        total[place] += weights
    assert mean is not None
    return (mean / total).numpy()


def _posteriors(network: nn.Module, images: Tensor, device: str) -> Tensor:
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
