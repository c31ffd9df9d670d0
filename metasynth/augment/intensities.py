"""What is known of intensities, and steps on those of images, differentiable in whatever the images depend on."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from metasynth.errors import UsageError

QUANTILES = (0.01, 0.99)
"""Of the brain, at 0 and 1: as `metasynth.data_prep.scaling.scale` does with scans."""
_LEAST = 1e-6
UNIFORM = math.sqrt(12)
"""1 over the standard deviation of U(0, 1)."""


class Priors(NamedTuple):
    """What is known of the intensities of G structures, each (G,), the background, which is not looked at, first.

    In units of intensity: ``mean`` over people, ``spread`` (standard deviation) between people, ``texture`` (standard
    deviation) within a structure of one.
    """

    mean: Sequence[float]
    spread: Sequence[float]
    texture: Sequence[float]

    @classmethod
    def random(cls, structures: int, texture: float = 0.05) -> "Priors":
        """Nothing is known of G ``structures``: every one of every image has an intensity of its own from U(0, 1)."""
        return cls((0.5,) * structures, (1 / UNIFORM,) * structures, (texture,) * structures)


def foreground_of(priors: Priors) -> dict[str, Tensor]:
    """Priors by name without those of the background, (G - 1,) each; UsageError where they are none."""
    counts = [len(values) for values in priors]
    if min(counts) < 2 or len(set(counts)) > 1:
        raise UsageError(f"priors: must be of the same structures, at least 2, got {', '.join(map(str, counts))}")
    found = {name: torch.tensor([float(v) for v in own[1:]]) for name, own in priors._asdict().items()}
    for name, values in found.items():
        bound = "" if name == "mean" else " of at least 0"
        wrong = ~torch.isfinite(values) if name == "mean" else ~(values.isfinite() & (values >= 0))
        for k in wrong.nonzero().flatten().tolist()[:1]:
            raise UsageError(f"priors: {name} must be finite numbers{bound}, got {values[k]:g} of structure {k + 1}")
    return found


def of_structure(tables: Tensor, structures: Tensor) -> Tensor:
    """Entries of tables (B, J, G - 1) at structures (B, *S), as (B, J, *S); 0 for background."""
    at = structures.flatten(1)[:, None].expand(-1, tables.shape[1], -1)
    return pad(tables, (1, 0)).gather(2, at).unflatten(2, structures.shape[1:])


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
    images : Tensor (B, C, *S)
    inside : Tensor (B, 1, *S) bool
    width : Tensor () or (B, D)
        Standard deviation, in voxels; of all images, or of each along each of D axes.
    reach : int
        Voxels after which the Gaussian is cut.
    """
    steps = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    widths = width.expand(len(images), images.ndim - 2)
    weights = torch.exp(-0.5 * (steps[:, None, None] / widths).square())
    weights = weights / weights.sum(0)
    # Sums of shifted images and no convolution, which autocast would round to half precision.
    both = torch.cat([torch.where(inside, images, 0), inside.to(images.dtype)], 1)
    for axis in range(2, both.ndim):
        sides, size = [0, 0] * (both.ndim - 1 - axis) + [reach, reach], both.shape[axis]
        wide = pad(both, sides)
        along = weights[..., axis - 2].reshape(len(steps), -1, *[1] * (images.ndim - 1))
        both = torch.stack([w * wide.narrow(axis, k, size) for k, w in enumerate(along)]).sum(0)
    sums, shares = both.split([images.shape[1], 1], 1)
    return torch.where(inside, sums / torch.where(inside, shares, 1), 0)


def _ranked(ordered: Tensor, rank: Tensor, last: Tensor) -> Tensor:
    """Values (B, 1) of ordered ones (B, N) at a rank (B, 1) from 0 to ``last`` (B, 1), linear in between."""
    below = rank.floor().long()
    above = torch.minimum(below + 1, last)
    return torch.lerp(ordered.gather(1, below), ordered.gather(1, above), rank - below)
