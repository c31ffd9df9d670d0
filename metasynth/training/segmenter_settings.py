"""Settings of the inner problem: the segmenter's network, loss and optimiser."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, cast, get_args

import torch
from torch import Tensor, nn

from metasynth.errors import MetasynthError, UsageError
from metasynth.running.settings.arguments import NO_ARGUMENTS, Arguments
from metasynth.running.settings.bounds import require_at_least
from metasynth.running.settings.config import field_types
from metasynth.running.settings.renamed import Renamed
from metasynth.running.settings.values import OneOf, from_json
from metasynth.segment.entry import Design, NetworkSettings, Segmenter, Setting
from metasynth.segment.losses import cross_entropy_loss, logit_mse_loss, soft_dice_loss
from metasynth.segment.model_file import BY_FILE, find_model, load_model
from metasynth.segment.table import entry_of, names, settings_of
from metasynth.synthesis.parts.patches import Patches
from metasynth.training.reach import require_rate

_OF_NETWORKS = get_args(Setting)


def network_of(network: nn.Module) -> dict[str, Any]:
    """The settings of a model's network, as far as its weights depend on them."""
    hints, found = field_types(SegmenterSettings), settings_of(cast(Segmenter, network).recipe)
    return {name: from_json(hints[name], value, f"segmenter.{name}") for name, value in found.items()}


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
        Synthetic images a step, or patches of them.
    patch_size : tuple of int
        Voxels along each axis of the patches of volumes that steps are taken on: one number, or three. Empty: whole.
    patch_foreground : float
        Share of the patches that are about a structure (`metasynth.synthesis.parts.patches.Patches`).
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
    network : str
        Which network: the paper's U-Net, nnU-Net's own (plain or with a residual encoder) for the shape and spacing of
        the images, one of MONAI, or one from outside the package (docs/reference/networks.md).
    network_arguments : Arguments
        What only that network has, a JSON object: of MONAI the class and what it is made with, as in
        ``{"class": "UNet", "channels": [8, 16], "strides": [2]}``.
    start : str
        Model whose weights training begins with: a file, or a run's folder that holds one. Empty: new weights. With it
        the network becomes that of the model, unless other settings of it are given too, which must then be the same.

    Notes
    -----
    Each network has a line in the table `metasynth.segment.table`, which says what of ``widths``, ``norm``,
    ``checkpoint`` and ``network_arguments`` it takes; what it does not take is left at its default, or ``widths``
    empty. A change of the network takes them back there itself (`implied_by`). The first three stay beside the
    settings of training, though they are of networks, because several networks take them, and every preset, run and
    script has them by these names.
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
    network: Annotated[str, OneOf(names)] = "unet"
    network_arguments: Arguments = NO_ARGUMENTS
    patch_size: tuple[int, ...] = ()
    patch_foreground: float = 1 / 3
    start: str = ""

    ADDED: ClassVar[Mapping[str, Any]] = {"patch_size": [], "patch_foreground": 1 / 3, "start": ""}
    RENAMED: ClassVar[Mapping[str, Renamed]] = {
        "monai": Renamed("network_arguments", str, Arguments.of_class),
        "monai_arguments": Renamed("network_arguments", Arguments, Arguments.made_with),
    }

    def __post_init__(self) -> None:
        require_at_least(1, batch_size=self.batch_size, steps=self.steps)
        require_rate(lr=self.lr)
        for name in ("cooldown", "patch_foreground"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if len(self.patch_size) not in (0, 1, 3) or min(self.patch_size, default=1) < 1:
            raise ValueError(f"patch_size must be empty, or 1 or 3 numbers of at least 1, got {self.patch_size}")
        entry_of(self.network).check_settings(self._network_settings)

    @property
    def patches(self) -> Patches | None:
        """Where the patches are; None: steps are taken on whole images."""
        return Patches(self.window, self.patch_foreground) if self.patch_size else None

    @property
    def window(self) -> tuple[int, ...]:
        """Voxels along each of 3 axes of what the segmenter is given at once; empty: whole images."""
        return self.patch_size * 3 if len(self.patch_size) == 1 else self.patch_size

    def implied_by(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The network of a model to start from comes with it. What another network does not take of what was set for
        this one goes back to its default with the change.
        """
        start = changes.get("start")
        own = network_of(load_model(find_model(start, choose=BY_FILE)).network) if start else {}
        chosen = changes.get("network", own.get("network", self.network))
        if chosen != own.get("network"):
            own = {}
        if chosen == self.network:
            return own
        takes = entry_of(chosen).takes
        return {f.name: f.default for f in fields(self) if f.name in _OF_NETWORKS and f.name not in takes} | own

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
        model = entry_of(self.network).made(self._design(n_classes, ndim, generator, shape or (), spacing_mm or ()))
        if self.channels_last:
            model.to(memory_format=torch.channels_last if ndim == 2 else torch.channels_last_3d)  # type: ignore[call-overload]
        return model

    def check_images(self, n_classes: int, shape: Sequence[int], spacing_mm: Sequence[float]) -> None:
        """Require, before anything else is done, that the network can be made for such images (see `build`)."""
        try:
            entry_of(self.network).check_images(self._design(n_classes, len(shape), None, shape, spacing_mm))
        except MetasynthError:
            raise
        except RuntimeError as error:
            raise UsageError(f"segmenter.{self.sized_by}: more than torch can count: {error}") from error

    @property
    def sized_by(self) -> str:
        """The setting that the network's size follows from."""
        return entry_of(self.network).sized_by

    def optimizer(self, model: nn.Module) -> torch.optim.Adam:
        """Adam on the model's parameters."""
        return torch.optim.Adam(model.parameters(), lr=self.lr)

    def rate_at(self, step: int) -> float:
        """What the learning rate is multiplied by at inner step ``step`` (from 0)."""
        left, falling = self.steps - step, self.cooldown * self.steps
        return 1.0 if left >= falling else left / falling

    def loss_of(self, logits: Tensor, labels: Tensor, total: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The loss of logits (B, K, *S) against labels (B, *S).

        ``total`` sums over the processes that share a batch, see `soft_dice_loss`; the mean over them is then the loss
        of the batch.
        """
        if self.loss == "logit_mse":
            return logit_mse_loss(logits, labels)
        dice = soft_dice_loss(logits, labels, squared=self.loss != "dice", batch=self.dice_over == "batch", total=total)
        return dice + cross_entropy_loss(logits, labels) if self.loss == "dice_cross_entropy" else dice

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """What `torch.autocast` rounds to, or None."""
        return None if self.autocast == "none" else torch.bfloat16

    @property
    def _network_settings(self) -> NetworkSettings:
        return NetworkSettings(self.widths, self.norm, self.checkpoint, self.network_arguments.to_json())

    def _design(
        self,
        n_classes: int,
        ndim: int,
        generator: torch.Generator | None,
        shape: Sequence[int],
        spacing_mm: Sequence[float],
    ) -> Design:
        return Design(n_classes, ndim, tuple(shape), tuple(spacing_mm), generator, self._network_settings)
