"""Learn an augmentation: the tilt and the noise of someone else's camera, from four hundred labelled photographs.

A classifier is trained on scikit-learn's digits, upright and clean. It is meant for photographs that are tilted by 20
degrees and noisy, of which 400 have labels. These never train the classifier. They teach an augmenter, a tilt and a
noise level, so that a classifier trained on augmented digits is right about photographs: the method of Learn2Synth
(Hu et al., ICCV 2025), which learned the noise of brain scans.

    python examples/augmentation.py [--steps 400]

The program prints the augmenter on its way to the truth, and the accuracy on new photographs with and without it.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from metasynth.bilevel import BilevelProblem, BilevelSolver, OuterStep

TILT, NOISE = 20.0, 0.2
SIZES = [897, 300, 400, 200]  # digits to train on, digits as reference, photographs with labels, new photographs

Samples = tuple[Tensor, Tensor]  # images (N, 1, 8, 8) and labels (N,)
Batch = tuple[Tensor, Tensor, Tensor]  # the same and standard normal draws like the images: randomness is in the batch


class Camera(nn.Module):
    """The augmenter: turns images and adds noise; parameters of order one, and a noise that stays positive."""

    def __init__(self, tilt: float, noise: float) -> None:
        super().__init__()
        self.tens_of_degrees = nn.Parameter(torch.tensor(tilt / 10))
        self.log_noise = nn.Parameter(torch.tensor(noise).log())

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        """The photographs (B, 1, 8, 8) that it takes of images."""
        cos, sin = (f(torch.deg2rad(10 * self.tens_of_degrees)) for f in (torch.cos, torch.sin))
        turn = torch.stack([cos, -sin, 0 * cos, sin, cos, 0 * cos]).view(1, 2, 3).expand(len(images), 2, 3)
        grid = F.affine_grid(turn, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, align_corners=False) + self.log_noise.exp() * draws


def augmented_loss(model: nn.Module, camera: nn.Module, batch: Batch) -> Tensor:
    """Inner loss: cross-entropy on augmented digits."""
    return F.cross_entropy(model(camera(batch[0], batch[2])), batch[1])


def photograph_loss(model: nn.Module, camera: nn.Module, batch: Batch) -> Tensor:
    """Outer loss: cross-entropy on photographs as they are."""
    return F.cross_entropy(model(batch[0]), batch[1])


def some(samples: Samples) -> Batch:
    """A random batch of a hundred, with fresh draws."""
    chosen = torch.randint(len(samples[1]), (100,))
    return samples[0][chosen], samples[1][chosen], torch.randn(100, 1, 8, 8)


def train(camera: Camera, parts: list[Samples], steps: int, learn: bool) -> float:
    """Train a classifier, learning the camera on the way or not; gives its accuracy on new photographs."""
    digits, reference, photographs, (images, labels) = parts
    model = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 10))
    inner = torch.optim.Adam(model.parameters(), lr=3e-3)
    outer = torch.optim.Adam(camera.parameters(), lr=0.03)
    problem, robust = BilevelProblem(augmented_loss, photograph_loss), OuterStep(memory=0.9, clip=3.0)
    solver = BilevelSolver(problem, model, inner, camera, outer, outer_step=robust)
    for step in range(steps):
        if not learn:
            solver.inner_step(some(digits))
            continue
        # What the classifier has still to learn of digits says nothing about the camera: the reference takes it off.
        solver.step([some(digits)], some(photographs), reference_batch=some(reference))
        if (step + 1) % 100 == 0:
            tilt, noise = 10 * camera.tens_of_degrees.item(), camera.log_noise.exp().item()
            print(f"step {step + 1}: tilt {tilt:4.1f} (truth {TILT}), noise {noise:.3f} (truth {NOISE})")
    return (model(images).argmax(dim=1) == labels).double().mean().item()


def main(arguments: list[str] | None = None) -> tuple[float, float, float, float]:
    """Learned tilt and noise, and accuracies on new photographs with the learned and without an augmentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="steps of every training")
    steps = parser.parse_args(arguments).steps
    torch.manual_seed(0)
    data, order = load_digits(), torch.randperm(sum(SIZES))
    images, labels = torch.tensor(data.images / 16, dtype=torch.float32)[order, None], torch.tensor(data.target)[order]
    with torch.no_grad():
        photographs = Camera(TILT, NOISE)(images, torch.randn(images.shape))
    images = torch.cat([images[: sum(SIZES[:2])], photographs[sum(SIZES[:2]) :]])
    parts = list(zip(images.split(SIZES), labels.split(SIZES), strict=True))
    camera = Camera(0.0, 0.05)
    learned, plain = train(camera, parts, steps, True), train(Camera(0.0, 1e-6), parts, steps, False)
    print(f"accuracy on new photographs: {learned:.1%} with the learned augmentation, {plain:.1%} with none")
    return 10 * camera.tens_of_degrees.item(), camera.log_noise.exp().item(), learned, plain


if __name__ == "__main__":
    main()
