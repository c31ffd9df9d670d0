"""The augmenters of this package, a line of the table each."""

from collections.abc import Mapping
from typing import Any

import torch

from metasynth.augment.augmenter import Augmenter
from metasynth.augment.bias_field import BiasField, KnownBias
from metasynth.augment.compose import Compose, nonparametric
from metasynth.augment.corruption import Corruption, Corruptions
from metasynth.augment.entry import AugmenterEntry, Start
from metasynth.augment.learned_synthesis import LearnedSynthesis, Priors
from metasynth.augment.noise import GaussianNoise, NoiseLevel
from metasynth.augment.random_share import RandomShare
from metasynth.augment.residual import ResidualNetwork, residual_unet
from metasynth.augment.varying_noise import NoiseRange, RandomAmplitudeNoise
from metasynth.errors import UsageError


def _noise(start: Start) -> Augmenter[Any]:
    return GaussianNoise(start.sigma)


def _random_amplitude(start: Start) -> Augmenter[Any]:
    return RandomAmplitudeNoise(start.sigma)


def _range(start: Start) -> Augmenter[Any]:
    return NoiseRange(0.1 * start.sigma, start.sigma)


def _field(start: Start) -> BiasField:
    return BiasField((start.exponent,) * len(start.nodes), start.nodes, ndim=start.ndim)


def _network(start: Start) -> torch.nn.Module:
    return residual_unet(ndim=start.ndim, widths=start.network, generator=start.generator)


def _parametric(start: Start) -> Augmenter[Any]:
    """Fields (Eq. 7), then noise of Eq. 8."""
    return Compose(_field(start), _noise(start))


def _nonparametric(start: Start) -> Augmenter[Any]:
    """A network (Eqs 10-11), then noise of Eq. 9."""
    return nonparametric(_network(start), start.sigma)


def _synthesis(start: Start, priors: Priors) -> Augmenter[Any]:
    """Images of structures about priors, and a share of them about none."""
    exponents = (start.exponent,) * len(start.nodes)

    def about(given: Priors) -> Augmenter[Any]:
        return LearnedSynthesis(
            given, start.ndim, start.sigma, start.blur, start.gamma, exponents, start.nodes, start.varying
        )

    learned = about(priors)
    if start.random_share == 0:
        return learned
    return RandomShare(learned, about(Priors.random(len(priors.mean))), start.random_share)


def _synthesis_random(start: Start) -> Augmenter[Any]:
    return _synthesis(start, Priors.random(start.structures))


def _synthesis_estimated(start: Start) -> Augmenter[Any]:
    if start.priors is None:
        raise UsageError("augmenter 'synthesis_estimated': must be given estimated priors, got none")
    return _synthesis(start, start.priors)


def _known_sigma(values: Mapping[str, float], start: Start) -> NoiseLevel:
    return NoiseLevel(values["sigma"], values["sigma"])


def _known_range(values: Mapping[str, float], start: Start) -> NoiseLevel:
    return NoiseLevel(values["sigma_low"], values["sigma_high"])


_EXPONENTS = ("c_low", "c_mid", "c_high")


def _known_fields(values: Mapping[str, float], start: Start) -> Corruption:
    return Corruptions((KnownBias(tuple(values[c] for c in _EXPONENTS), start.nodes), _known_sigma(values, start)))


_SIGMA = ("sigma",)
_FIELDS_TOLD = (
    "multiplied by fields with learned exponents, which started at {exponent:g}, and had noise added whose sigma "
    "started at {sigma:g}"
)
_NETWORK_TOLD = (
    "changed by a network on the image and a channel of noise, which began as weak random fields, and had noise of "
    "random amplitude added, whose sigma started at {sigma:g} (it stands for what the network leaves to be added, and "
    "is not to be compared with the preset)"
)
ENTRIES = (
    AugmenterEntry("fixed", "Noise", _noise, sigma=_SIGMA, comparable=True, known=_known_sigma, studies=("noise",)),
    AugmenterEntry(
        "random_amplitude", "Noise of random amplitude", _random_amplitude, sigma=_SIGMA, studies=("noise",)
    ),
    AugmenterEntry(
        "range", "Noise of a range", _range, sigma=("sigma_low", "sigma_high"), known=_known_range, studies=("noise",)
    ),
    AugmenterEntry(
        "parametric",
        "Fields and noise",
        _parametric,
        fields=True,
        sigma=_SIGMA,
        exponents=_EXPONENTS,
        comparable=True,
        known=_known_fields,
        told=_FIELDS_TOLD,
        studies=("inu",),
    ),
    AugmenterEntry(
        "nonparametric",
        "Network and noise",
        _nonparametric,
        network=True,
        sigma=_SIGMA,
        told=_NETWORK_TOLD,
        studies=("inu",),
    ),
    AugmenterEntry(
        "parametric_fixed", "parametric, fixed σ", _parametric, fields=True, sigma=_SIGMA, studies=("comparison",)
    ),
    AugmenterEntry(
        "parametric_varying",
        "parametric, varying σ",
        lambda start: Compose(_field(start), _random_amplitude(start)),
        fields=True,
        sigma=_SIGMA,
        studies=("comparison",),
    ),
    AugmenterEntry(
        "nonparametric_fixed",
        "nonparametric, fixed σ",
        lambda start: Compose(ResidualNetwork(_network(start)), _noise(start)),
        network=True,
        sigma=_SIGMA,
        studies=("comparison",),
    ),
    AugmenterEntry(
        "nonparametric_varying",
        "nonparametric, varying σ",
        _nonparametric,
        network=True,
        sigma=_SIGMA,
        studies=("comparison",),
    ),
    AugmenterEntry(
        "synthesis_random",
        "synthesis, from random contrasts",
        _synthesis_random,
        fields=True,
        sigma=_SIGMA,
        studies=("comparison",),
    ),
    AugmenterEntry(
        "synthesis_estimated",
        "synthesis, from estimated contrasts",
        _synthesis_estimated,
        fields=True,
        priors=True,
        sigma=_SIGMA,
        studies=("comparison",),
    ),
    AugmenterEntry(
        "network_fields",
        "Network, fields and noise",
        lambda start: Compose(ResidualNetwork(_network(start)), _field(start), _noise(start)),
        fields=True,
        network=True,
        sigma=_SIGMA,
    ),
)
