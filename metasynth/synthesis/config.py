"""The options of synthesis, by cornucopia's names; one configuration drives either generator."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, final

from metasynth.errors import UsageError


@final
@dataclass(frozen=True)
class CornucopiaConfig:
    """Options of `cornucopia.SynthFromLabelTransform`, by its names; the defaults are the paper's.

    A strength is the bound of the distribution its value is drawn from for every image; False or 0 leaves the
    step out.

    Attributes
    ----------
    order : int
        Spline order of the elastic and bias fields, 1 (linear, fast) to 7.
    translations : float
        Largest translation either way, as a fraction of the field of view.
    rotation : float
        Largest rotation either way, in degrees.
    shears : float
        Largest shear either way.
    zooms : float
        Largest zoom either side of 1; less than 1.
    elastic : float
        Largest bound of the elastic displacement, as a fraction of the field of view.
    elastic_nodes : int
        Largest number of control points of the displacement along an axis, at least 2.
    gmm_fwhm : float
        Largest full width at half maximum, in voxels, of the smoothing of a class's noise (its texture).
    gamma : float
        Standard deviation of the logarithm of the exponent that intensities are raised to.
    motion_fwhm : float
        Largest full width at half maximum, in voxels, of the blur of the whole image.
    bias : int or bool
        Largest number of control points of a bias field along an axis, at least 2.
    resolution : float or bool
        Largest simulated voxel size, in voxels, at least 1.
    snr : float or bool
        Smallest signal-to-noise ratio of cornucopia's own noise, which is not the sigma of Eq. 8.
    priors : str
        File of priors that intensities and textures are drawn from; empty: those of random contrasts. Studies read it.
        A generator is given what is in it.

    Raises
    ------
    UsageError
        (a ValueError) when an option is out of range.
    """

    ADDED: ClassVar[Mapping[str, Any]] = {"priors": ""}

    order: int = 1
    translations: float = 0.1
    rotation: float = 15.0
    shears: float = 0.012
    zooms: float = 0.15
    elastic: float = 0.05
    elastic_nodes: int = 10
    gmm_fwhm: float = 10.0
    gamma: float = 0.6
    motion_fwhm: float = 3.0
    bias: int | bool = False
    resolution: float | bool = False
    snr: float | bool = False
    priors: str = ""

    def __post_init__(self) -> None:
        for name, value in self.options().items():
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{name}: must be a finite number >= 0, got {value!r}")
        for name, least, value in (
            ("elastic_nodes", 2, self.elastic_nodes),
            ("bias", 2, self.bias or 2),
            ("resolution", 1, self.resolution or 1),
        ):
            if value < least:
                raise UsageError(f"{name}: must be at least {least}, got {value!r}")
        if self.order not in range(1, 8):
            raise UsageError(f"order: must be a whole number from 1 to 7, got {self.order!r}")
        if self.zooms >= 1:
            raise UsageError(f"zooms: must be less than 1, got {self.zooms!r}")

    def options(self) -> dict[str, float]:
        """The options of `cornucopia.SynthFromLabelTransform`, which knows no priors."""
        return {name: value for name, value in asdict(self).items() if name != "priors"}

    def at_spacing(self, spacing_mm: float) -> "CornucopiaConfig":
        """The same configuration for voxels of another size.

        The widths `gmm_fwhm` and `motion_fwhm`, in voxels, are meant for voxels of 1 mm and keep their size in mm:
        a blur of three 3 mm voxels would leave no cortex. Everything else is relative to the field of view.

        Raises
        ------
        UsageError
            When `spacing_mm` is not a positive number.
        """
        if not 0 < spacing_mm < float("inf"):
            raise UsageError(f"spacing_mm: must be a positive number, got {spacing_mm!r}")
        return replace(self, gmm_fwhm=self.gmm_fwhm / spacing_mm, motion_fwhm=self.motion_fwhm / spacing_mm)


PAPER = CornucopiaConfig()
"""`SynthFromLabelTransform(order=1, resolution=False, snr=False, bias=False)`."""

SYNTHSEG = CornucopiaConfig(
    translations=0.0,
    zooms=0.2,
    elastic=0.036,
    elastic_nodes=8,
    gmm_fwhm=0,
    gamma=0.5,
    motion_fwhm=0,
    bias=5,
    resolution=8,
)
"""The priors that SynthSeg was trained with, for slices and volumes of about 192 voxels of 1 mm.

Billot et al., Medical Image Analysis 86 (2023) 102789. The values are the defaults of `SynthSeg/training.py`, and the
gamma that of `SynthSeg/labels_to_image_model.py`, of github.com/BBillot/SynthSeg at commit 62b7f3c.

The same distributions: rotation up to 15 degrees, shears up to 0.012, scaling 1 +- 0.2, no translation, the logarithm
of the exponent of standard deviation 0.5, no smoothing within a class.

The nearest that these options allow: control points of the displacement are normal there, of standard deviation up
to 4 voxels and 0.04 of the axis in number, hence a bound of 4 sqrt(3) voxels and 8 points here, and the displacement
is not integrated. The bias field is there the exponential of a normal one of 0.025 of the axis in control points,
hence 5. The voxel size is up to 8 mm along one axis as there, but also where all axes are coarse, up to 4 mm there.
The class noise is an option of `BatchedGenerator`: there of standard deviation up to 25 where means span 200, so
``class_sd=0.125``.
"""
