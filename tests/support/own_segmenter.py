"""A segmenter as a user of the package might write one: it knows nothing of the package."""

import torch
from torch import Tensor, nn


class DilatedAttention(nn.Module):
    """Dilated convolutions with group normalisation, and attention between coarse voxels."""

    def __init__(self, n_classes: int, width: int = 4) -> None:
        super().__init__()
        self.inward = nn.Conv2d(1, width, 3, padding=1)
        self.dilated = nn.ModuleList(nn.Conv2d(width, width, 3, padding=d, dilation=d) for d in (1, 2))
        self.norms = nn.ModuleList(nn.GroupNorm(2, width) for _ in self.dilated)
        self.attended = nn.Linear(width, 3 * width)
        self.outward = nn.Conv2d(width, n_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W) of images (B, 1, H, W)."""
        features = self.inward(images)
        for conv, norm in zip(self.dilated, self.norms, strict=True):
            features = features + nn.functional.silu(norm(conv(features)))
        coarse = nn.functional.avg_pool2d(features, 4)
        queries, keys, values = self.attended(coarse.flatten(2).mT).chunk(3, dim=-1)
        weights = torch.softmax(queries @ keys.mT / keys.shape[-1] ** 0.5, dim=-1)
        mixed = (weights @ values).mT.unflatten(2, coarse.shape[2:])
        return self.outward(features + nn.functional.interpolate(mixed, features.shape[2:], mode="bilinear"))
