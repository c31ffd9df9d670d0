"""Settings that studies share: the segmenter's training and the outer level."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from metasynth.augment.residual import ResidualNetwork
from metasynth.bilevel.finite_difference import FiniteDifference
from metasynth.bilevel.forward import Forward
from metasynth.bilevel.mixed import Mixed
from metasynth.bilevel.outer_step import PERSISTENT, OuterStep
from metasynth.bilevel.parts import InParts
from metasynth.bilevel.product import ProductStrategy
from metasynth.segment.losses import cross_entropy_loss, logit_mse_loss, soft_dice_loss
from metasynth.segment.unet import UNet

_STRATEGIES: dict[str, ProductStrategy] = {
    "mixed": Mixed(),
    "forward": Forward(),
    "finite_difference": FiniteDifference(),
}


@dataclass(frozen=True)
class SegmenterSettings:
    """The inner problem: network, loss and optimiser.

    Attributes
    ----------
    widths : tuple of int
        Channels of each resolution level; four levels in the paper.
    norm : {'none', 'batch', 'instance'}
        Normalisation after each convolution; none in the paper, but a network with one learns several times faster
        (docs/recovery.md). Batch normalisation makes images of a batch depend on each other.
    loss : {'dice_cross_entropy', 'dice', 'squared_dice', 'logit_mse'}
        Soft Dice with a squared denominator plus cross-entropy (nnU-Net trains with such a sum, Isensee et al. 2021),
        which tells augmentations apart much better than Dice alone (docs/recovery.md); soft Dice with a plain or (as
        in the authors' scripts) squared denominator, over all classes; or the logit regression of the authors' README.
    dice_over : {'batch', 'image'}
        Whether soft Dice sums over the voxels of the whole batch, or of each image and averages over images. Only the
        latter is a mean over samples, which ``outer.samples`` and ``outer.chunk`` need.
    lr : float
        Learning rate of Adam.
    batch_size : int
        Synthetic images a step.
    steps : int
        Inner steps.
    cooldown : float
        Fraction of the steps, at the end, over which the learning rate falls linearly to 0 (none in the paper).
    channels_last : bool
        Keep weights (and so activations) with the channels innermost: the same numbers up to rounding, faster on CPUs
        and on GPUs with tensor cores.
    checkpoint : bool
        Compute the insides of each level again in the backward pass: less memory, about a third more time.
    autocast : {'none', 'bfloat16'}
        Precision of forward passes; weights and optimiser states are float32 either way.
    """

    widths: tuple[int, ...] = (16, 32, 64, 128)
    norm: Literal["none", "batch", "instance"] = "instance"
    loss: Literal["dice_cross_entropy", "dice", "squared_dice", "logit_mse"] = "dice_cross_entropy"
    dice_over: Literal["batch", "image"] = "batch"
    lr: float = 5e-3
    batch_size: int = 8
    steps: int = 1000
    cooldown: float = 0.0
    channels_last: bool = True
    checkpoint: bool = False
    autocast: Literal["none", "bfloat16"] = "none"

    def __post_init__(self) -> None:
        _require_at_least(1, batch_size=self.batch_size, steps=self.steps, levels=len(self.widths))
        _require_at_least(1, widths=min(self.widths))
        _require_positive(lr=self.lr)
        if not 0 <= self.cooldown <= 1:
            raise ValueError(f"cooldown must be in [0, 1], got {self.cooldown}")

    def build(self, n_classes: int, ndim: int, generator: torch.Generator) -> UNet:
        """The paper's U-Net with these widths, initialised from ``generator``."""
        norm = None if self.norm == "none" else self.norm
        model = UNet(
            n_classes, ndim=ndim, widths=self.widths, norm=norm, generator=generator, checkpoint=self.checkpoint
        )
        if self.channels_last:
            model.to(memory_format=torch.channels_last if ndim == 2 else torch.channels_last_3d)  # type: ignore[call-overload]
        return model

    def optimizer(self, model: nn.Module) -> torch.optim.Adam:
        """Adam on the model's parameters."""
        return torch.optim.Adam(model.parameters(), lr=self.lr)

    def rate_at(self, step: int) -> float:
        """What the learning rate is multiplied by at inner step ``step`` (from 0)."""
        left, falling = self.steps - step, self.cooldown * self.steps
        return 1.0 if left >= falling else left / falling

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of logits (B, K, *S) against labels (B, *S)."""
        if self.loss == "logit_mse":
            return logit_mse_loss(logits, labels)
        dice = soft_dice_loss(logits, labels, squared=self.loss != "dice", batch=self.dice_over == "batch")
        return dice + cross_entropy_loss(logits, labels) if self.loss == "dice_cross_entropy" else dice

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """What `torch.autocast` rounds to, or None."""
        return None if self.autocast == "none" else torch.bfloat16


@dataclass(frozen=True)
class OuterSettings:
    """The outer problem: when a hypergradient is taken and what is made of it.

    Attributes
    ----------
    lr : float
        Learning rate of Adam on the unconstrained outer parameters.
    network_lr : float
        The same for the weights of an augmenting network.
    betas : tuple of two float
        Decay of its first and second moments. The second is fast, as the scale of hypergradients falls a hundredfold
        while a parameter travels: a mean over a hundred steps would hold it back for hundreds more.
    batch_size : int
        Real images a hypergradient (and as many in the reference batch): their number is what its noise depends on.
    warmup : int
        Inner steps before the first hypergradient.
    every : int
        A hypergradient at every ``every``-th inner step from then on; one costs about seven plain steps here.
    reference : bool
        Subtract from the real gradient that of a fresh synthetic batch; see
        `metasynth.bilevel.hypergradient.hypergradient`.
    memory, clip, average :
        See `metasynth.bilevel.outer_step.OuterStep`; a clip of 0 means none.
    strategy : {'mixed', 'forward', 'finite_difference'}
        How the mixed second derivative is computed; see `metasynth.bilevel`.
    samples, chunk : int
        See `metasynth.bilevel.parts.InParts`; 0 means all.
    hold : int
        Outer steps at the full rate, in which the parameters travel to where they belong.
    settle : int
        At outer step t from then on the rate is ``settle`` / (``settle`` + t - ``hold``) of it (Robbins & Monro 1951),
        so that the last values rest on all draws and not on the latest alone. 0: the rate never falls.
    """

    lr: float = 0.05
    network_lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    batch_size: int = 16
    warmup: int = PERSISTENT.warmup
    every: int = 3
    reference: bool = True
    memory: float = PERSISTENT.memory
    clip: float = PERSISTENT.clip or 0.0
    average: int = PERSISTENT.average
    hold: int = 100
    settle: int = 20
    strategy: Literal["mixed", "forward", "finite_difference"] = "mixed"
    samples: int = 0
    chunk: int = 0

    def __post_init__(self) -> None:
        _require_positive(lr=self.lr, network_lr=self.network_lr)
        _require_at_least(1, batch_size=self.batch_size, every=self.every)
        _require_at_least(
            0, warmup=self.warmup, hold=self.hold, settle=self.settle, samples=self.samples, chunk=self.chunk
        )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1), got {self.betas}")
        self.step_options()

    def step_options(self) -> OuterStep:
        """The options of the solver's outer step."""
        return OuterStep(
            average=self.average,
            clip=self.clip or None,
            memory=self.memory,
            warmup=self.warmup,
            every=self.every,
        )

    def hypergradient_strategy(self) -> ProductStrategy:
        """The strategy, in parts where that is asked for."""
        strategy = _STRATEGIES[self.strategy]
        if self.samples == self.chunk == 0:
            return strategy
        return InParts(strategy, self.samples or None, self.chunk or None)

    def optimizer(self, augmenter: nn.Module) -> torch.optim.Adam:
        """Adam on the augmenter's parameters, those of networks in a group of their own."""
        networks = [m.network for m in augmenter.modules() if isinstance(m, ResidualNetwork)]
        weights = {id(p): p for network in networks for p in network.parameters()}
        others = [p for p in augmenter.parameters() if id(p) not in weights]
        groups = [{"params": others, "lr": self.lr}, {"params": list(weights.values()), "lr": self.network_lr}]
        return torch.optim.Adam([group for group in groups if group["params"]], lr=self.lr, betas=self.betas)

    def is_due(self, step: int) -> bool:
        """Whether inner step ``step`` (from 0) takes a hypergradient."""
        return self.step_options().is_due(step)

    def outer_steps(self, steps: int) -> int:
        """Outer steps in ``steps`` inner steps."""
        return sum(map(self.is_due, range(steps))) // self.average

    def rate_at(self, step: int) -> float:
        """What the learning rates are multiplied by at inner step ``step`` (from 0)."""
        falling = (step - self.warmup) // (self.every * self.average) - self.hold
        return 1.0 if self.settle == 0 or falling <= 0 else self.settle / (self.settle + falling)


def _require_at_least(bound: int, **values: int) -> None:
    for name, value in values.items():
        if value < bound:
            raise ValueError(f"{name} must be at least {bound}, got {value}")


def _require_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")
