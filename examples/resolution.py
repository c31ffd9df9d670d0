"""Learn a distribution of `resolution`, an option of the generator that nothing differentiates through.

A small network finds discs. Its training images are in larger voxels: the generator's `resolution`, the largest voxel
size, is drawn from a log-normal distribution for every batch. The "real" images are made alike, about a voxel size that
is to be found. The images are resampled on a grid of as many voxels as fit, so no derivative passes. `ScoreFunction`
learns the distribution from what single draws do to the loss on real images (Williams 1992).

    python examples/resolution.py [--start 1.3] [--truth 4] [--outer-steps 400]

The last line compares the middle of the learned distribution, over the last quarter of the steps, with the true one.
"""

import argparse
import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from metasynth.bilevel import BilevelProblem, BilevelSolver, OuterStep, ScoreFunction, draw
from metasynth.synthesis import PAPER, BatchedGenerator

SIZE, BATCH, SPREAD, WARMUP = 32, 8, 0.3, 200
STILL = replace(PAPER, translations=0, rotation=0, shears=0, zooms=0, elastic=0, gmm_fwhm=0, gamma=0, motion_fwhm=0)

Pair = tuple[Tensor, Tensor]
"""Label maps (B, H, W) int64 and the seeds (B,) of their images; or real images (B, 1, H, W) and their label maps."""


def label_maps() -> Pair:
    """Five discs in each of a batch of maps."""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    labels = torch.zeros(BATCH, SIZE, SIZE, dtype=torch.int64)
    for _ in range(5):
        centre, radius = SIZE * torch.rand(2, BATCH, 1, 1), 2 + 4 * torch.rand(BATCH, 1, 1)
        labels[(x - centre[0]).square() + (y - centre[1]).square() < radius.square()] = 1
    return labels, torch.randint(2**62, (BATCH,))


def imaged(batch: Pair, log_resolution: Tensor) -> Tensor:
    """Images of label maps at a resolution of at least 1; without a graph."""
    config = replace(STILL, resolution=max(1.0, log_resolution.exp().item()))
    return BatchedGenerator(2, config).synthesise(*batch)[0]


def inner_loss(model: nn.Module, middle: Tensor, batch: Pair) -> Tensor:
    """Cross-entropy on synthetic images, whose resolution is drawn; all else that is random comes from the batch."""
    return nn.functional.cross_entropy(model(imaged(batch, draw(Normal(middle, SPREAD)))), batch[0])


def outer_loss(model: nn.Module, middle: Tensor, batch: Pair) -> Tensor:
    """Cross-entropy on real images."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def learn(start: float, truth: float, outer_steps: int) -> float:
    """The middle of the distribution that is learned from a start, a mean over the last quarter of the steps."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 12, 3, padding=1), *(nn.Conv2d(12, 12, 3, padding=1) for _ in range(2))]
    model = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())), nn.Conv2d(12, 2, 3, padding=1))
    middle = torch.tensor(start).log().requires_grad_()
    solver = BilevelSolver(
        BilevelProblem(inner_loss, outer_loss),
        model,
        torch.optim.Adam(model.parameters(), lr=3e-3),
        middle,
        torch.optim.Adam([middle], lr=0.05, betas=(0.9, 0.95)),
        strategy=ScoreFunction(samples=4),
        outer_step=OuterStep(clip=3.0, memory=0.9),
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(solver.outer_optimizer, outer_steps)
    found = []
    for _ in range(WARMUP):
        solver.inner_step(label_maps())
    for step in range(outer_steps):
        real = label_maps()
        images = imaged(real, math.log(truth) + SPREAD * torch.randn(()))
        solver.step([label_maps()], (images, real[0]), reference_batch=label_maps())
        schedule.step()
        found.append(middle.exp().item())
        if (step + 1) % 50 == 0:
            print(f"outer step {step + 1:3d}   resolution {found[-1]:.2f}")
    return torch.tensor(found[-max(1, outer_steps // 4) :]).mean().item()


def main(arguments: list[str] | None = None) -> float:
    """The learned resolution."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=float, default=1.3, help="where the middle of the distribution starts")
    parser.add_argument("--truth", type=float, default=4.0, help="that of the real images")
    parser.add_argument("--outer-steps", type=int, default=400, help="steps of the distribution")
    options = parser.parse_args(arguments)
    learned = learn(options.start, options.truth, options.outer_steps)
    print(f"learned resolution {learned:.2f}, true resolution {options.truth:.2f}")
    return learned


if __name__ == "__main__":
    main()
