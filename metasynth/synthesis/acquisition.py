"""What a scanner makes of an image: larger voxels, and noise in them."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from metasynth.synthesis import intensity
from metasynth.synthesis.config import CornucopiaConfig
from metasynth.synthesis.draws import GFACTOR_NODES, whole

# What `cornucopia.SynthFromLabelTransform` sets where this package's options say nothing else.
_GFACTOR = (0.5, 1.5)
_CHANNELS = (2, 8)
_LEAST_THICKNESS = 0.1


def acquired(
    image: Tensor, draws: Mapping[str, Tensor], config: CornucopiaConfig, generator: torch.Generator
) -> Tensor:
    """One image (*S) in larger voxels and with noise, as `BatchedGenerator` says of its steps 6 and 7.

    Parameters
    ----------
    image : Tensor (*S)
    draws : mapping
        The image's own, from U(0, 1), by name.
    config : CornucopiaConfig
        The strengths.
    generator : torch.Generator
        Of the noise.
    """
    shape, ndim = image.shape, image.ndim
    if config.resolution:
        factor = 1 + (float(config.resolution) - 1) * draws["resolution"].item()
        if draws["isotropic"].item() < 0.5:
            image = intensity.lowered(image, [factor] * ndim, [factor] * ndim, least=1)
        else:
            axis = int(whole(draws["axis"], 0, ndim - 1))
            thickness = _LEAST_THICKNESS + (1 - _LEAST_THICKNESS) * draws["thickness"].item()
            voxel = [factor if d == axis else 1.0 for d in range(ndim)]
            width = [factor * thickness if d == axis else 0.0 for d in range(ndim)]
            image = intensity.lowered(image, width, voxel, least=2)
    if config.snr:
        sigma = draws["sigma"].item() / float(config.snr)
        noise = chi_noise(image.shape, sigma, int(whole(draws["channels"], *_CHANNELS)), generator)
        nodes = whole(draws["gfactor_nodes"], 2, GFACTOR_NODES).expand(1, ndim)
        field = intensity.smooth_fields(draws["gfactor"][None], nodes, image.shape, config.order)[0]
        noise *= _GFACTOR[0] + (_GFACTOR[1] - _GFACTOR[0]) * field
        image = torch.sqrt(image.square() + noise.square())
    return intensity.restored(image, shape) if config.resolution else image


def chi_noise(shape: Sequence[int], sigma: float, channels: int, generator: torch.Generator) -> Tensor:
    """The root of a sum of squares of `channels` normal draws, scaled to a standard deviation of `sigma`, (*S)."""
    drawn = torch.randn([channels, *shape], generator=generator, device=generator.device)
    mean = math.sqrt(2) * math.exp(math.lgamma((channels + 1) / 2) - math.lgamma(channels / 2))
    return drawn.square_().sum(0).sqrt_() * (sigma / math.sqrt(channels - mean**2))
