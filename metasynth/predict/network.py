"""Posteriors of stacks: every slice by itself, or a volume through a sliding window."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from metasynth.segment.windows import in_windows

VOXELS_AT_ONCE = 1 << 20


def slice_posteriors(
    network: nn.Module, stack: NDArray[np.float32], device: str, window: Sequence[int] | None = None
) -> NDArray[np.float32]:
    """Posteriors (K, D, H, W) of every slice of a stack (D, H, W) by a network in 2D.

    Slices go through whole, or in windows as volumes do (`volume_posteriors`).
    """
    at_once = max(1, VOXELS_AT_ONCE // int(np.prod(stack.shape[1:])))
    slices = torch.from_numpy(stack).unsqueeze(1).split(at_once)
    found = [in_windows(network, part, window or part.shape[2:], device) for part in slices]
    return torch.cat(found).movedim(1, 0).contiguous().numpy()


def volume_posteriors(
    network: nn.Module, stack: NDArray[np.float32], window: Sequence[int], device: str
) -> NDArray[np.float32]:
    """Posteriors (K, D, H, W) of a stack (D, H, W) by a network in 3D.

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
