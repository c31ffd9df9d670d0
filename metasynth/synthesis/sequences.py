"""What a scanner measures of a tissue: the signal equations of two gradient-echo sequences.

Both assume perfect spoiling (no transverse magnetisation is left when a pulse comes) and relaxation with one T1.
Signals are relative to that of fully relaxed water after a pulse of 90 degrees. Everything is differentiable, in the
tissues' parameters and in the transmit field.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from metasynth.errors import UsageError


class PulseSequence(ABC):
    """A pulse sequence."""

    @abstractmethod
    def signal(self, t1_ms: Tensor, t2_star_ms: Tensor, pd: Tensor, b1: Tensor) -> Tensor:
        """Magnitude of the signal without noise.

        Parameters
        ----------
        t1_ms, t2_star_ms, pd : Tensor
            The tissue (see `metasynth.synthesis.tissue`); shapes that broadcast, with b1's too.
        b1 : Tensor
            Transmit field: the flip angle that is reached over the one asked for.

        Returns
        -------
        signal : Tensor
            Of the common shape.
        """


@dataclass(frozen=True)
class Flash(PulseSequence):
    """Spoiled gradient echo (FLASH, SPGR) in its steady state.

    S = PD sin(a) (1 - E1) / (1 - cos(a) E1) exp(-TE / T2*), with E1 = exp(-TR / T1) (Ernst & Anderson 1966; Haase et
    al. 1986).

    Attributes
    ----------
    flip_deg : float
        Flip angle a, above 0 to 180 degrees.
    tr_ms : float
        Time between pulses, above 0.
    te_ms : float
        Time from pulse to echo, at least 0 and less than tr_ms.

    Raises
    ------
    UsageError
        (a ValueError) when an attribute is not allowed.
    """

    flip_deg: float
    tr_ms: float = 20.0
    te_ms: float = 5.5

    def __post_init__(self) -> None:
        _require_flip(self.flip_deg)
        _require(0 < self.tr_ms < math.inf, "tr_ms", "a number above 0", self.tr_ms)
        _require(0 <= self.te_ms < self.tr_ms, "te_ms", f"0 or more and less than tr_ms ({self.tr_ms:g})", self.te_ms)

    def signal(self, t1_ms: Tensor, t2_star_ms: Tensor, pd: Tensor, b1: Tensor) -> Tensor:
        """See `PulseSequence.signal`."""
        flip = math.radians(self.flip_deg) * b1
        recovery = -torch.expm1(-self.tr_ms / t1_ms)
        return pd * flip.sin() * _driven(recovery, flip) * torch.exp(-self.te_ms / t2_star_ms)


@dataclass(frozen=True)
class Mprage(PulseSequence):
    """Inversion, a train of N pulses, a pause, repeated until it is periodic: MPRAGE (Mugler & Brookeman 1990).

    One period, of length TR: an inversion takes Mz to -f Mz; after a delay TA the first pulse comes; N pulses of angle
    a follow at spacing tau, each turning Mz into cos(a) Mz; after the last spacing a pause TD completes TR. Between
    them Mz relaxes towards 1 with T1. With E(t) = exp(-t / T1), C = cos(a) and

        R = (1 - E(tau)) / (1 - C E(tau)),    the value before a pulse that the train tends to,
        q = C E(tau),                         the rate at which it does:  M_n = R + (M_0 - R) q^n,

    a period is an affine map of Mz before the inversion, and its fixed point

        M = [(1 - E(TD)) + E(TD) R (1 - q^N) + E(TD) q^N (1 - E(TA))] / [1 + f E(TA) E(TD) q^N].

    The image's contrast is taken to be that of the pulse in the middle of the train, n = N // 2 (the centre of
    k-space), at TI = TA + n tau after the inversion, M_0 = 1 - (1 + f M) E(TA):

        S = PD sin(a) |M_n| exp(-TE / T2*).

    The inversion is adiabatic: b1 changes a alone. The filter that the recovery during the train is to the image's
    sharpness is not simulated.

    Attributes
    ----------
    flip_deg : float
        Flip angle a, above 0 to 180 degrees.
    tr_ms : float
        Length of a period.
    ti_ms : float
        From the inversion to the pulse in the middle of the train.
    tau_ms : float
        Spacing of the pulses, above 0.
    pulses : int
        N, at least 1.
    te_ms : float
        From pulse to echo, at least 0 and less than tau_ms.
    inversion_efficiency : float
        f, above 0 to 1; .96 for usual adiabatic pulses (Marques et al. 2010).

    Raises
    ------
    UsageError
        (a ValueError) when an attribute is not allowed, or the train does not fit between inversion and TR.
    """

    flip_deg: float = 9.0
    tr_ms: float = 2300.0
    ti_ms: float = 900.0
    tau_ms: float = 8.0
    pulses: int = 160
    te_ms: float = 3.0
    inversion_efficiency: float = 0.96

    def __post_init__(self) -> None:
        _require_flip(self.flip_deg)
        _require(0 < self.tau_ms < math.inf, "tau_ms", "a number above 0", self.tau_ms)
        _require(self.pulses >= 1, "pulses", "at least 1", self.pulses)
        _require(0 <= self.te_ms < self.tau_ms, "te_ms", f"0 or more and below tau_ms ({self.tau_ms:g})", self.te_ms)
        _require(0 < self.inversion_efficiency <= 1, "inversion_efficiency", "above 0 to 1", self.inversion_efficiency)
        before = self.middle * self.tau_ms
        _require(self.ti_ms >= before, "ti_ms", f"at least {before:g}, the pulses before the middle one", self.ti_ms)
        least = self.delay_ms + self.pulses * self.tau_ms
        _require(least <= self.tr_ms < math.inf, "tr_ms", f"at least {least:g}, the end of the train", self.tr_ms)

    @property
    def middle(self) -> int:
        """Index, from 0, of the pulse that decides the contrast."""
        return self.pulses // 2

    @property
    def delay_ms(self) -> float:
        """TA, from the inversion to the first pulse."""
        return self.ti_ms - self.middle * self.tau_ms

    @property
    def pause_ms(self) -> float:
        """TD, from the end of the train to the next inversion."""
        return self.tr_ms - self.delay_ms - self.pulses * self.tau_ms

    def signal(self, t1_ms: Tensor, t2_star_ms: Tensor, pd: Tensor, b1: Tensor) -> Tensor:
        """See `PulseSequence.signal`."""
        flip = math.radians(self.flip_deg) * b1
        efficiency = self.inversion_efficiency
        kept_delay, kept_pause = torch.exp(-self.delay_ms / t1_ms), torch.exp(-self.pause_ms / t1_ms)
        driven = _driven(-torch.expm1(-self.tau_ms / t1_ms), flip)
        rate = flip.cos() * torch.exp(-self.tau_ms / t1_ms)
        train = rate**self.pulses
        fixed = (1 - kept_pause + kept_pause * (driven * (1 - train) + train * (1 - kept_delay))) / (
            1 + efficiency * kept_delay * kept_pause * train
        )
        first = 1 - (1 + efficiency * fixed) * kept_delay
        middle = driven + (first - driven) * rate**self.middle
        return pd * flip.sin() * middle.abs() * torch.exp(-self.te_ms / t2_star_ms)


def _driven(recovery: Tensor, flip: Tensor) -> Tensor:
    """(1 - E) / (1 - cos(a) E) from 1 - E, its denominator as 2 sin^2(a / 2) + cos(a) (1 - E): no cancellation."""
    return recovery / (2 * torch.sin(flip / 2) ** 2 + flip.cos() * recovery)


def _require(holds: bool, name: str, expected: str, came: float) -> None:
    if not holds:
        raise UsageError(f"{name}: expected {expected}, got {came:g}")


def _require_flip(flip_deg: float) -> None:
    _require(0 < flip_deg <= 180, "flip_deg", "above 0 to 180", flip_deg)
