"""Learned, differentiable augmenters, and the known corruptions that they are to find.

An `Augmenter` says what it draws, how it changes images given the draws, and what is recorded of it. `Compose` applies
several in turn. A corruption makes "real" images of synthetic ones in studies that know the truth.
"""

from metasynth.augment.augmenter import Augmenter
from metasynth.augment.bias_field import BiasField, KnownBias
from metasynth.augment.bijections import Bijection, Exp, Sigmoid, Softplus
from metasynth.augment.class_intensity import ClassIntensities
from metasynth.augment.compose import Compose, nonparametric
from metasynth.augment.corruption import Corruption, Corruptions
from metasynth.augment.discriminator import Discriminator
from metasynth.augment.entry import AugmenterEntry, Start
from metasynth.augment.label_generator import LabelGenerator
from metasynth.augment.learned_synthesis import LearnedSynthesis, Priors
from metasynth.augment.noise import GaussianNoise, NoiseLevel
from metasynth.augment.random_share import RandomShare
from metasynth.augment.residual import ResidualNetwork, residual_unet
from metasynth.augment.table import register
from metasynth.augment.varying_noise import NoiseRange, RandomAmplitudeNoise

__all__ = [
    "Augmenter",
    "AugmenterEntry",
    "BiasField",
    "Bijection",
    "ClassIntensities",
    "Compose",
    "Corruption",
    "Corruptions",
    "Discriminator",
    "Exp",
    "GaussianNoise",
    "KnownBias",
    "LabelGenerator",
    "LearnedSynthesis",
    "NoiseLevel",
    "NoiseRange",
    "Priors",
    "RandomAmplitudeNoise",
    "RandomShare",
    "ResidualNetwork",
    "Sigmoid",
    "Softplus",
    "Start",
    "nonparametric",
    "register",
    "residual_unet",
]
