"""Learned augmentation: the tilt, gain and noise of someone else's camera, from photographs of digits.

A classifier is trained on scikit-learn's digits, upright and clean. The loss on photographs, tilted by 20 degrees,
dimmer and noisy, is differentiated through three of its steps, and teaches a camera that the digits are passed through.
"""

from itertools import cycle

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers.problem import Problem

QUESTION = "augmentation of digits: tilt, gain and noise, 3 steps of SGD of a convolutional network"

Batch = tuple[Tensor, Tensor, Tensor]
"""Images (B, 1, 8, 8), labels (B,), and standard normal draws like the images."""


class Camera(nn.Module):
    """θ (3,): the tilt in tens of degrees, and the logarithms of gain and noise."""

    def __init__(self, tilt: float, gain: float, noise: float, dtype: torch.dtype) -> None:
        super().__init__()
        values = torch.tensor([tilt / 10, gain, noise], dtype=dtype)
        values[1:] = values[1:].log()
        self.values = nn.Parameter(values)

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        """The photographs (B, 1, 8, 8) that it takes of images."""
        tilt, gain, noise = self.values
        cos, sin = (f(torch.deg2rad(10 * tilt)) for f in (torch.cos, torch.sin))
        turn = torch.stack([cos, -sin, 0 * cos, sin, cos, 0 * cos]).view(1, 2, 3).expand(len(images), 2, 3)
        grid = F.affine_grid(turn, list(images.shape), align_corners=False)
        return gain.exp() * F.grid_sample(images, grid, align_corners=False) + noise.exp() * draws


def inner_loss(model: nn.Module, outer: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy on augmented digits."""
    return F.cross_entropy(model(outer(batch[0], batch[2])), batch[1])


def outer_loss(model: nn.Module, outer: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy on photographs as they are."""
    return F.cross_entropy(model(batch[0]), batch[1])


def make(tiny: bool, dtype: torch.dtype) -> Problem:
    """Eight batches of each kind, which come round again."""
    size, width = (6, 3) if tiny else (50, 16)
    generator = torch.Generator().manual_seed(0)
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=generator)[: 16 * size]
    images, labels = torch.tensor(digits.images / 16, dtype=dtype)[order, None], torch.tensor(digits.target)[order]
    draws = torch.randn(images.shape, generator=generator, dtype=torch.float64).to(dtype)
    parts = list(zip(images.split(size), labels.split(size), draws.split(size), strict=True))
    truth = Camera(20.0, 0.6, 0.2, dtype)
    with torch.no_grad():
        photographs = [(truth(part, drawn), classes) for part, classes, drawn in parts[8:]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, width, 3), nn.SiLU(), nn.Conv2d(width, width, 3), nn.SiLU()]
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * width, 10)).to(dtype)
    outer = Camera(2.0, 1.0, 0.05, dtype)
    return Problem(
        model=model,
        outer=outer,
        inner_loss=inner_loss,
        outer_loss=outer_loss,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        outer_optimizer=torch.optim.Adam(outer.parameters(), lr=0.02),
        steps=3,
        train=cycle(parts[:8]),
        held_out=cycle(photographs),
    )
