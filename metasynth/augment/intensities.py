"""Steps on the intensities of images that are differentiable in whatever the images depend on."""

import torch
from torch import Tensor
from torch.nn.functional import pad

QUANTILES = (0.01, 0.99)
"""Of the brain, at 0 and 1: as `metasynth.data_prep.scaling.scale` does with scans."""
_LEAST = 1e-6


def rescaled(images: Tensor, inside: Tensor) -> Tensor:
    """Images as scans are scaled: x <- (x - q_1) / (q_99 - q_1), cut to [0, 1], and 0 outside.

    The quantiles are those of the image's own voxels inside, linear between these, and are differentiated too. So the
    result, and every derivative of it, is blind to the scale and the offset that the images came with. Held constant,
    quantiles would leave an image's value blind and its derivative not: whatever made images larger would seem to
    change them.

    Parameters
    ----------
    images : Tensor (B, 1, *S)
    inside : Tensor (B, 1, *S) bool
        What is scaled. An image without any becomes 0.
    """
    flat, own = images.flatten(1), inside.flatten(1)
    behind = flat.detach().amax(1, keepdim=True) + 1  # what is outside is sorted behind all that is inside
    ordered = torch.where(own, flat, behind).sort(1).values
    last = (own.sum(1, keepdim=True) - 1).clamp(min=0)
    low, high = (_ranked(ordered, q * last.to(flat.dtype), last) for q in QUANTILES)
    scaled = (flat - low) / (high - low).clamp(min=_LEAST)
    return torch.where(own, scaled.clamp(0, 1), 0).reshape(images.shape)


def blurred(images: Tensor, inside: Tensor, width: Tensor, reach: int) -> Tensor:
    """Images smoothed within a mask by a Gaussian: blur(x inside) / blur(inside) where it is inside, else 0.

    So what is inside mixes with its like, and not with the 0 that was put around it.

    Parameters
    ----------
    images : Tensor (B, 1, *S)
    inside : Tensor (B, 1, *S) bool
    width : Tensor () or (B,)
        Standard deviation, in voxels; of all images, or of each.
    reach : int
        Voxels after which the Gaussian is cut.
    """
    steps = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    weights = torch.exp(-0.5 * (steps[:, None] / width).square())
    weights = (weights / weights.sum(0)).reshape(len(steps), -1, *[1] * (images.ndim - 1))
    # Sums of shifted images and no convolution, which autocast would round to half precision.
    both = torch.cat([torch.where(inside, images, 0), inside.to(images.dtype)], 1)
    for axis in range(2, both.ndim):
        sides, size = [0, 0] * (both.ndim - 1 - axis) + [reach, reach], both.shape[axis]
        wide = pad(both, sides)
        both = torch.stack([w * wide.narrow(axis, k, size) for k, w in enumerate(weights)]).sum(0)
    sums, shares = both.split(1, 1)
    return torch.where(inside, sums / torch.where(inside, shares, 1), 0)


def _ranked(ordered: Tensor, rank: Tensor, last: Tensor) -> Tensor:
    """Values (B, 1) of ordered ones (B, N) at a rank (B, 1) from 0 to ``last`` (B, 1), linear in between."""
    below = rank.floor().long()
    above = torch.minimum(below + 1, last)
    return torch.lerp(ordered.gather(1, below), ordered.gather(1, above), rank - below)
