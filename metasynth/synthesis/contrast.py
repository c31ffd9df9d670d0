"""Where the intensities of an image's structures come from: random ones, or those of scans; and how it is scaled."""

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from metasynth.errors import UsageError
from metasynth.synthesis import intensity
from metasynth.synthesis.draws import normal
from metasynth.synthesis.priors.structure_priors import StructurePriors
from metasynth.synthesis.smoothing import left_of_noise


class Contrast(ABC):
    """Draws intensities and textures of structures, and brings images to their scale.

    Attributes
    ----------
    is_absolute : bool
        Whether intensities are those of a cache, so that images are not scaled by their own quantiles.
    """

    is_absolute: bool

    @abstractmethod
    def means(self, uniform: Tensor) -> Tensor:
        """Mean intensities (B, K - 1) of the classes 1..K-1 from draws from U(0, 1)."""

    @abstractmethod
    def sds(self, uniform: Tensor, fwhms: Tensor, widest: float, ndim: int) -> Tensor:
        """Standard deviations (B, K - 1) of noise that `fwhms`, of at most `widest`, then smooth along all axes."""

    @abstractmethod
    def cut(self, mixed: Tensor) -> Tensor:
        """Images (B, *S) of means and textures alone, without what no image of the kind has."""

    @abstractmethod
    def scale(self, images: Tensor, mixed: Tensor, labels: Tensor) -> Tensor:
        """What images (B, *S) are scaled by, (B, ...), for `scaled`.

        `mixed` are those before fields, blur and noise, `labels` what they show.
        """

    @abstractmethod
    def scaled(self, images: Tensor, scale: Tensor) -> Tensor:
        """Images (B, *S) brought to a scale, their own or that of the images which they are parts of."""


@final
class RandomContrast(Contrast):
    """Means U(0, 1), standard deviations U(0, `class_sd`); every image is scaled by its own quantiles.

    Parameters
    ----------
    class_sd : float
        Largest standard deviation of a class's noise before smoothing.
    head : bool
        Whether images show whole heads, so that the background is air.

    Raises
    ------
    UsageError
        (a ValueError) when it is not a finite number of at least 0.
    """

    is_absolute = False

    def __init__(self, class_sd: float, head: bool = False) -> None:
        if not 0 <= class_sd < math.inf:
            raise UsageError(f"class_sd: must be a finite number >= 0, got {class_sd!r}")
        self.class_sd, self.head = class_sd, head

    def means(self, uniform: Tensor) -> Tensor:
        """The draws themselves."""
        return uniform

    def sds(self, uniform: Tensor, fwhms: Tensor, widest: float, ndim: int) -> Tensor:
        """U(0, `class_sd`), whatever smoothing leaves of it."""
        return uniform * self.class_sd

    def cut(self, mixed: Tensor) -> Tensor:
        """All of it."""
        return mixed

    def scale(self, images: Tensor, mixed: Tensor, labels: Tensor) -> Tensor:
        """The 1 % and 99 % quantiles of the non-zero voxels, (B, 2); of heads the ends that scans of heads have."""
        return intensity.ends_of_heads(images) if self.head else intensity.quantile_ends(images)

    def scaled(self, images: Tensor, scale: Tensor) -> Tensor:
        """These to 0 and 1."""
        return intensity.scaled_heads(images, scale) if self.head else intensity.scaled(images, scale)


@final
class EstimatedContrast(Contrast):
    """Means N(mean, spread^2), cut to [0, 1], and textures of scans, in the units of a cache.

    A cache scales a scan as a whole, so that a slice of it has neither end of the scale in general. Hence an image is
    not scaled by its own quantiles: only the gain that fields and all else give it is undone
    (`metasynth.synthesis.intensity.gain_undone`). It is cut to [0, 1], before and after, as the images of a cache are.

    Parameters
    ----------
    priors : StructurePriors
        Of all K labels of a generator.
    """

    is_absolute = True

    def __init__(self, priors: StructurePriors) -> None:
        self._priors = torch.tensor([label.values for label in priors.labels[1:]]).T

    def means(self, uniform: Tensor) -> Tensor:
        """Means of one person."""
        mean, spread, _ = self._priors.to(uniform.device)
        return (mean + spread * normal(uniform)).clamp(0, 1)

    def sds(self, uniform: Tensor, fwhms: Tensor, widest: float, ndim: int) -> Tensor:
        """What makes the texture that of the priors after smoothing."""
        return self._priors[2].to(uniform.device) / left_of_noise(fwhms, widest, ndim)

    def cut(self, mixed: Tensor) -> Tensor:
        """In [0, 1]; the background is then the darkest, and stays it whatever power the image is raised to."""
        return mixed.clamp(0, 1)

    def scale(self, images: Tensor, mixed: Tensor, labels: Tensor) -> Tensor:
        """The gain (B,) that is to be undone."""
        return intensity.lost_gain(images, mixed, labels)

    def scaled(self, images: Tensor, scale: Tensor) -> Tensor:
        """With the gain undone."""
        return intensity.gain_undone(images, scale)
