"""Simulated MR images: from what a voxel holds to what a scanner would show, without learned weights.

A voxel is given by the fractions of its volume that the tissues take (partial volume), never by a label; its signal is
the sum of fraction times signal. Then come the receive field and Rician noise. Drawing a person and the coils is apart,
in `tissue` and `coils`; noise is the only thing drawn here.
"""

import torch
from torch import Tensor

from metasynth.errors import DataError, UsageError
from metasynth.synthesis.sequences import PulseSequence
from metasynth.synthesis.tissue import TissueTable


def mixed_signal(fractions: Tensor, tissues: TissueTable, sequence: PulseSequence, b1: Tensor) -> Tensor:
    """Signal without noise: S = sum over tissues t of fraction_t S_t(b1).

    Parameters
    ----------
    fractions : Tensor (B, T, *S), floating point
        Fraction of each voxel that each tissue takes; what is missing from 1 gives no signal.
    tissues : TissueTable
        Of T tissues.
    sequence : PulseSequence
        What is played.
    b1 : Tensor (B, *S)
        Transmit field.

    Returns
    -------
    signal : Tensor (B, *S)

    Raises
    ------
    DataError
        (a ValueError) when the shapes do not fit or a fraction is negative or their sum above 1.
    """
    count = len(tissues.t1_ms)
    if fractions.ndim < 3 or fractions.shape[1] != count:
        raise DataError(f"fractions: expected shape (B, {count}, *S), got {tuple(fractions.shape)}")
    if b1.shape != fractions.shape[:1] + fractions.shape[2:]:
        raise DataError(f"b1: expected shape (B, *S) as fractions {tuple(fractions.shape)}, got {tuple(b1.shape)}")
    with torch.no_grad():
        least, most = float(fractions.amin()), float(fractions.sum(1).amax())
    if not (least >= -1e-6 and most <= 1 + 1e-4):
        raise DataError(f"fractions: expected at least 0 and in sum at most 1, got least {least:g} and sum {most:g}")
    total = torch.zeros_like(b1)
    for index in range(count):
        signal = sequence.signal(tissues.t1_ms[index], tissues.t2_star_ms[index], tissues.pd[index], b1)
        total = total + fractions[:, index] * signal
    return total


def rician(signal: Tensor, sd: float, generator: torch.Generator) -> Tensor:
    """Magnitude of a complex signal with noise: sqrt((S + sd n1)^2 + (sd n2)^2), n1, n2 ~ N(0, 1) (Gudbjartsson 1995).

    Raises
    ------
    UsageError
        (a ValueError) when `sd` is negative.
    """
    if not sd >= 0:
        raise UsageError(f"sd: expected 0 or more, got {sd:g}")
    noise = torch.randn((2, *signal.shape), dtype=signal.dtype, device=signal.device, generator=generator)
    return torch.hypot(signal + sd * noise[0], sd * noise[1])


def simulate(
    fractions: Tensor,
    tissues: TissueTable,
    sequence: PulseSequence,
    b1: Tensor,
    receive: Tensor,
    noise_sd: float,
    generator: torch.Generator,
) -> Tensor:
    """Images of voxels that hold a mixture of tissues.

    Parameters
    ----------
    fractions, tissues, sequence, b1
        See `mixed_signal`.
    receive : Tensor (B, *S)
        Receive field; it multiplies the signal, not the noise.
    noise_sd : float
        Standard deviation of the noise of each of the two channels, where fully relaxed water has signal 1.
    generator : torch.Generator
        The only source of randomness.

    Returns
    -------
    images : Tensor (B, 1, *S), at least 0
        Not scaled; see `scaled`.

    Raises
    ------
    DataError, UsageError
        (ValueErrors) as `mixed_signal` and `rician`.
    """
    signal = receive * mixed_signal(fractions, tissues, sequence, b1)
    return rician(signal, noise_sd, generator).unsqueeze(1)


def scaled(images: Tensor, low: float = 0.01, high: float = 0.99) -> Tensor:
    """Images (any shape) with their quantiles `low` and `high`, over all voxels, taken to 0 and 1, and cut there.

    Raises
    ------
    DataError
        (a ValueError) when the two quantiles are the same.
    """
    # torch.quantile takes at most 2^24 values; sorting takes any number.
    ordered = images.flatten().sort().values
    first, last = (ordered[round(share * (len(ordered) - 1))] for share in (low, high))
    if not last > first:
        raise DataError(f"images: the quantiles {low:g} and {high:g} are both {float(first):g}; nothing to scale")
    return ((images - first) / (last - first)).clamp(0, 1)
