"""What the brain's tissues are to a scanner: relaxation times and proton densities, per structure and field strength.

T1, longitudinal relaxation, in ms:
    white matter, cortical grey, caudate, putamen: Wright et al. 2008 (MAGMA 21:121-130, doi:10.1007/s10334-008-0104-8),
    measured with MPRAGE at 1.5 T and 3 T; over their subjects the standard deviation is 3.5 to 7 % at 3 T.
    Cerebrospinal fluid: about that of water at body temperature, at any field strength.
T2*, effective transverse relaxation, in ms:
    white matter, cortical grey, caudate, putamen: Peters et al. 2007 (Magn Reson Imaging 25:748-753,
    doi:10.1016/j.mri.2007.02.014), rounded.
PD, proton density relative to water: about .70 in white matter, .80 in the cortex, .78 in deep grey.

Assumed, since no one source gives them all: pallidum and thalamus lie between the putamen and white matter in T1 (they
are the most myelinated nuclei), the pallidum has the shortest T2* (it holds the most iron), hippocampus and amygdala
are between the striatum and the cortex, and the accumbens is as the mean of caudate and putamen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metasynth.errors import UsageError


@dataclass(frozen=True)
class Tissue:
    """One tissue at one field strength.

    Attributes
    ----------
    t1_ms : float
        Longitudinal relaxation time.
    t2_star_ms : float
        Effective transverse relaxation time.
    pd : float
        Proton density relative to water.
    """

    t1_ms: float
    t2_star_ms: float
    pd: float


TISSUES: dict[float, dict[str, Tissue]] = {
    1.5: {
        "cerebrospinal fluid": Tissue(4200.0, 2000.0, 1.0),
        "white matter": Tissue(646.0, 66.0, 0.70),
        "cortical grey": Tissue(1197.0, 84.0, 0.80),
        "caudate": Tissue(1109.0, 59.0, 0.78),
        "putamen": Tissue(1084.0, 56.0, 0.78),
        "accumbens": Tissue(1097.0, 57.0, 0.78),
        "pallidum": Tissue(800.0, 40.0, 0.75),
        "thalamus": Tissue(900.0, 60.0, 0.77),
        "hippocampus": Tissue(1140.0, 75.0, 0.80),
        "amygdala": Tissue(1140.0, 75.0, 0.80),
    },
    3.0: {
        "cerebrospinal fluid": Tissue(4200.0, 2000.0, 1.0),
        "white matter": Tissue(838.0, 53.0, 0.70),
        "cortical grey": Tissue(1607.0, 66.0, 0.80),
        "caudate": Tissue(1395.0, 41.0, 0.78),
        "putamen": Tissue(1332.0, 32.0, 0.78),
        "accumbens": Tissue(1364.0, 36.0, 0.78),
        "pallidum": Tissue(1040.0, 25.0, 0.75),
        "thalamus": Tissue(1200.0, 48.0, 0.77),
        "hippocampus": Tissue(1480.0, 58.0, 0.80),
        "amygdala": Tissue(1480.0, 58.0, 0.80),
    },
}


@dataclass(frozen=True)
class TissueTable:
    """The parameters of T tissues, in one order.

    Attributes
    ----------
    t1_ms, t2_star_ms, pd : Tensor (T,)
        As those of `Tissue`.
    """

    t1_ms: Tensor
    t2_star_ms: Tensor
    pd: Tensor


@dataclass(frozen=True)
class TissueSpread:
    """How much people differ: the standard deviation of the logarithm of each parameter, independent per tissue.

    Attributes
    ----------
    t1 : float
        4 %; Wright et al. found 3.5 to 7 % at 3 T, the error of measurement included.
    t2_star : float
        6 %; iron varies more than myelin.
    pd : float
        1 %.
    """

    t1: float = 0.04
    t2_star: float = 0.06
    pd: float = 0.01


def tissue_table(names: Sequence[str], field_tesla: float, dtype: torch.dtype = torch.float64) -> TissueTable:
    """The parameters of the named tissues, in the order given.

    Raises
    ------
    UsageError
        (a ValueError) for a field strength or a name that is not in `TISSUES`.
    """
    if field_tesla not in TISSUES:
        raise UsageError(f"field_tesla: expected one of {', '.join(map(str, TISSUES))}, got {field_tesla}")
    known = TISSUES[field_tesla]
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise UsageError(f"names: expected tissues out of {', '.join(known)}, got {unknown!r}")
    chosen = [known[name] for name in names]
    return TissueTable(
        t1_ms=torch.tensor([tissue.t1_ms for tissue in chosen], dtype=dtype),
        t2_star_ms=torch.tensor([tissue.t2_star_ms for tissue in chosen], dtype=dtype),
        pd=torch.tensor([tissue.pd for tissue in chosen], dtype=dtype),
    )


def draw_person(table: TissueTable, spread: TissueSpread, generator: torch.Generator) -> TissueTable:
    """The tissues of one person: each parameter times exp(sd * z), z ~ N(0, 1); the proton density is at most 1."""

    def varied(values: Tensor, sd: float) -> Tensor:
        drawn = torch.randn(values.shape, dtype=values.dtype, device=values.device, generator=generator)
        return values * torch.exp(sd * drawn)

    return TissueTable(
        t1_ms=varied(table.t1_ms, spread.t1),
        t2_star_ms=varied(table.t2_star_ms, spread.t2_star),
        pd=varied(table.pd, spread.pd).clamp(max=1.0),
    )
