"""Every augmenter, at the size of a test and away from values that are special."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metasynth.augment.augmenter import Augmenter
from metasynth.augment.bias_field import BiasField
from metasynth.augment.bijections import Exp, Softplus
from metasynth.augment.compose import Compose, nonparametric
from metasynth.augment.learned_synthesis import LearnedSynthesis, Priors
from metasynth.augment.noise import GaussianNoise
from metasynth.augment.random_share import RandomShare
from metasynth.augment.residual import ResidualNetwork, residual_unet
from metasynth.augment.varying_noise import NoiseRange, RandomAmplitudeNoise


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(ndim: int, channels: int = 1, widths: tuple[int, ...] = (2, 3)) -> torch.nn.Module:
    """A residual U-Net whose finest head has left its start."""
    made: Any = residual_unet(channels, ndim, widths, generator=seeded(0))
    with torch.no_grad():
        made.levels.head.weight.normal_(0.0, 0.5, generator=seeded(1))
    return made


PRIORS = Priors((0.0, 0.9, 0.3, 0.6), (0.0, 0.1, 0.2, 0.05), (0.0, 0.05, 0.02, 0.1))
"""Of three structures and the background."""


def synthesis(ndim: int, priors: Priors = PRIORS) -> LearnedSynthesis:
    return LearnedSynthesis(priors, ndim, sigma=0.1, blur=0.5, gamma=0.3, exponents=(0.3, 0.6), nodes=(2, 3))


def shared(ndim: int) -> RandomShare:
    """One of three images is random."""
    return RandomShare(synthesis(ndim), synthesis(ndim, Priors.random(4)), 1 / 3)


AUGMENTERS: dict[str, Callable[[int], Augmenter[Any]]] = {
    "noise": lambda ndim: GaussianNoise(0.2),
    "random amplitude": lambda ndim: RandomAmplitudeNoise(0.2, Exp()),
    "range": lambda ndim: NoiseRange(0.1, 0.3),
    "field": lambda ndim: BiasField((0.2, 0.5, 0.8), (1, 2, 3), ndim=ndim),
    "unbounded field": lambda ndim: BiasField((0.3, 2.5), (2, 4), (0.9, 1.5), ndim, Softplus()),
    "network": lambda ndim: ResidualNetwork(network(ndim)),
    "joint": lambda ndim: Compose(BiasField((0.3, 0.6), (2, 3), ndim=ndim), GaussianNoise(0.2)),
    "nonparametric": lambda ndim: nonparametric(network(ndim), 0.2),
    "synthesis": synthesis,
    "shared synthesis": shared,
    "noise in part": lambda ndim: RandomShare(GaussianNoise(0.1), GaussianNoise(0.4), 0.5),
    "synthesis with more noise": lambda ndim: Compose(synthesis(ndim), RandomAmplitudeNoise(0.1)),
    "nested": lambda ndim: Compose(Compose(GaussianNoise(0.1), NoiseRange(0.1, 0.2)), GaussianNoise(0.2)),
}
"""By name, for a number of voxel axes."""


def given_to(augmenter: Augmenter[Any], images: Tensor) -> Tensor:
    """What an augmenter takes: the images (B, 1, *S), or structures 0 to 3 of their voxels."""
    return images if augmenter.takes == "images" else (4 * images[:, 0]).long()
