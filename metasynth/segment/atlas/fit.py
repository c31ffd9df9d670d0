"""Fitting atlas, mixture and bias field to one image by generalised EM, from coarse to fine."""

import math
from typing import Literal

import torch
from torch import Tensor

from metasynth.segment.atlas.bias import CosineField
from metasynth.segment.atlas.mixture import initial_mixture, responsibilities, updated
from metasynth.segment.atlas.prior import Atlas
from metasynth.segment.atlas.registration import register
from metasynth.segment.atlas.settings import AtlasFit, AtlasSettings, Kind, Level, Step
from metasynth.segment.atlas.warp import Frame

_STILL = Level("rigid", 0.0, 1)  # without its registration: the atlas stays


def fit(
    atlas: Atlas,
    image: Tensor,
    mask: Tensor | None = None,
    settings: AtlasSettings | None = None,
    spacing: tuple[float, ...] | None = None,
) -> AtlasFit:
    """Fit an atlas to one image of any contrast.

    Parameters
    ----------
    atlas : Atlas
        The prior.
    image : Tensor (*S)
        Intensities, with as many axes as the atlas; what is below 0 counts as 0.
    mask : Tensor (*S) bool, or None
        Voxels that are used, the brain; the atlas's centre of mass is first put on theirs. None uses all, and puts
        the middle of the atlas on that of the image.
    settings : AtlasSettings or None
        The defaults when None.
    spacing : tuple of float, or None
        Voxel size of the image in mm; the atlas's when None.

    Raises
    ------
    ValueError
        When an argument has another shape or type, the mask is empty, or the image is not finite or nowhere above
        0 in it.
    """
    settings = settings or AtlasSettings()
    spacing = atlas.spacing if spacing is None else spacing
    _check(atlas, image, mask, spacing)
    fitting = _Fitting(atlas, image, mask, settings, spacing)
    if not settings.levels:
        fitting.begin(0, _STILL)
        fitting.expectation_maximisation(0)
    ended = [fitting.run(number, level) for number, level in enumerate(settings.levels)]
    return fitting.result(all(ended))


class _Fitting:
    """The state of a fit: where the atlas lies, the mixture, the bias field, and what the last E-step gave."""

    def __init__(
        self, atlas: Atlas, image: Tensor, mask: Tensor | None, settings: AtlasSettings, spacing: tuple[float, ...]
    ) -> None:
        self.settings = settings
        inside = torch.ones_like(image, dtype=torch.bool) if mask is None else mask
        image = image.to(settings.dtype)
        self.unsmoothed = self.atlas = atlas.to(image)
        middle = image.new_zeros(image.ndim)
        self.frame = (
            Frame.of(inside, spacing, settings.control_mm, middle, middle)
            if mask is None
            else Frame.of(inside, spacing, settings.control_mm, None, self.atlas.centroid())
        )
        self.warp = self.frame.still()
        self.field = CosineField.of(inside, spacing, settings.bias_cutoff_mm, settings.bias_stiffness, image)
        self.coefficients = self.field.none()
        used = image[inside].clamp(min=0)
        self.scale = float(used.kthvalue(math.ceil(0.99 * len(used))).values)
        if not self.scale > 0:
            raise ValueError("image: must be above 0 in more than 1 % of the voxels used, got 0")
        self.values = (used / self.scale + settings.offset).log()
        self.least_variance = settings.least_sd**2
        self.course: list[Step] = []

    def run(self, number: int, level: Level) -> bool:
        """One level; whether it ended by itself."""
        self.begin(number, level)
        for _ in range(level.rounds):
            before = self.course[-1].log_likelihood
            self.expectation_maximisation(number)
            self.register(number, level.kind)
            if self.settled(before):
                return True
        return False

    def begin(self, number: int, level: Level) -> None:
        """Take the atlas as smooth as the level wants it; perhaps a mixture from its moments."""
        self.atlas = self.unsmoothed.smoothed(level.smoothing_mm)
        self.prior = self.atlas.at(self.frame(self.warp))
        self.proportions = level.proportions
        if level.restart or not self.course:
            corrected = self.values - self.field(self.coefficients)
            self.mixture = initial_mixture(corrected, self.prior, self.atlas.gaussians, self.least_variance)
        self.expect(number, "start")

    def expect(self, number: int, kind: Literal["start", "em"] | Kind) -> None:
        """The E-step, and a line in the course."""
        corrected = self.values - self.field(self.coefficients)
        self.posterior, evidence = responsibilities(self.mixture, corrected, self.prior)
        cost = self.settings.stiffness.of(self.frame.energy(self.warp.control)) + self.field.penalty(self.coefficients)
        self.course.append(Step(number, kind, float(evidence - cost)))

    def expectation_maximisation(self, number: int) -> None:
        """EM with the atlas held where it is."""
        for _ in range(self.settings.em_iterations):
            before = self.course[-1].log_likelihood
            corrected = self.values - self.field(self.coefficients)
            self.mixture = updated(
                self.mixture, corrected, self.prior, self.posterior, self.least_variance, self.proportions
            )
            self.coefficients = self.field.fitted(self.mixture, self.values, self.posterior)
            self.expect(number, "em")
            if self.settled(before):
                break

    def register(self, number: int, kind: Kind) -> None:
        """Move the atlas with the mixture held as it is."""
        likelihood = self.mixture.class_likelihoods(self.values - self.field(self.coefficients))
        settings = self.settings
        self.warp = register(
            self.atlas,
            self.frame,
            likelihood,
            self.mixture.proportions,
            self.warp,
            kind,
            settings.stiffness,
            settings.registration_iterations,
        )
        self.prior = self.atlas.at(self.frame(self.warp))
        self.expect(number, kind)

    def settled(self, before: float) -> bool:
        """Whether less than the tolerance has been gained."""
        return self.course[-1].log_likelihood - before < self.settings.tolerance * len(self.values)

    def result(self, converged: bool) -> AtlasFit:
        """All that was found, on the image's grid."""
        mask, mixture = self.frame.mask, self.mixture
        classes = self.prior.new_zeros(self.prior.shape).index_add(0, mixture.classes, self.posterior)
        posteriors = self.prior.new_zeros(len(classes), *mask.shape)
        posteriors[0] = 1
        posteriors[:, mask] = classes
        matrix = self.warp.matrix()
        shift = self.frame.atlas_centre + self.warp.shift - matrix @ self.frame.centre
        return AtlasFit(
            posteriors=posteriors,
            labels=posteriors.argmax(0),
            mixture=mixture,
            scale=self.scale,
            bias=self.field.everywhere(self.coefficients).exp(),
            affine=torch.cat([matrix, shift[:, None]], dim=1),
            displacement=self.frame.displacement(self.warp.control),
            course=tuple(self.course),
            log_likelihood=self.course[-1].log_likelihood,
            converged=converged,
        )


def _check(atlas: Atlas, image: Tensor, mask: Tensor | None, spacing: tuple[float, ...]) -> None:
    if image.ndim != len(atlas.shape):
        raise ValueError(f"image: must have {len(atlas.shape)} axes, as the atlas, got shape {tuple(image.shape)}")
    if mask is not None and (mask.shape != image.shape or mask.dtype != torch.bool):
        raise ValueError(
            f"mask: must be of the image's shape {tuple(image.shape)} and bool, got {tuple(mask.shape)}, {mask.dtype}"
        )
    if mask is not None and not bool(mask.any()):
        raise ValueError("mask: must hold a voxel, got none")
    if not bool((image if mask is None else image[mask]).isfinite().all()):
        raise ValueError("image: must be finite where it is used, got NaN or infinity")
    if len(spacing) != image.ndim or not all(0 < s < float("inf") for s in spacing):
        raise ValueError(f"spacing: must be {image.ndim} numbers of mm above 0, got {spacing}")
