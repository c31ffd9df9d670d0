"""Gaussian smoothing with mirrored edges, as matrices along an axis and as smooth noise drawn frequency by frequency.

The kernel is cornucopia's: a Gaussian convolved with the linear B-spline and sampled at whole voxels, so its weights
sum to 1. Its variance is s^2 + E[f (1 - f)] with s = fwhm / 2.355 and f the fractional part of N(0, s^2): s^2 + 1/6
from s = 0.6 on, and 0 at s = 0. The edge is mirrored with its voxel repeated, which makes the type-II cosines
the eigenvectors.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

FWHM_PER_SD = math.sqrt(8 * math.log(2))

# Weights below this are far under float32's resolution of the sum, and denormals among them would be slow.
_NEGLIGIBLE = 1e-9
# Frequencies beyond this many standard deviations of the kernel's response hold 4e-4 of the variance.
_FREQUENCIES = 2.5
# This many standard deviations from a mirror the variance of the smooth noise is within 2e-4 of what it is afar.
_MARGIN = 3.0
# Bytes; what torch allocates starts at a multiple of it.
_ALIGNMENT = 64


def kernels(fwhm: Tensor, widest: float) -> Tensor:
    """One side of each kernel: the weights at distance 0, 1, ..., L voxels.

    Parameters
    ----------
    fwhm : Tensor (M,)
        Full widths at half maximum, in voxels, from 0 to `widest`.
    widest : float
        Alone it decides L: 4 standard deviations, plus 1, rounded down.

    Returns
    -------
    weights : Tensor (M, L + 1) float32
    """
    sd = fwhm.double() / FWHM_PER_SD + 1e-7
    reach = reach_of(widest)
    at = torch.arange(-1, reach + 2, dtype=torch.float64, device=fwhm.device) / sd[:, None]
    # The second difference, over a voxel, of the twice integrated Gaussian.
    twice = at * torch.special.ndtr(at) + torch.exp(-(at**2) / 2) / math.sqrt(2 * math.pi)
    weights = sd[:, None] * (twice[:, :-2] - 2 * twice[:, 1:-1] + twice[:, 2:])
    return torch.where(weights > _NEGLIGIBLE, weights, 0).float()


def reach_of(widest: float) -> int:
    """Voxels to either side that smoothing by a width of at most `widest` takes in."""
    return int(4 * widest / FWHM_PER_SD + 1)


def left_of_noise(fwhms: Tensor, widest: float, ndim: int) -> Tensor:
    """Standard deviation of white noise of unit variance after smoothing along `ndim` axes; `fwhms` as in `kernels`."""
    weights = kernels(fwhms.flatten(), widest)
    along = weights[:, 0].square() + 2 * weights[:, 1:].square().sum(1)
    return (along ** (ndim / 2)).reshape(fwhms.shape)


def smoothing_matrix(weights: Tensor, size: int) -> Tensor:
    """Smoothing along an axis of `size` voxels by one of `kernels`, (L + 1,), as a matrix (size, size)."""
    # A source at j has images at every j + 2 m size and -1 - j + 2 m size: one period of the sum of all images.
    period = 2 * size
    images = weights.new_zeros(period)
    offsets = torch.arange(len(weights), device=weights.device)
    images.index_add_(0, offsets % period, weights)
    images.index_add_(0, -offsets[1:] % period, weights[1:])
    twice = images.repeat(2)
    direct = twice[1:].as_strided((size, size), (1, 1), twice[1:].storage_offset() + period - size).flip(0)
    mirrored = twice[1:].as_strided((size, size), (1, 1))
    return direct + mirrored


def along_axes(field: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Each matrix (n_out, n_in) applied along its axis of field (*n_in): (*n_out)."""
    *others, last = matrices
    if field.data_ptr() % _ALIGNMENT:
        # Some processors sum in another order there, and an image's last bits would depend on its place in the batch.
        field = field.clone()
    field = field @ last.T
    for axis, matrix in enumerate(others):
        before, after = field.shape[:axis], field.shape[axis + 1 :]
        field = (matrix @ field.flatten(axis + 1)).reshape(*before, -1, *after)
    return field


def smooth_noise(
    weights: Tensor,
    fwhm: float,
    scale: float,
    window: Sequence[slice],
    shape: Sequence[int],
    generator: torch.Generator,
    out: Tensor,
) -> None:
    """White noise, smoothed over voxels of `shape`, within a window.

    Only the part of the axes near the window is drawn, and only the frequencies that the kernel lets through: the
    variance is short by at most 4e-4 of itself per axis.

    Parameters
    ----------
    weights : Tensor (L + 1,)
        One of `kernels`.
    fwhm : float
        Its width.
    scale : float
        Standard deviation of the noise before smoothing.
    window : sequence of slice
        What is wanted along each axis.
    shape : sequence of int
        Sizes of the axes.
    generator : torch.Generator
        On the device of `weights`.
    out : Tensor (*shape)
        Its window is written to.
    """
    sd = fwhm / FWHM_PER_SD
    margin = math.ceil(_MARGIN * math.sqrt(sd**2 + 1 / 6))
    reach = weights.shape[0]
    factors = []
    for seen, full in zip(window, shape, strict=True):
        low, high = max(0, seen.start - margin), min(full, seen.stop + margin)
        size = high - low
        kept = size if sd == 0 else min(size, math.ceil(_FREQUENCIES * size / (math.pi * sd)) + 1)
        basis, responses = _cosines(size, reach, weights.device)
        factors.append(basis[seen.start - low : seen.stop - low, :kept] * (weights @ responses[:, :kept]))
    factors[0] *= scale
    drawn = torch.randn([factor.shape[1] for factor in factors], generator=generator, device=generator.device)
    out[tuple(window)] = along_axes(drawn, factors)


@lru_cache(maxsize=512)
def _cosines(size: int, reach: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The orthonormal type-II cosines, (size, frequency), and the responses to each weight, (reach, frequency)."""
    frequency = torch.arange(size, dtype=torch.float64) * (math.pi / size)
    basis = torch.cos((torch.arange(size)[:, None] + 0.5) * frequency) * math.sqrt(2 / size)
    basis[:, 0] = math.sqrt(1 / size)
    responses = 2 * torch.cos(torch.arange(reach)[:, None] * frequency)
    responses[0] = 1
    return basis.to(device, torch.float32), responses.to(device, torch.float32)
