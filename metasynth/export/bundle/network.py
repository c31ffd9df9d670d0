"""A U-Net (Ronneberger et al. 2015) in two or three dimensions, whose weights are those of metasynth's."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class UNet(nn.Module):
    """Images (B, C, *S) to logits (B, K, *S); every length of S is a multiple of 2^(levels - 1).

    Parameters
    ----------
    n_classes : int
        K, background included.
    ndim : int
        Number of axes of S, 2 or 3.
    in_channels : int
        C.
    widths : sequence of int
        Channels of each level, finest first.
    norm : "batch", "instance" or None
        Between each convolution and its ReLU.
    """

    def __init__(
        self, n_classes: int, ndim: int, in_channels: int, widths: Sequence[int], norm: str | None = None
    ) -> None:
        super().__init__()
        self.down = POOL[ndim](2)
        before = (in_channels, *widths[:-1])
        self.encoder = nn.ModuleList(Level(c, width, ndim, norm) for c, width in zip(before, widths, strict=True))
        pairs = [(widths[k + 1], widths[k]) for k in reversed(range(len(widths) - 1))]
        self.up = nn.ModuleList(TRANSPOSED[ndim](deep, width, kernel_size=2, stride=2) for deep, width in pairs)
        self.decoder = nn.ModuleList(Level(2 * width, width, ndim, norm) for _, width in pairs)
        self.head = CONV[ndim](widths[0], n_classes, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, *S)."""
        features, skipped = self.encoder[0](images), []
        for level in list(self.encoder)[1:]:
            skipped.append(features)
            features = level(self.down(features))
        for up, level, skip in zip(self.up, self.decoder, reversed(skipped), strict=True):
            features = level(torch.cat([skip, up(features)], dim=1))
        return self.head(features)


class Level(nn.Module):
    """Two convolutions of 3 voxels, each followed by an optional normalisation and a ReLU."""

    def __init__(self, in_channels: int, width: int, ndim: int, norm: str | None) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            CONV[ndim](channels, width, kernel_size=3, padding=1, bias=norm is None)
            for channels in (in_channels, width)
        )
        self.norms = nn.ModuleList(normalisation(norm, ndim, width) for _ in range(2))

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, *S) from (B, in_channels, *S)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            features = torch.relu(norm(conv(features)))
        return features


def normalisation(norm: str | None, ndim: int, width: int) -> nn.Module:
    """One of the three, of (B, width, *S)."""
    if norm is None:
        return nn.Identity()
    return BATCH_NORM[ndim](width) if norm == "batch" else nn.GroupNorm(width, width)
