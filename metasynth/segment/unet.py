"""The paper's segmenter: a U-Net (Ronneberger et al. 2015) in two or three dimensions."""

from collections.abc import Sequence
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from metasynth.errors import UsageError
from metasynth.segment.checkpointing import checkpointed
from metasynth.segment.instance_norm import InstanceNorm

Norm = Literal["batch", "instance"]

_CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
_BATCH_NORM: dict[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


@final
class UNet(nn.Module):
    """A U-Net that gives logits (supplement, section 8).

    Every level has two 3x3 convolutions, each followed by a ReLU. Between levels: 2x2 max-pooling on the way
    down, a transposed convolution of stride 2 on the way up, whose result is concatenated with the encoder's
    features of that level. A 1x1 convolution makes the logits. Twice differentiable; nothing works in place.

    Parameters
    ----------
    n_classes : int
        K, background included.
    ndim : int
        Number of voxel axes, 2 or 3 (3x3x3 convolutions and 2x2x2 pooling).
    in_channels : int
        Channels of the images.
    widths : sequence of int
        Channels of each level, finest first; the paper has four levels.
    norm : "batch", "instance" or None
        Normalisation between each convolution and its ReLU; the paper has none.
    generator : torch.Generator or None
        Source of the initial weights (He et al. 2015, normal; biases 0). None: torch's global stream.
    checkpoint : bool
        Compute what is inside a level again in the backward pass instead of keeping it
        (`metasynth.segment.checkpointing`): less memory for about a third more time.

    Raises
    ------
    UsageError
        (a ValueError) for an argument out of range.
    """

    def __init__(
        self,
        n_classes: int,
        ndim: int = 2,
        in_channels: int = 1,
        widths: Sequence[int] = (16, 32, 64, 128),
        norm: Norm | None = None,
        generator: torch.Generator | None = None,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        _check_arguments(n_classes, ndim, in_channels, widths, norm)
        self.n_classes = n_classes
        self.ndim = ndim
        self.in_channels = in_channels
        self.checkpoint = checkpoint
        self.stride = 2 ** (len(widths) - 1)
        self.down = _MAX_POOL[ndim](kernel_size=2)
        with torch.random.fork_rng(devices=[]):  # torch's own initial values are overwritten below
            self.encoder = nn.ModuleList()
            channels = in_channels
            for width in widths:
                self.encoder.append(_Level(channels, width, ndim, norm))
                channels = width
            self.up = nn.ModuleList()
            self.decoder = nn.ModuleList()
            for width in reversed(widths[:-1]):
                self.up.append(_TRANSPOSED[ndim](channels, width, kernel_size=2, stride=2))
                self.decoder.append(_Level(2 * width, width, ndim, norm))
                channels = width
            self.head = _CONV[ndim](channels, n_classes, kernel_size=1)
        self._initialise(generator)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, *S) of images (B, C, *S).

        Raises
        ------
        ValueError
            When `images` has another number of axes or channels, or a voxel axis is not a multiple of
            2**(levels - 1).
        """
        self._check(images)
        features = self._level(self.encoder[0], images)
        skipped = []
        for level in list(self.encoder)[1:]:
            skipped.append(features)
            features = self._level(level, self.down(features))
        for up, level, skip in zip(self.up, self.decoder, reversed(skipped), strict=True):
            features = self._level(level, torch.cat([skip, up(features)], dim=1))
        return self.head(features)

    @property
    def recipe(self) -> dict[str, Any]:
        """Plain values that the same network is made from: what a model file keeps."""
        levels: Any = self.encoder
        norm = levels[0].norms[0]
        return {
            "n_classes": self.n_classes,
            "ndim": self.ndim,
            "in_channels": self.in_channels,
            "widths": [level.convs[0].out_channels for level in levels],
            "norm": None
            if isinstance(norm, nn.Identity)
            else "instance"
            if isinstance(norm, InstanceNorm)
            else "batch",
        }

    def _level(self, level: nn.Module, features: Tensor) -> Tensor:
        return checkpointed(level, features) if self.checkpoint else level(features)

    def _check(self, images: Tensor) -> None:
        if images.ndim != self.ndim + 2 or images.shape[1] != self.in_channels:
            raise ValueError(
                f"images: must have shape (B, {self.in_channels}, *S) with {self.ndim} voxel axes, "
                f"got {tuple(images.shape)}"
            )
        if any(size % self.stride for size in images.shape[2:]):
            raise ValueError(
                f"images: every voxel axis must be a multiple of {self.stride} (this U-Net halves "
                f"{len(self.up)} times), got {tuple(images.shape[2:])}"
            )

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator | None) -> None:
        """Weights ~ N(0, gain / fan-in), gain 2 before a ReLU (He et al. 2015, Eq. 10) and 1 elsewhere."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                fan_in = module.weight[0].numel()
                gain = 1.0 if module is self.head else 2.0
            elif isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
                # Kernel and stride are equal, so an output voxel sees one input voxel.
                fan_in = module.in_channels
                gain = 1.0
            else:
                continue
            module.weight.normal_(0.0, (gain / fan_in) ** 0.5, generator=generator)
            if module.bias is not None:
                module.bias.zero_()


@final
class _Level(nn.Module):
    """Two 3x3 convolutions, each followed by an optional normalisation and a ReLU."""

    def __init__(self, in_channels: int, width: int, ndim: int, norm: Norm | None) -> None:
        super().__init__()
        # A normalisation subtracts the mean, so a bias before it would have no effect.
        conv = _CONV[ndim]
        self.convs = nn.ModuleList(
            conv(channels, width, kernel_size=3, padding=1, bias=norm is None) for channels in (in_channels, width)
        )
        self.norms = nn.ModuleList(nn.Identity() if norm is None else _make_norm(norm, ndim, width) for _ in self.convs)

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, *S) from (B, in_channels, *S)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            features = relu(norm(conv(features)))
        return features


def _make_norm(norm: Norm, ndim: int, width: int) -> nn.Module:
    if norm == "batch":
        return _BATCH_NORM[ndim](width)
    return InstanceNorm(width)


def _check_arguments(n_classes: int, ndim: int, in_channels: int, widths: Sequence[int], norm: Norm | None) -> None:
    if n_classes < 2:
        raise UsageError(f"n_classes: must be at least 2 (background and one more), got {n_classes}")
    if ndim not in _CONV:
        raise UsageError(f"ndim: must be 2 or 3, got {ndim}")
    if in_channels < 1:
        raise UsageError(f"in_channels: must be at least 1, got {in_channels}")
    if len(widths) < 1 or any(width < 1 for width in widths):
        raise UsageError(f"widths: must be one or more numbers >= 1, got {tuple(widths)}")
    norms = get_args(Norm)
    if norm is not None and norm not in norms:
        raise UsageError(f"norm: must be one of {', '.join(norms)} or None, got {norm!r}")
