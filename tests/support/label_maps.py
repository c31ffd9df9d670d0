"""Label maps that tests of generators share."""

import torch
from torch import Tensor


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shells(classes: int, *size: int) -> Tensor:
    """Nested ellipsoids of labels 1..K-1 in background, (*size)."""
    axes = [torch.linspace(-1, 1, n) for n in size]
    radius = torch.stack(torch.meshgrid(*axes, indexing="ij")).norm(dim=0)
    return ((classes + 1) * (1 - radius)).long().clamp(0, classes - 1)


def batch(n: int, *size: int, classes: int = 5) -> Tensor:
    """Shells, each moved a little from the one before, (n, *size)."""
    labels = shells(classes, *size)
    return torch.stack([labels.roll(2 * i, dims=0) for i in range(n)])


def patchwork(n: int, size: int, classes: int, seed: int = 0) -> Tensor:
    """Random patches of all classes in an ellipse of 7/10 and 17/20 of the field of view, (n, size, size)."""
    fields = torch.randn(n, classes - 1, size, size, generator=seeded(seed))
    window = torch.signal.windows.gaussian(size // 2 + 1, std=size / 16)
    for axis in (2, 3):
        kernel = window.reshape([1, 1, -1, 1] if axis == 2 else [1, 1, 1, -1]).repeat(classes - 1, 1, 1, 1)
        fields = torch.nn.functional.conv2d(fields, kernel, padding="same", groups=classes - 1)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    return torch.where((x / 0.7) ** 2 + (y / 0.85) ** 2 < 1, 1 + fields.argmax(1), 0)
