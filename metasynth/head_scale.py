"""How images of whole heads are scaled: scans and synthetic ones, arrays and tensors, all by one rule and no mask."""

from collections.abc import Callable
from typing import Any, TypeVar

AIR = 0.1
"""Of the way from the level of air to the 99 % quantile: what lies below is air."""
LOW, HIGH = 0.01, 0.99

Voxels = TypeVar("Voxels", bound=Any)


def head_ends(voxels: Voxels, quantile: Callable[[Voxels, float], float]) -> tuple[float, float]:
    """The intensities of an image that become 0 and 1 where it shows a whole head: l and h of (x - l) / (h - l).

    l is the level of air, the 1 % quantile of all voxels; h the 99 % quantile of those that are not air, above
    l + 0.1 (q - l), where q is the 99 % quantile of all of them. So h does not depend on how much air there is around a
    head. Where a head takes less than 1 % of the field, the largest value stands for q.

    Parameters
    ----------
    voxels : numpy.ndarray or torch.Tensor
        (N,) intensities, N > 0, all finite.
    quantile : callable
        From such values and a share to the quantile.

    Returns
    -------
    tuple (float, float)
        l and h, which are equal where all voxels are.
    """
    low, high = quantile(voxels, LOW), quantile(voxels, HIGH)
    if not high > low:
        high = float(voxels.max())
    head = voxels[voxels > low + AIR * (high - low)]
    return low, quantile(head, HIGH) if len(head) else low
