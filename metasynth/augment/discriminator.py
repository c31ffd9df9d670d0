"""The opponent of a generator: a convolutional network that tells synthetic images from real ones, patch by patch."""

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch.nn.utils.parametrizations import spectral_norm

from metasynth.errors import UsageError

_CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_SLOPE = 0.2


@final
class Discriminator(nn.Module):
    """Scores of patches, high where they look real; every layer has a spectral norm of 1 (Miyato et al., ICLR
    2018).

    A 3x3 convolution, for each further width a 4x4 convolution of stride 2, and a 3x3 convolution that gives one score;
    leaky ReLUs in between. No layer but the last sees beyond its patch, so where in the image a brain lies does not
    matter. In training mode a pass makes one power iteration, which moves buffers; in evaluation mode none.

    Parameters
    ----------
    ndim : int
        Number of voxel axes, 2 or 3.
    widths : sequence of int
        Channels, finest first; every one but the first halves the resolution.
    generator : torch.Generator or None
        Source of the initial weights (He et al. 2015, normal; biases 0) and of the first singular vectors. None:
        torch's global stream.
    gain : float
        What scores are multiplied by. Normalised layers alone give scores near 0, at which a loss is all but linear and
        the network tells means from means only.

    Raises
    ------
    UsageError
        (a ValueError) for an argument out of range.
    """

    def __init__(
        self,
        ndim: int = 2,
        widths: Sequence[int] = (16, 32, 64),
        generator: torch.Generator | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        if ndim not in _CONV:
            raise UsageError(f"ndim: must be 2 or 3, got {ndim}")
        if len(widths) < 1 or min(widths) < 1:
            raise UsageError(f"widths: must be one or more numbers >= 1, got {tuple(widths)}")
        if not 0 < gain < math.inf:
            raise UsageError(f"gain: must be positive and finite, got {gain}")
        self.ndim, self.gain = ndim, gain
        self.stride = 2 ** (len(widths) - 1)
        conv, layers = _CONV[ndim], []
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            for number, (before, width) in enumerate(zip((1, *widths), (*widths, 1), strict=True)):
                halves = 0 < number < len(widths)
                layer = conv(before, width, kernel_size=4 if halves else 3, stride=2 if halves else 1, padding=1)
                nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / layer.weight[0].numel()))
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
                layers.append(spectral_norm(layer))
        self.layers = nn.ModuleList(layers)

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B, 1, *s) of images (B, 1, *S), s = S / 2**(len(widths) - 1).

        Raises
        ------
        ValueError
            When ``images`` has another number of axes or channels, or an axis cannot be halved.
        """
        shape = tuple(images.shape)
        if len(shape) != self.ndim + 2 or shape[1] != 1 or any(size % self.stride for size in shape[2:]):
            raise ValueError(
                f"images: must have shape (B, 1, *S) with {self.ndim} voxel axes, each a multiple of {self.stride}, "
                f"got {shape}"
            )
        *layers, last = self.layers
        for layer in layers:
            images = leaky_relu(layer(images), _SLOPE)
        scores: Tensor = self.gain * last(images)
        return scores
