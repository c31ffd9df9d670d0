"""Recovery of noise: σ of the images that a segmenter is to work on, learned through a step of Adam.

A convolutional network learns to segment discs in discs. The images it is trained on have noise of a σ that is
learned; the loss on images with a noise of 0.1 is differentiated through one step of Adam (Learn2Synth, Hu et al., ICCV
2025). The segmenter and its Adam go on from step to step.
"""

from itertools import cycle

import torch
from torch import Tensor, nn

from benchmarks.peers.problem import Problem
from metasynth.augment import GaussianNoise
from metasynth.segment import soft_dice_loss

QUESTION = "recovery of noise: σ of the images of a segmenter, one step of Adam"
CLASSES = 3
TRUTH, START = 0.1, 0.3

Batch = tuple[Tensor, Tensor, Tensor]
"""Images (B, 1, H, W), labels (B, H, W), standard normal draws (B, 1, H, W)."""


def inner_loss(model: nn.Module, outer: nn.Module, batch: Batch) -> Tensor:
    """Soft Dice on noisy images."""
    images, labels, draws = batch
    return soft_dice_loss(model(outer(images, draws)), labels)


def outer_loss(model: nn.Module, outer: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Soft Dice on images as they are."""
    return soft_dice_loss(model(batch[0]), batch[1])


def segmenter(width: int) -> nn.Module:
    """Features at full, half and full resolution; of SiLU and means, as kinks would spoil finite differences."""
    return nn.Sequential(
        *(nn.Conv2d(1, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU()),
        *(nn.AvgPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1), nn.SiLU()),
        *(nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.SiLU()),
        *(nn.ConvTranspose2d(2 * width, width, 2, stride=2), nn.SiLU(), nn.Conv2d(width, CLASSES, 3, padding=1)),
    )


def draw(count: int, size: int, dtype: torch.dtype, generator: torch.Generator) -> Batch:
    """A bright disc in a grey one on a dark ground."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    centre = size * (0.35 + 0.3 * torch.rand(2, count, 1, 1, generator=generator))
    radius = size * (0.2 + 0.1 * torch.rand(count, 1, 1, generator=generator))
    distance = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2).sqrt() / radius
    labels = (distance < 1).long() + (distance < 0.5).long()
    images = torch.tensor([0.3, 0.5, 0.7], dtype=dtype)[labels][:, None]
    return images, labels, torch.randn(images.shape, generator=generator, dtype=torch.float64).to(dtype)


def make(tiny: bool, dtype: torch.dtype) -> Problem:
    """Batches of a few images, sixteen of each kind, which come round again."""
    count, size, width = (2, 16, 2) if tiny else (4, 32, 8)
    generator = torch.Generator().manual_seed(0)
    synthetic, real = ([draw(count, size, dtype, generator) for _ in range(16)] for _ in range(2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = segmenter(width).to(dtype)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter)
    outer = GaussianNoise(START).to(dtype)
    return Problem(
        model=model,
        outer=outer,
        inner_loss=inner_loss,
        outer_loss=outer_loss,
        optimizer=torch.optim.Adam(model.parameters(), lr=1e-3),
        outer_optimizer=torch.optim.Adam(outer.parameters(), lr=0.01),
        steps=1,
        train=cycle(synthetic),
        held_out=cycle([(images + TRUTH * draws, labels) for images, labels, draws in real]),
    )
