"""Learned Gaussian noise whose level varies from image to image."""

from typing import final

import torch
from torch import Tensor

from metasynth.augment.augmenter import Augmenter, check_draws
from metasynth.augment.bijections import Bijection, Softplus
from metasynth.augment.noise import LearnedSigma, add_noise, raw_parameter, standard_normal
from metasynth.errors import UsageError

PerImage = tuple[Tensor, Tensor]
"""A draw (B,) that sets each image's level, and eps (B, C, *S), standard normal."""


@final
class RandomAmplitudeNoise(LearnedSigma[PerImage]):
    """x <- x + sigma * s * eps with s ~ N(0, 1) per image, eps ~ N(0, 1) per voxel and one learned sigma (Eq. 9).

    Sigma is the standard deviation of the noise over all images; an image's own is |s| sigma. See `LearnedSigma`.
    """

    def draw(self, images: Tensor, generator: torch.Generator) -> PerImage:
        """(s (B,), eps (B, C, *S)); eps is drawn first, as for all noise."""
        eps = standard_normal(images, generator)
        return standard_normal(images.new_empty(len(images)), generator), eps

    def forward(self, images: Tensor, draws: PerImage) -> Tensor:
        """Noisy images (B, C, *S) from `images` (B, C, *S) and `draws` of `draw`.

        Raises
        ------
        ValueError
            When the shapes of `draws` do not belong to those of `images`.
        """
        _check(draws, images)
        amplitudes, eps = draws
        return add_noise(images, self.sigma * amplitudes, eps)


@final
class NoiseRange(Augmenter[PerImage]):
    """x <- x + sigma * eps with sigma ~ U(low, high) per image, eps ~ N(0, 1) per voxel, and both ends learned.

    The varying noise of the authors' code. In units of image intensity, and with low < high by construction:

        low = bijection.forward(raw_low),      high = low + bijection.forward(raw_width),

    where `raw_low` () and `raw_width` () are the parameters that an optimiser moves.

    Parameters
    ----------
    low, high : float
        The first values of the ends.
    bijection : Bijection
        The map from `raw_low` to low and from `raw_width` to high - low; `Softplus` unless given.

    Raises
    ------
    UsageError
        (a ValueError) unless low < high, or when the bijection does not reach `low` or `high` - `low`.
    """

    def __init__(self, low: float, high: float, bijection: Bijection | None = None) -> None:
        super().__init__()
        if not low < high:
            raise UsageError(f"high: must be greater than low = {low:g}, got {high:g}")
        self.bijection = Softplus() if bijection is None else bijection
        self.raw_low = raw_parameter(self.bijection, low, "low")
        self.raw_width = raw_parameter(self.bijection, high - low, "high - low")

    @property
    def low(self) -> Tensor:
        """The lowest noise level (), differentiable with respect to `raw_low`."""
        return self.bijection.forward(self.raw_low)

    @property
    def high(self) -> Tensor:
        """The highest noise level (), differentiable with respect to both parameters."""
        return self.low + self.bijection.forward(self.raw_width)

    def draw(self, images: Tensor, generator: torch.Generator) -> PerImage:
        """(u (B,), eps (B, C, *S)), eps drawn first; u ~ U(0, 1) is the place of an image's sigma in the range.

        For float32 images the same numbers as `NoiseLevel.corrupt` draws.
        """
        eps = standard_normal(images, generator)
        uniform = torch.rand(len(images), generator=generator, dtype=images.dtype, device=generator.device)
        return uniform.to(images.device), eps

    def forward(self, images: Tensor, draws: PerImage) -> Tensor:
        """Noisy images (B, C, *S) from `images` (B, C, *S) and `draws` of `draw`.

        Raises
        ------
        ValueError
            When the shapes of `draws` do not belong to those of `images`.
        """
        _check(draws, images)
        uniform, eps = draws
        return add_noise(images, self.low + self.bijection.forward(self.raw_width) * uniform, eps)

    def observed(self) -> dict[str, float]:
        """The values of both ends."""
        return {"sigma_low": self.low.item(), "sigma_high": self.high.item()}


def _check(draws: PerImage, images: Tensor) -> None:
    check_draws(draws, ((len(images),), tuple(images.shape)))
