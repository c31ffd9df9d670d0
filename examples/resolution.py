"""Learn a distribution of `resolution`, an option of the generator that nothing differentiates through.

A small network finds discs. For every batch of its training images the generator's `resolution`, the largest voxel
size, is drawn from a distribution; that of the "real" images is to be found. No derivative passes. What counts is the
loss on real images after twenty steps, with the distribution moved either way (Salimans et al., arXiv:1703.03864).

    python examples/resolution.py [--start 1.5] [--truth 4] [--outer-steps 80]

The last line compares the middle of the learned distribution, over the last quarter of the steps, with the true one.
"""

import argparse
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from metasynth.bilevel import BilevelProblem, BilevelSolver, EvolutionStrategies, Unrolled, draw
from metasynth.synthesis import PAPER, BatchedGenerator

SIZE, BATCH, REAL, SPREAD, HORIZON = 32, 8, 32, 0.2, 20
STILL = replace(PAPER, translations=0, rotation=0, shears=0, zooms=0, elastic=0, gmm_fwhm=0, gamma=0, motion_fwhm=0)

Pair = tuple[Tensor, Tensor]
"""Label maps (B, H, W) int64 and the seeds (B,) of their images; or images (B, 1, H, W) and their label maps."""


def label_maps() -> Pair:
    """Five discs in each of a batch of maps."""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    labels = torch.zeros(BATCH, SIZE, SIZE, dtype=torch.int64)
    for _ in range(5):
        centre, radius = SIZE * torch.rand(2, BATCH, 1, 1), 2 + 4 * torch.rand(BATCH, 1, 1)
        labels[(x - centre[0]).square() + (y - centre[1]).square() < radius.square()] = 1
    return labels, torch.randint(2**62, (BATCH,))


def imaged(batch: Pair, log_excess: Tensor) -> Tensor:
    """Images of label maps at a resolution of 1 + exp(log_excess); without a graph."""
    return BatchedGenerator(2, replace(STILL, resolution=1 + log_excess.exp().item())).synthesise(*batch)[0]


def real_images(truth: float) -> Pair:
    """Some batches, spread evenly over the true distribution."""
    drawn = Normal(torch.tensor(truth - 1).log(), SPREAD).icdf((torch.arange(REAL) + 0.5) / REAL)
    batches = [label_maps() for _ in drawn]
    return torch.cat([imaged(*one) for one in zip(batches, drawn, strict=True)]), torch.cat(
        [labels for labels, _ in batches]
    )


def outer_loss(model: nn.Module, middle: Tensor, batch: Pair) -> Tensor:
    """Cross-entropy of images and their label maps."""
    return nn.functional.binary_cross_entropy_with_logits(model(batch[0]).squeeze(1), batch[1].float())


def inner_loss(model: nn.Module, middle: Tensor, batch: Pair) -> Tensor:
    """The same on synthetic images, whose resolution is drawn; all else that is random comes from the batch."""
    return outer_loss(model, middle, (imaged(batch, draw(Normal(middle, SPREAD))), batch[0]))


def learn(start: float, truth: float, outer_steps: int) -> float:
    """The middle of the distribution that is learned from a start, a mean over the last quarter of the steps."""
    torch.manual_seed(0)
    real = real_images(truth)
    model = nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 1, 5, padding=2))
    middle = torch.tensor(start - 1).log().requires_grad_()
    solver = BilevelSolver(
        BilevelProblem(inner_loss, outer_loss),
        model,
        torch.optim.Adam(model.parameters(), lr=0.02),
        middle,
        torch.optim.Adam([middle], lr=0.2, betas=(0.8, 0.9)),
        strategy=EvolutionStrategies(pairs=2, sigma=0.4, strategy=Unrolled(HORIZON, mean_of=HORIZON // 2)),
    )
    schedule, found = torch.optim.lr_scheduler.CosineAnnealingLR(solver.outer_optimizer, outer_steps), []
    for step in range(outer_steps):
        report = solver.step([label_maps() for _ in range(HORIZON)], real)
        schedule.step()
        found.append(1 + middle.exp().item())
        if (step + 1) % 10 == 0:
            print(f"outer step {step + 1:3d}   resolution {found[-1]:.2f}   loss {report.outer_loss:.4f}", flush=True)
    return torch.tensor(found[-max(1, outer_steps // 4) :]).mean().item()


def main(arguments: list[str] | None = None) -> float:
    """The learned resolution."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=float, default=1.5, help="where the middle of the distribution starts")
    parser.add_argument("--truth", type=float, default=4.0, help="that of the real images")
    parser.add_argument("--outer-steps", type=int, default=80, help="steps of the distribution")
    options = parser.parse_args(arguments)
    learned = learn(options.start, options.truth, options.outer_steps)
    print(f"learned resolution {learned:.2f}, true resolution {options.truth:.2f}")
    return learned


if __name__ == "__main__":
    main()
