"""How an atlas is fitted to an image, and what a fit gives."""

from dataclasses import dataclass, field, replace
from typing import Literal, final

import torch
from torch import Tensor

from metasynth.segment.atlas.mixture import Mixture

Kind = Literal["rigid", "affine", "deformable"]
KINDS: tuple[Kind, ...] = ("rigid", "affine", "deformable")


def _check_at_least(name: str, value: float, least: float) -> None:
    if not least <= value < float("inf"):
        raise ValueError(f"{name}: must be a number of at least {least:g}, got {value}")


@final
@dataclass(frozen=True)
class Stiffness:
    """What a deformation costs, per voxel of the image and in units of log-likelihood.

    Attributes
    ----------
    membrane : float
        Of half the squared gradient of u.
    bending : float
        Of half the squared second derivatives of u, mm^2.
    """

    membrane: float = 1.0
    bending: float = 100.0

    def __post_init__(self) -> None:
        _check_at_least("membrane", self.membrane, 0.0)
        _check_at_least("bending", self.bending, 0.0)

    def of(self, energy: Tensor) -> Tensor:
        """The cost () of energies (2,), see `Frame.energy`."""
        return energy @ energy.new_tensor([self.membrane, self.bending])


@final
@dataclass(frozen=True)
class Level:
    """One stage of a fit.

    Attributes
    ----------
    kind : "rigid", "affine" or "deformable"
        What of the warp is fitted.
    smoothing_mm : float
        Standard deviation of a further Gaussian over the atlas: the wider, the farther the fit sees.
    rounds : int
        Most alternations of EM and registration.
    proportions : bool
        Whether the proportions of the classes are fitted; where the atlas lies wrong, two classes could swap by them.
    restart : bool
        Whether the mixture starts anew from the prior's moments, which a better place of the atlas has made truer; a
        small class that EM had let drift is so found again.
    """

    kind: Kind
    smoothing_mm: float
    rounds: int
    proportions: bool = True
    restart: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: must be one of {', '.join(KINDS)}, got {self.kind!r}")
        _check_at_least("smoothing_mm", self.smoothing_mm, 0.0)
        _check_at_least("rounds", self.rounds, 1)


@final
@dataclass(frozen=True)
class AtlasSettings:
    """How an atlas is fitted.

    Attributes
    ----------
    levels : tuple of Level
        The stages, in turn; none leaves the atlas where it is.
    control_mm : float
        Distance of the control points of the deformation.
    stiffness : Stiffness
        The cost of the deformation.
    bias_cutoff_mm, bias_stiffness : float
        Of the bias field, see `CosineField`; a cutoff of more than twice the brain's length leaves it out.
    offset : float
        Intensities are divided by their 99 % quantile and get this added before the logarithm, which would
        otherwise stretch the noise of dark voxels.
    least_sd : float
        Least standard deviation of a Gaussian, of log intensities.
    em_iterations, registration_iterations : int
        Most iterations of EM, and of L-BFGS, in a round.
    tolerance : float
        EM and levels end when an iteration, or a round, adds less to the log-likelihood per voxel.
    dtype : torch.dtype
        float32 or float64, of all arrays; log-likelihoods are summed in double precision.

    Raises
    ------
    ValueError
        When a value is out of range.
    """

    levels: tuple[Level, ...] = (
        Level("rigid", 2.0, 3, proportions=False),
        Level("affine", 2.0, 4, proportions=False),
        Level("deformable", 2.0, 3),
        Level("deformable", 0.0, 4, restart=False),
    )
    control_mm: float = 10.0
    stiffness: Stiffness = field(default_factory=Stiffness)
    bias_cutoff_mm: float = 100.0
    bias_stiffness: float = 0.1
    offset: float = 0.05
    least_sd: float = 0.01
    em_iterations: int = 20
    registration_iterations: int = 10
    tolerance: float = 1e-4
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        for name in ("control_mm", "bias_cutoff_mm", "offset", "least_sd"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: must be a number above 0, got {getattr(self, name)}")
        _check_at_least("bias_stiffness", self.bias_stiffness, 0.0)
        _check_at_least("tolerance", self.tolerance, 0.0)
        _check_at_least("em_iterations", self.em_iterations, 1)
        _check_at_least("registration_iterations", self.registration_iterations, 1)
        if self.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype: must be torch.float32 or torch.float64, got {self.dtype}")

    def up_to(self, kind: Kind | None) -> "AtlasSettings":
        """The same without the levels that fit more of the warp than `kind`; None has no levels."""
        kept = KINDS[: KINDS.index(kind) + 1] if kind else ()
        return replace(self, levels=tuple(level for level in self.levels if level.kind in kept))


@final
@dataclass(frozen=True)
class Step:
    """One step of a fit.

    Attributes
    ----------
    level : int
        Index of the level; between levels the atlas's smoothing changes and with it the log-likelihood.
    kind : str
        "start" of a level, "em", or the kind of registration.
    log_likelihood : float
        Penalised, of all voxels, after the step.
    """

    level: int
    kind: Literal["start", "em", "rigid", "affine", "deformable"]
    log_likelihood: float


@final
@dataclass(frozen=True, eq=False)
class AtlasFit:
    """What a fit found.

    Attributes
    ----------
    posteriors : Tensor (K, *S)
        Probability of each class; outside the mask all background.
    labels : Tensor (*S) int64
        The likeliest class.
    mixture : Mixture
        Means, variances, weights and proportions, of log(image / scale + offset) - log(bias).
    scale : float
        The intensity that became 1: the 99 % quantile in the mask.
    bias : Tensor (*S)
        The multiplicative field.
    affine : Tensor (d, d + 1)
        From mm of the image to mm of the atlas, each from the middle of its grid.
    displacement : Tensor (d, *S)
        Added to that, mm.
    course : tuple of Step
        Every step, in order.
    log_likelihood : float
        Penalised, of all voxels, at the end.
    converged : bool
        Whether no level ran out of rounds.
    """

    posteriors: Tensor
    labels: Tensor
    mixture: Mixture
    scale: float
    bias: Tensor
    affine: Tensor
    displacement: Tensor
    course: tuple[Step, ...]
    log_likelihood: float
    converged: bool
