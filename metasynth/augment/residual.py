"""The nonparametric augmenter: a learned residual from the image and a channel of noise (Eqs 10 and 11)."""

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from metasynth.augment.augmenter import Augmenter, Rate, check_draws
from metasynth.augment.noise import standard_normal
from metasynth.errors import ShapeError, UsageError
from metasynth.sizes import convolutions, require_memory

_START = 0.1  # weight of the coarsest noise in b; it halves from level to level
_CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_MEAN_POOL: dict[int, type[nn.AvgPool2d] | type[nn.AvgPool3d]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


@final
class ResidualNetwork(Augmenter[Tensor]):
    """x <- x + A([x, xi]) with xi ~ N(0, 1) per voxel, one channel of it beside those of x (Eqs 10 and 11).

    The noise makes of the network a random augmentation; its weights are what is learned. In units of image intensity.

    Parameters
    ----------
    network : torch.nn.Module
        A, which maps (B, C + 1, *S) to (B, C, *S), the noise in the last channel. It has to be deterministic, twice
        differentiable, and without layers that mix the images of a batch; see `residual_unet`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def draw(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The channel of noise, xi (B, 1, *S)."""
        return standard_normal(images[:, :1], generator)

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        """Images with the residual added (B, C, *S), from `images` (B, C, *S) and `draws` (B, 1, *S) of `draw`.

        Raises
        ------
        ValueError
            When the shape of `draws` does not belong to that of `images`, or the network gives another shape.
        """
        check_draws(draws, (len(images), 1, *images.shape[2:]))
        residual = self.network(torch.cat([images, draws], dim=1))
        if residual.shape != images.shape:
            raise ValueError(
                f"network: must map (B, C + 1, *S) to the shape of the images, {tuple(images.shape)}, "
                f"got {tuple(residual.shape)}"
            )
        return images + residual

    def observed(self) -> dict[str, float]:
        """Nothing: weights have no natural unit."""
        return {}

    def parameter_groups(self) -> dict[Rate, list[nn.Parameter]]:
        """The network's weights."""
        return {"weights": list(self.parameters())}

    def shown(self, images: Tensor, draws: Tensor) -> dict[str, Tensor]:
        """What the 'network' adds to `images` (B, C, *S) with `draws` (B, 1, *S)."""
        return {"network": self(images, draws) - images}


def residual_unet(
    channels: int = 1,
    ndim: int = 2,
    widths: Sequence[int] = (8, 16, 32),
    generator: torch.Generator | None = None,
) -> nn.Module:
    """A small U-Net for `ResidualNetwork`, A([x, xi]) = a + b x with a and b of its making, close to 0 at the start.

    It has no kinks: two 3x3 convolutions with SiLU per level, average pooling on the way down, a 1x1 convolution and
    linear interpolation on the way up. (Transposed convolutions of stride 2 print a checkerboard, which the segmenter
    would be trained on; Odena et al. 2016.) Every level is given the noise, averaged over its voxels and scaled to unit
    variance, and has a head, a 1x1 convolution of its features and its noise, for its part of a and b: smooth random
    changes, such as fields, would be out of reach of the finest level alone, as pooling quenches noise.

    Where a random change of mean 0 has no amplitude, its amplitude has no hypergradient on average: a network that
    starts as the identity hardly learns to be random. So this one starts as weak random fields, a = 0 and b the sum of
    the noise of all levels, each interpolated to the voxels, with weights of 0.1 for the coarsest and half as much for
    each finer one: smooth, as intensity non-uniformity is, and the more so the more levels there are.

    Parameters
    ----------
    channels : int
        C, of the images; the network takes C + 1 and gives C.
    ndim : int
        Number of voxel axes, 2 or 3.
    widths : sequence of int
        Channels of each level, finest first. For images that pass `check_halvings`.
    generator : torch.Generator or None
        Source of the initial weights (normal, biases 0). None: torch's global stream.

    Raises
    ------
    UsageError
        (a ValueError) for an argument out of range.
    """
    if channels < 1:
        raise UsageError(f"channels: must be at least 1, got {channels}")
    if ndim not in _CONV:
        raise UsageError(f"ndim: must be 2 or 3, got {ndim}")
    if len(widths) < 1 or any(width < 1 for width in widths):
        raise UsageError(f"widths: must be one or more numbers >= 1, got {tuple(widths)}")
    require_memory(convolutions(widths, ndim, (), 0), "an augmenting network", "widths")
    with torch.random.fork_rng(devices=[]):  # torch's own initial values are overwritten below
        network = _UNet(channels, ndim, widths)
    _initialise(network, generator)
    return network


def check_halvings(widths: Sequence[int], shape: Sequence[int]) -> None:
    """Raise `ShapeError` unless a `residual_unet` of ``widths`` takes images of ``shape`` voxels.

    Every axis must be a multiple of 2**(levels - 1).
    """
    stride = 2 ** (len(widths) - 1)
    if any(size % stride for size in shape):
        raise ShapeError(
            f"images of {' x '.join(map(str, shape))} cannot be halved {len(widths) - 1} times; expected sizes "
            f"divisible by {stride} for an augmenting network of {len(widths)} levels"
        )


@final
class _UNet(nn.Module):
    def __init__(self, channels: int, ndim: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.in_channels = channels + 1
        self.ndim = ndim
        self.widths = tuple(widths)
        self.levels = _Level(channels, widths, ndim, 2 * channels)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *S) from (B, C + 1, *S)."""
        if images.ndim != self.ndim + 2 or images.shape[1] != self.in_channels:
            raise ValueError(
                f"images: must have {self.in_channels - 1} channels and {self.ndim} voxel axes for this network, got "
                f"{images.shape[1] - 1} and {images.ndim - 2}"
            )
        check_halvings(self.widths, images.shape[2:])
        clean, noise = images[:, :-1], images[:, -1:]
        added, gain = self.levels(clean, noise)[1].chunk(2, dim=1)
        return added + gain * clean


@final
class _Level(nn.Module):
    """One level and, inside of it, all that are coarser."""

    def __init__(self, in_channels: int, widths: Sequence[int], ndim: int, out: int) -> None:
        super().__init__()
        width = widths[0]
        self.head = _CONV[ndim](width + 1, out, kernel_size=1)
        self.before = _Convolutions(in_channels + 1, width, ndim)
        self.coarser: _Level | None = None
        if len(widths) > 1:
            self.pool = _MEAN_POOL[ndim](kernel_size=2)
            self.coarser = _Level(width, widths[1:], ndim, out)
            self.up = _CONV[ndim](widths[1], width, kernel_size=1)
            self.doubled = _Doubled()
            self.after = _Convolutions(2 * width, width, ndim)
        self.gain = 2 ** (ndim / 2)

    def forward(self, features: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, width, *S) and output (B, out, *S) from (B, in_channels, *S) and unit noise (B, 1, *S)."""
        here = self.before(torch.cat([features, noise], dim=1))
        if self.coarser is None:
            return here, self.head(torch.cat([here, noise], dim=1))
        # The mean of 2**ndim independent voxels, back at unit variance.
        coarse, output = self.coarser(self.pool(here), self.gain * self.pool(noise))
        found = self.after(torch.cat([here, self.doubled(self.up(coarse))], dim=1))
        return found, self.head(torch.cat([found, noise], dim=1)) + self.doubled(output)


@final
class _Doubled(nn.Module):
    """Twice the voxels along each axis, by linear interpolation.

    As products with constant matrices: on a GPU, gradients of torch's own interpolation are sums in no fixed order, so
    that a run would not be the same twice.
    """

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, 2 S...) from (B, C, S...)."""
        for axis in range(2, features.ndim):
            units = torch.eye(features.shape[axis], dtype=features.dtype, device=features.device)
            weights = interpolate(units[None], scale_factor=2, mode="linear")[0]  # (n, 2 n)
            features = (features.movedim(axis, -1) @ weights).movedim(-1, axis)
        return features


@final
class _Convolutions(nn.Module):
    """Two 3x3 convolutions, each followed by a SiLU."""

    def __init__(self, in_channels: int, width: int, ndim: int) -> None:
        super().__init__()
        self.first = _CONV[ndim](in_channels, width, kernel_size=3, padding=1)
        self.second = _CONV[ndim](width, width, kernel_size=3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, *S) from (B, in_channels, *S)."""
        return silu(self.second(silu(self.first(features))))


@torch.no_grad()
def _initialise(network: _UNet, generator: torch.Generator | None) -> None:
    """Weights ~ N(0, gain / fan-in), gain 2 before a SiLU (that of He et al. 2015 for a ReLU), else 1; biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            gain = 1.0 if max(module.kernel_size) == 1 else 2.0  # 1x1: on the way up, with no SiLU behind it
            module.weight.normal_(0.0, math.sqrt(gain / module.weight[0].numel()), generator=generator)
            if module.bias is not None:
                module.bias.zero_()
    levels: list[_Level] = [module for module in network.modules() if isinstance(module, _Level)]
    for halvings, level in enumerate(reversed(levels)):  # from the coarsest
        level.head.weight.zero_()
        of_b = level.head.weight.chunk(2)[1]
        of_b[:, -1] = _START / 2**halvings
