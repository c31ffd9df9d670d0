"""What happens to the intensities of an image, by cornucopia's rules."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from metasynth.synthesis.smoothing import along_axes, kernels, smoothing_matrix
from metasynth.synthesis.splines import spline_field

_LINEAR = {2: "bilinear", 3: "trilinear"}
# More voxels do not make the quantiles better.
_QUANTILE_VOXELS = 10_000
# Quantile scaling leaves ordinary images within a few units; beyond this it has failed.
_SCALED_LIMIT = 10.0
AIR = 0.1
"""Of the way from the level of air in a head to its 99 % quantile: what lies below is air."""
_LOW, _HIGH = 0.01, 0.99
Voxels = TypeVar("Voxels", bound=Any)
# Keeps the base of the power inside (0, 1).
_EDGE = 1e-5


def smooth_fields(
    controls: Tensor, nodes: Tensor, shape: Sequence[int], order: int, window: Sequence[slice] | None = None
) -> Tensor:
    """Splines through the field of view, (B, *S).

    Parameters
    ----------
    controls : Tensor (B, *N)
        Values at the control points; of each axis the first `nodes` count, and no more than it has voxels.
    nodes : Tensor (B, D) int64
        Control points along each axis.
    shape : sequence of int
        S.
    order : int
        Of the spline, 1 to 7.
    window : sequence of slice, or None
        The voxels that are wanted along each axis, whose shape is then that of the fields; None: all.
    """
    fields = []
    for own, counts in zip(controls, nodes.tolist(), strict=True):
        points = own[tuple(slice(min(n, size)) for n, size in zip(counts, shape, strict=True))]
        fields.append(spline_field(points, shape, order, repeat_edge=True, window=window))
    return torch.stack(fields)


def extremes(images: Tensor) -> Tensor:
    """The minimum and the maximum (B, 2) of images (B, *S)."""
    return torch.stack(images.flatten(1).aminmax(dim=1), dim=1)


def raised(images: Tensor, exponents: Tensor, ends: Tensor | None = None) -> Tensor:
    """Images (B, *S) raised to an exponent (B,) between their extremes or ``ends`` (B, 2); beyond, as the ends are."""
    flat = images.flatten(1)
    low, high = (extremes(images) if ends is None else ends).split(1, dim=1)
    span = high - low
    base = torch.minimum(torch.maximum(flat - low, _EDGE * span), (1 - _EDGE) * span)
    base /= span + _EDGE
    powers = base.log_().mul_(exponents[:, None]).exp_()
    return powers.mul_(span).add_(low).reshape(images.shape)


def blurred(images: Tensor, fwhms: Tensor, widest: float) -> Tensor:
    """Images (B, *S) smoothed by a width (B,) of their own, in voxels, at most `widest`."""
    out = torch.empty_like(images)
    for index, weights in enumerate(kernels(fwhms, widest)):
        matrices = {size: smoothing_matrix(weights, size) for size in set(images.shape[1:])}
        out[index] = along_axes(images[index], [matrices[size] for size in images.shape[1:]])
    return out


def lowered(image: Tensor, fwhm: Sequence[float], voxel: Sequence[float], least: int) -> Tensor:
    """An image (*S) smoothed by `fwhm` and sampled at voxels `voxel` times as large, at least `least` along an axis."""
    matrices = [
        smoothing_matrix(kernels(torch.tensor([width], device=image.device), width)[0], size)
        for width, size in zip(fwhm, image.shape, strict=True)
    ]
    small = [max(least, math.ceil(size / factor)) for size, factor in zip(image.shape, voxel, strict=True)]
    return _resized(along_axes(image, matrices)[None, None], small)[0, 0]


def _resized(image: Tensor, shape: Sequence[int]) -> Tensor:
    return F.interpolate(image, size=tuple(shape), mode=_LINEAR[len(shape)], align_corners=True)


def restored(image: Tensor, shape: Sequence[int]) -> Tensor:
    """An image (*S) sampled at `shape` voxels over the same field of view."""
    return _resized(image[None, None], shape)[0, 0]


def placed_as(means: Tensor, images: Tensor, labels: Tensor, powers: Tensor, is_absolute: bool = False) -> Tensor:
    """Class means from the least to the largest of drawn ones, placed as in given images.

    Of the classes that an image has, the one with the least median of its voxels gets the least of their drawn means,
    that with the largest the largest. The others lie between these so that raising the image to its power (`raised`)
    puts them where their medians are. With independent uniform draws this is nearly the distribution of the means given
    their places; without the spread of the drawn ones, textures would be weaker than they are.

    Parameters
    ----------
    means : Tensor (B, K - 1)
        Drawn ones of the classes 1..K-1, above 0.
    images : Tensor (B, *S)
        The given ones.
    labels : Tensor (B, *S) int64
        Class indices 0..K-1; 0 is background, of intensity 0.
    powers : Tensor (B,)
        What the images will be raised to.
    is_absolute : bool
        The least and the largest too are those of the given images, in place of drawn ones.

    Returns
    -------
    means : Tensor (B, K - 1)
        Those of classes that an image does not have as drawn.
    """
    out = means.clone()
    for own, image, classes, power in zip(out, images, labels, powers, strict=True):
        found = classes.unique().tolist()
        present = [k for k in found if k]
        if not present:
            continue
        at = torch.tensor(present, device=means.device) - 1
        medians = torch.stack([image[classes == k].median() for k in present])
        low, high = medians.aminmax()
        places = (medians - low) / (high - low).clamp(min=1e-6)
        least, most = (medians.clamp(min=0) if is_absolute else own[at]).aminmax()
        floor = torch.zeros_like(least) if len(present) < len(found) else least
        lowest = ((least - floor) / (most - floor).clamp(min=1e-6)) ** power
        own[at] = floor + (most - floor) * (lowest + (1 - lowest) * places) ** (1 / power)
    return out


def quantile_ends(images: Tensor) -> Tensor:
    """The 1 % and 99 % quantiles (B, 2) of the non-zero voxels of images (B, *S); 0 and 1 where there are none."""
    flat = images.flatten(1)
    ends = torch.tensor([0.0, 1.0], device=images.device).repeat(len(flat), 1)
    for index, (image, present) in enumerate(zip(flat, flat.count_nonzero(1).tolist(), strict=True)):
        if present:
            voxels = image if present == len(image) else image[image != 0]
            # Every n-th voxel: neighbours say the same, so this is better than as many at random.
            voxels = voxels[:: math.ceil(present / _QUANTILE_VOXELS)].contiguous()
            ends[index, 0] = _quantile(voxels, 0.01, largest=False)
            ends[index, 1] = _quantile(voxels, 0.01, largest=True)
    return ends


def scaled(images: Tensor, ends: Tensor | None = None) -> Tensor:
    """Images (B, *S) with the quantiles of their non-zero voxels, or ``ends`` (B, 2) that are known, at 0 and 1.

    Where those almost meet and a voxel ends beyond 10 in magnitude, the image is scaled by its minimum and maximum
    instead.
    """
    flat = images.flatten(1)
    ends = quantile_ends(images) if ends is None else ends
    span = (ends[:, 1:] - ends[:, :1]).clamp(min=1e-16)
    out = (flat - ends[:, :1]).div_(span)
    least, most = out.amin(1, keepdim=True), out.amax(1, keepdim=True)
    failed = torch.maximum(-least, most) > _SCALED_LIMIT
    if bool(failed.any()):
        out = torch.where(failed, (out - least) / (most - least), out)
    return out.reshape(images.shape)


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
    low, high = quantile(voxels, _LOW), quantile(voxels, _HIGH)
    if not high > low:
        high = float(voxels.max())
    head = voxels[voxels > low + AIR * (high - low)]
    return low, quantile(head, _HIGH) if len(head) else low


def ends_of_heads(images: Tensor) -> Tensor:
    """What becomes 0 and 1 (B, 2) in images (B, *S) of whole heads, see `head_ends`."""
    thinned = [image[:: math.ceil(len(image) / _QUANTILE_VOXELS)] for image in images.flatten(1)]
    return torch.tensor([head_ends(voxels, _share) for voxels in thinned], device=images.device).reshape(-1, 2)


def scaled_heads(images: Tensor, ends: Tensor | None = None) -> Tensor:
    """Images (B, *S) of whole heads scaled as scans of heads are, or by ``ends`` (B, 2); cut to [0, 1], air being 0."""
    out = torch.empty_like(images)
    found = (ends_of_heads(images) if ends is None else ends).tolist()
    for image, scaled_image, (low, high) in zip(images.flatten(1), out.flatten(1), found, strict=True):
        if high > low:
            torch.clamp((image - low) / (high - low), 0, 1, out=scaled_image)
        else:
            scaled_image.zero_()
    return out


def _share(values: Tensor, share: float) -> float:
    """The quantile of values (N,) as `_quantile` finds it, from the nearer end."""
    return float(_quantile(values, min(share, 1 - share), largest=share > 0.5))


def lost_gain(images: Tensor, before: Tensor, labels: Tensor) -> Tensor:
    """What brings the 99 % quantile of the foreground of images (B, *S) back to what it was before, (B,) float64.

    Where either is not above 0 it is 1.
    """
    gains = torch.ones(len(images), dtype=torch.float64)
    for index, own in enumerate(labels):
        at = own.flatten().nonzero()[:, 0]
        at = at[:: math.ceil(len(at) / _QUANTILE_VOXELS) or 1]
        if len(at):
            then, now = (_quantile(each[index].take(at), 0.01, largest=True).item() for each in (before, images))
            gains[index] = then / now if min(then, now) > 0 else 1.0
    return gains


def gain_undone(images: Tensor, gains: Tensor) -> Tensor:
    """Images (B, *S), multiplied by what `lost_gain` says (B,); cut to [0, 1]."""
    out = torch.empty_like(images)
    for image, result, gain in zip(images, out, gains.tolist(), strict=True):
        torch.clamp(image * gain, 0, 1, out=result)
    return out


def _quantile(values: Tensor, q: float, largest: bool) -> Tensor:
    """The q-quantile of values (N,) from below, or from above, interpolated linearly."""
    position = q * (len(values) - 1)
    at = min(int(position), len(values) - 2) if len(values) > 1 else 0
    ends = values.topk(min(at + 2, len(values)), largest=largest).values
    return torch.lerp(ends[at], ends[-1], position - at)
