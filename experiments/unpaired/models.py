"""The two networks of unpaired learning and their losses (supplement, section 10): settings and makers."""

from dataclasses import dataclass
from typing import Literal

import torch
from metasynth.experiments.unpaired.methods import VARIANTS, method_of
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from metasynth.augment.class_intensity import ClassIntensities
from metasynth.augment.discriminator import Discriminator
from metasynth.augment.entry import Start
from metasynth.augment.label_generator import LabelGenerator
from metasynth.augment.table import entry_of
from metasynth.running.seeding import generator_for
from metasynth.training.reach import require_rate


@dataclass(frozen=True)
class DiscriminatorSettings:
    """The inner problem: what tells synthetic images from scans.

    Attributes
    ----------
    widths : tuple of int
        Channels, finest first; see `metasynth.augment.discriminator.Discriminator`.
    gain : float
        What its scores are multiplied by; likewise.
    loss : {'logistic', 'hinge'}
        Loss of its scores: softplus(-D) for what is to look real and softplus(D) for what is to look fake, or
        max(0, 1 - D) and max(0, 1 + D).
    lr : float
        Learning rate of Adam.
    betas : tuple of two float
        Decay of its first and second moments; the first is short, as the generator moves.
    batch_size : int
        Synthetic images a step, and as many scans.
    steps : int
        Inner steps of the two together.
    """

    widths: tuple[int, ...] = (16, 32, 64)
    gain: float = 5.0
    loss: Literal["logistic", "hinge"] = "logistic"
    lr: float = 2e-3
    betas: tuple[float, float] = (0.5, 0.9)
    batch_size: int = 8
    steps: int = 600

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"widths must list at least one number >= 1, got {self.widths}")
        if not self.gain > 0:
            raise ValueError(f"gain must be positive, got {self.gain}")
        if not self.lr > 0 or self.batch_size < 1 or self.steps < 1:
            got = f"{self.lr}, {self.batch_size} and {self.steps}"
            raise ValueError(f"lr must be positive, batch_size and steps at least 1, got {got}")
        require_rate(lr=self.lr)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1), got {self.betas}")

    def build(self, ndim: int, seed: int) -> Discriminator:
        """The network, initialised from the run's seed."""
        return Discriminator(ndim, self.widths, generator_for(seed, "discriminator"), self.gain)

    def optimizer(self, model: nn.Module) -> torch.optim.Adam:
        """Adam on the network's parameters."""
        return torch.optim.Adam(model.parameters(), lr=self.lr, betas=self.betas)

    def looks_real(self, scores: Tensor) -> Tensor:
        """The loss, a scalar, of scores that are to be high."""
        return self.looks_fake(-scores)

    def looks_fake(self, scores: Tensor) -> Tensor:
        """The loss, a scalar, of scores that are to be low."""
        return (softplus(scores) if self.loss == "logistic" else relu(1 + scores)).mean()


@dataclass(frozen=True)
class AdversarialSettings:
    """The outer loss, taken at the updated discriminator: weights of its two terms, each at least 0.

    Attributes
    ----------
    synthetic : float
        Synthetic images are to look real: the usual loss of a generator.
    real : float
        Scans are to look fake, which the generator can bring about through the update alone (the hypergradient).
    tail : float
        Fraction of the steps, at the end, over which the generator's weights are averaged; in (0, 1].
    """

    synthetic: float = 1.0
    real: float = 1.0
    tail: float = 0.25

    def __post_init__(self) -> None:
        if min(self.synthetic, self.real) < 0 or not self.synthetic + self.real > 0:
            raise ValueError(
                f"synthetic and real must be at least 0 and not both 0, got {self.synthetic} and {self.real}"
            )
        if not 0 < self.tail <= 1:
            raise ValueError(f"tail must be in (0, 1], got {self.tail}")


@dataclass(frozen=True)
class GeneratorSettings:
    """Where the generators start, and the network of those that have one.

    Attributes
    ----------
    mean : float
        Mean intensity of every class; see `metasynth.augment.class_intensity.ClassIntensities`.
    spread : float
        Standard deviation of a class's intensity between images.
    texture : float
        Standard deviation of the texture within a class.
    blur : float
        Standard deviation of the blur, in voxels.
    grain : int
        Voxels from node to node of the texture.
    sigma : float
        Standard deviation of the noise, in units of intensity.
    exponent : float
        Exponent of each field, in (0, 1).
    nodes : tuple of int
        Nodes per axis of the fields' grids.
    network : tuple of int
        Channels of each level of the network.
    """

    mean: float = 0.5
    spread: float = 0.25
    texture: float = 0.05
    blur: float = 0.4
    grain: int = 3
    sigma: float = 0.05
    exponent: float = 0.1
    nodes: tuple[int, ...] = (2, 4)
    network: tuple[int, ...] = (8, 16)

    def __post_init__(self) -> None:
        for variant in VARIANTS:
            self.build(variant, 2, 2, 0)

    def build(self, variant: str, n_classes: int, ndim: int, seed: int) -> LabelGenerator:
        """The learned generator of a method at its start.

        Raises
        ------
        UsageError
            (a ValueError) when a start is out of range, the method has none, or its augmenter takes structures.
        RunError
            When its augmenter cannot be made.
        """
        method = method_of(variant)
        contrast = None
        if method.learned_contrast:
            contrast = ClassIntensities(n_classes, ndim, self.mean, self.spread, self.texture, self.blur, self.grain)
        weights = generator_for(seed, "augmenter")
        start = Start(
            ndim, weights, self.sigma, self.exponent, self.nodes, self.network, self.blur, structures=n_classes
        )
        return LabelGenerator(contrast, entry_of(method.augmenter).made(start))
