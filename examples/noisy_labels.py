"""Reweight noisy labels: which training labels are wrong, told by a few that are right?

Half of the training labels of scikit-learn's digits are replaced by wrong ones. Every training image has a weight
sigmoid(theta_i), one half at first. After each step of the classifier the loss on 200 clean images is differentiated
through that step: images whose gradients do not help the clean ones lose weight (Ren et al., Learning to Reweight
Examples for Robust Deep Learning, ICML 2018).

    python examples/noisy_labels.py [--steps 400]

The program prints how many of the wrong labels have less weight than the median, and the test accuracy of a
classifier trained with the learned weights beside one trained with equal weights.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from metasynth.bilevel import BilevelProblem, BilevelSolver

TRAIN, CLEAN, BATCH = 1000, 200, 200

Samples = tuple[Tensor, Tensor, Tensor]
"""Images (n, 64), labels (n,), and where each stands among all (n,)."""


def read_digits() -> tuple[Tensor, Tensor]:
    """Images as vectors with values in [0, 1], and their labels, in a random order."""
    digits = load_digits()
    order = torch.randperm(len(digits.target))
    return torch.tensor(digits.data / 16, dtype=torch.float32)[order], torch.tensor(digits.target)[order]


def corrupt(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The labels with half of them replaced by one of the other nine, and which are wrong."""
    wrong = torch.randperm(len(labels)) < len(labels) // 2
    return torch.where(wrong, (labels + torch.randint(1, 10, labels.shape)) % 10, labels), wrong


def weighted_loss(model: nn.Module, theta: Tensor, batch: Samples) -> Tensor:
    """Inner loss: every sample counts by its weight."""
    images, labels, indices = batch
    return (theta[indices].sigmoid() * cross_entropy(model(images), labels, reduction="none")).mean()


def clean_loss(model: nn.Module, theta: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Outer loss: plain cross-entropy on clean samples."""
    return cross_entropy(model(batch[0]), batch[1])


def train(samples: Samples, theta: Tensor, steps: int, clean: tuple[Tensor, Tensor] | None = None) -> nn.Module:
    """A linear classifier; with clean samples theta is learned on the way, without it is kept."""
    model = nn.Linear(64, 10)
    inner = torch.optim.SGD(model.parameters(), lr=0.5)
    outer = torch.optim.Adam([theta], lr=0.1)
    solver = BilevelSolver(BilevelProblem(weighted_loss, clean_loss), model, inner, theta, outer)
    for _ in range(steps):
        indices = torch.randperm(TRAIN)[:BATCH]
        batch = samples[0][indices], samples[1][indices], indices
        if clean is None:
            solver.inner_step(batch)
        else:
            solver.step([batch], clean)
    return model


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Fraction of the images whose most likely class is the right one."""
    return (model(images).argmax(dim=1) == labels).double().mean().item()


def main(arguments: list[str] | None = None) -> tuple[float, float, float]:
    """Fraction of wrong labels found, and test accuracies with learned and with equal weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="steps of every training")
    steps = parser.parse_args(arguments).steps
    torch.manual_seed(0)
    images, truth = read_digits()
    labels, wrong = corrupt(truth[:TRAIN])
    samples = images[:TRAIN], labels, torch.arange(TRAIN)
    clean, test = (images[TRAIN:][:CLEAN], truth[TRAIN:][:CLEAN]), (images[TRAIN + CLEAN :], truth[TRAIN + CLEAN :])

    theta, equal = torch.zeros(TRAIN, requires_grad=True), torch.zeros(TRAIN, requires_grad=True)
    train(samples, theta, steps, clean)  # the weights are what is kept of it
    found = (theta[wrong] < theta.median()).double().mean().item()
    learned, plain = (accuracy(train(samples, weights, steps), *test) for weights in (theta, equal))
    print(f"wrong labels with less than the median weight: {found:.1%}")
    print(f"test accuracy: {learned:.1%} with learned weights, {plain:.1%} with equal weights")
    return found, learned, plain


if __name__ == "__main__":
    main()
