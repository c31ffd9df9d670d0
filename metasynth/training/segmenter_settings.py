"""Settings of the inner problem: the segmenter's network, loss and optimiser."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self, final

import torch
from torch import Tensor, nn

from metasynth.errors import ShapeError, UsageError
from metasynth.running.settings.bounds import require_at_least
from metasynth.segment.backbones import monai_network, nnunet
from metasynth.segment.losses import cross_entropy_loss, logit_mse_loss, soft_dice_loss
from metasynth.segment.unet import UNet
from metasynth.text import RepeatedKeyError, parse_json
from metasynth.training.reach import require_rate


@final
@dataclass(frozen=True)
class Arguments:
    """Named arguments as a JSON object, such as ``{"features": [8, 16]}``."""

    NOTATION: ClassVar[str] = "a JSON object"

    text: str = "{}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """From JSON; ValueError if it is something else."""
        try:
            found = parse_json(text)
        except RepeatedKeyError:
            raise
        except (ValueError, RecursionError):  # not JSON, a number of too many digits, or too deep
            found = None
        return cls.from_json(found)

    @classmethod
    def from_json(cls, value: object) -> Self:
        """What `to_json` gave; ValueError if it is something else."""
        if not isinstance(value, dict):
            raise ValueError('must be a JSON object such as {"features": [8, 16]}')
        return cls(json.dumps(value, sort_keys=True, allow_nan=False))

    def to_json(self) -> dict[str, Any]:
        """The arguments by name."""
        found: dict[str, Any] = json.loads(self.text)
        return found


@dataclass(frozen=True)
class SegmenterSettings:
    """The inner problem: network, loss and optimiser.

    Attributes
    ----------
    widths : tuple of int
        Channels of each resolution level; four levels in the paper. nnU-Net, whose number of levels follows from the
        images, begins with the first and doubles up to the last.
    norm : {'none', 'batch', 'instance'}
        Normalisation after each convolution; none in the paper, but a network with one learns several times faster
        (docs/measurements/recovery.md). Batch normalisation makes images of a batch depend on each other.
    loss : {'dice_cross_entropy', 'dice', 'squared_dice', 'logit_mse'}
        Soft Dice with a squared denominator plus cross-entropy (nnU-Net trains with such a sum, Isensee et al. 2021),
        which tells augmentations apart much better than Dice alone (docs/measurements/recovery.md); soft Dice with a
        plain or (as in the authors' scripts) squared denominator, over all classes; or the logit regression of the
        authors' README.
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
    network : {'unet', 'nnunet', 'nnunet_residual', 'monai'}
        The paper's U-Net; nnU-Net's own network, plain or with a residual encoder, for the shape and spacing of the
        images; or a network of MONAI. The last two are optional packages (docs/reference/networks.md).
    monai : str
        Name of the class in `monai.networks.nets`, for ``network = monai``.
    monai_arguments : Arguments
        What that class is made with, a JSON object: ``{"channels": [8, 16], "strides": [2]}``. Its widths and
        normalisation are there: ``widths`` and ``norm`` stay at their defaults, or ``widths`` empty.
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
    network: Literal["unet", "nnunet", "nnunet_residual", "monai"] = "unet"
    monai: str = ""
    monai_arguments: Arguments = Arguments()

    def __post_init__(self) -> None:
        require_at_least(1, batch_size=self.batch_size, steps=self.steps)
        require_rate(lr=self.lr)
        if not 0 <= self.cooldown <= 1:
            raise ValueError(f"cooldown must be in [0, 1], got {self.cooldown}")
        self._check_network()

    def build(
        self,
        n_classes: int,
        ndim: int,
        generator: torch.Generator | None,
        shape: Sequence[int] | None = None,
        spacing_mm: Sequence[float] | None = None,
    ) -> nn.Module:
        """The network, initialised from ``generator``.

        Parameters
        ----------
        n_classes, ndim : int
            Classes, background included, and voxel axes of the images.
        generator : torch.Generator or None
            Source of the initial weights. None: torch's global stream.
        shape, spacing_mm : sequence, or None
            Voxels and mm between them along each axis; all networks but the U-Net are configured from them.

        Raises
        ------
        ShapeError
            When such images cannot go through.
        UsageError
            (a ValueError) when the network's package is missing or refuses the settings.
        """
        model: nn.Module
        if self.network == "unet":
            norm = None if self.norm == "none" else self.norm
            model = UNet(
                n_classes, ndim, widths=self.widths, norm=norm, generator=generator, checkpoint=self.checkpoint
            )
        elif shape is None or spacing_mm is None:
            raise UsageError(f"shape and spacing_mm: the network {self.network} is configured from them, got None")
        elif self.network == "monai":
            arguments = self.monai_arguments.to_json()
            model = monai_network(self.monai, n_classes, shape, generator=generator, **arguments)
        else:
            residual = self.network == "nnunet_residual"
            model = nnunet(n_classes, shape, spacing_mm, residual, self.widths[0], self.widths[-1], generator)
        if self.channels_last:
            model.to(memory_format=torch.channels_last if ndim == 2 else torch.channels_last_3d)  # type: ignore[call-overload]
        return model

    def check_images(self, n_classes: int, shape: Sequence[int], spacing_mm: Sequence[float]) -> None:
        """Require, before anything else is done, that the network can be made for such images (see `build`)."""
        if self.network != "unet":
            self._try(n_classes, shape, spacing_mm)
            return
        levels = len(self.widths)
        factor = 2 ** (levels - 1)
        if any(n % factor for n in shape):
            raise ShapeError(
                f"images of {' x '.join(map(str, shape))} cannot be halved {levels - 1} times; expected sizes "
                f"divisible by {factor} for a network of {levels} levels"
            )

    def _try(self, n_classes: int, shape: Sequence[int], spacing_mm: Sequence[float]) -> None:
        """Build the network, without taking memory unless it is of MONAI, whose constructors may compute."""
        try:
            with nullcontext() if self.network == "monai" else torch.device("meta"):
                self.build(n_classes, len(shape), None, shape, spacing_mm)
        except RuntimeError as error:
            raise UsageError(f"segmenter.widths: more than torch can count: {error}") from error

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

    def _check_network(self) -> None:
        """Require that what is set concerns the network."""
        if self.network != "monai":
            if self.monai or self.monai_arguments.to_json():
                raise ValueError(
                    f"monai and monai_arguments are for network = monai, got {self.monai!r} and "
                    f"{self.monai_arguments.text} with network = {self.network}"
                )
            require_at_least(1, levels=len(self.widths))
            require_at_least(1, widths=min(self.widths))
        if self.network == "unet":
            return
        if self.checkpoint:
            raise ValueError(f"checkpoint = true needs network = unet, got {self.network}")
        if self.norm != "instance":
            raise ValueError(f"norm must be instance with network = {self.network}, which has its own, got {self.norm}")
        if self.network == "monai":
            if not self.monai:
                raise ValueError("monai must name a class of monai.networks.nets with network = monai, got ''")
            default = next(f.default for f in fields(self) if f.name == "widths")
            if self.widths not in ((), default):
                raise ValueError(
                    "widths must be empty (widths=) with network = monai, which has its own in monai_arguments, got "
                    f"{self.widths}"
                )
        elif any(width != min(self.widths[-1], self.widths[0] * 2**k) for k, width in enumerate(self.widths)):
            raise ValueError(
                f"widths must double from the first up to the last with network = {self.network}, got {self.widths}"
            )
