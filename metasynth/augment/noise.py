"""Additive Gaussian noise: the learned augmenter of the paper's Eq. 8, and the known noise it has to find.

Noise whose strength differs from image to image is in `varying_noise`; a generator's own is in
`metasynth.synthesis.intensity`, and that of simulated scans in `metasynth.synthesis.mri`.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Self, final

import torch
from torch import Tensor, nn

from metasynth.augment.augmenter import Augmenter, DrawsT, shapes_of
from metasynth.augment.bijections import Bijection, Softplus
from metasynth.errors import UsageError


class LearnedSigma(Augmenter[DrawsT]):
    """Noise with one learned sigma.

    It is in units of image intensity and positive by construction: `sigma = bijection.forward(raw_sigma)`, where
    `raw_sigma` () is the parameter that an optimiser moves.

    Parameters
    ----------
    start : float
        The first value of sigma.
    bijection : Bijection
        The map from `raw_sigma` to sigma; `Softplus` unless given.

    Raises
    ------
    UsageError
        (a ValueError) when the bijection does not reach `start`; Softplus and Exp reach no value <= 0.
    """

    def __init__(self, start: float, bijection: Bijection | None = None) -> None:
        super().__init__()
        self.bijection = Softplus() if bijection is None else bijection
        self.raw_sigma = raw_parameter(self.bijection, start, "start")

    @property
    def sigma(self) -> Tensor:
        """The noise level (), differentiable with respect to `raw_sigma`."""
        return self.bijection.forward(self.raw_sigma)

    def observed(self) -> dict[str, float]:
        """The value of sigma."""
        return {"sigma": self.sigma.item()}


@final
class GaussianNoise(LearnedSigma[Tensor]):
    """x <- x + sigma * eps with eps ~ N(0, 1) per voxel and one learned sigma (Eq. 8); see `LearnedSigma`."""

    def draw(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Standard normal draws of the shape, dtype and device of `images` (B, C, *S)."""
        return standard_normal(images, generator)

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        """Noisy images (B, C, *S) from `images` (B, C, *S) and `draws` (B, C, *S) of `draw`.

        Raises
        ------
        ValueError
            When `draws` is not of the shape of `images`.
        """
        _check_draws(images, draws)
        return images + self.sigma * draws


@final
@dataclass(frozen=True)
class NoiseLevel:
    """A known noise level: sigma = low if low == high, else sigma ~ U(low, high) drawn for every image.

    In units of image intensity. Raises UsageError (a ValueError) unless 0 <= low <= high, both finite.
    """

    NOTATION: ClassVar[str] = "a number or LOW:HIGH"

    low: float
    high: float

    def __post_init__(self) -> None:
        finite = math.isfinite(self.low) and math.isfinite(self.high)
        if not (finite and 0.0 <= self.low <= self.high):
            raise UsageError(
                "sigma: must be a finite number >= 0 or a range with 0 <= low <= high, "
                f"got low {self.low:g}, high {self.high:g}"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """A level from "0.05" or "0.025:0.2".

        Raises
        ------
        UsageError
            (a ValueError) when `text` is neither.
        """
        try:
            numbers = [float(part) for part in text.split(":")]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2):
            raise UsageError(f"sigma: must be a number such as 0.05 or a range such as 0.025:0.2, got '{text}'")
        return cls(numbers[0], numbers[-1])

    @classmethod
    def from_json(cls, value: object) -> Self:
        """A level from 0.05 or [0.025, 0.2]: the inverse of `to_json`.

        Raises
        ------
        UsageError
            (a ValueError) when `value` is neither.
        """
        given = list(value) if isinstance(value, list | tuple) else [value]
        numbers = [float(item) for item in given if isinstance(item, int | float) and not isinstance(item, bool)]
        if len(given) not in (1, 2) or len(numbers) != len(given):
            raise UsageError(f"sigma: must be a number such as 0.05 or a pair such as [0.025, 0.2], got {value!r}")
        return cls(numbers[0], numbers[-1])

    def to_json(self) -> float | list[float]:
        """The level as a JSON value: 0.05 or [0.025, 0.2]."""
        return self.low if self.is_fixed else [self.low, self.high]

    def to_text(self) -> str:
        """The level as `parse` reads it: "0.05" or "0.025:0.2"."""
        return repr(self.low) if self.is_fixed else f"{self.low!r}:{self.high!r}"

    @property
    def is_fixed(self) -> bool:
        """Whether every image gets the same sigma."""
        return self.low == self.high

    @property
    def label(self) -> str:
        """The level as tables write it: "0.05" or "U[0.025, 0.2]"."""
        return f"{self.low:g}" if self.is_fixed else f"U[{self.low:g}, {self.high:g}]"

    def draw(self, batch_size: int, generator: torch.Generator) -> Tensor:
        """One sigma per image, (B,) float32, on the generator's device.

        A fixed level draws as well and so leaves the generator where a range leaves it.
        """
        uniform = torch.rand(batch_size, generator=generator, device=generator.device)
        return self.low + (self.high - self.low) * uniform

    def corrupt(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images (B, C, *S) with noise of this level.

        The standard normal draws come first, as in `GaussianNoise.draw`: known and learned noise share them where their
        generators are in the same state.
        """
        draws = standard_normal(images, generator)
        return add_noise(images, self.draw(len(images), generator), draws)


def raw_parameter(bijection: Bijection, value: float, name: str) -> nn.Parameter:
    """What an optimiser moves (), so that the bijection gives ``value``; UsageError, with ``name``, if it cannot."""
    return nn.Parameter(bijection.inverse(torch.tensor(float(value), dtype=torch.get_default_dtype()), name=name))


def standard_normal(images: Tensor, generator: torch.Generator) -> Tensor:
    """Independent N(0, 1) draws of the shape, dtype and device of `images`.

    Drawn on the generator's device and moved: a CPU generator gives the same numbers to images on any device.
    """
    drawn = torch.randn(images.shape, generator=generator, dtype=images.dtype, device=generator.device)
    return drawn.to(images.device)


def add_noise(images: Tensor, sigma: Tensor | float, eps: Tensor) -> Tensor:
    """Known corruption: images + sigma * eps.

    Parameters
    ----------
    images, eps : Tensor (B, C, *S)
        Images, and standard normal draws of the same shape.
    sigma : Tensor (B,) or float
        The standard deviation, per image or for all, in units of image intensity.

    Raises
    ------
    ValueError
        When `eps` is not of the shape of `images`, or `sigma` is a tensor of another shape than (B,).
    """
    _check_draws(images, eps)
    if isinstance(sigma, Tensor):
        if sigma.shape != images.shape[:1]:
            raise ValueError(f"sigma: must have shape {tuple(images.shape[:1])}, got {tuple(sigma.shape)}")
        sigma = sigma.to(images).reshape(-1, *[1] * (images.ndim - 1))
    return images + sigma * eps


def _check_draws(images: Tensor, draws: Tensor) -> None:
    if shapes_of(draws) != tuple(images.shape):
        raise ValueError(f"draws: must have the shape of the images, {tuple(images.shape)}, got {shapes_of(draws)}")
