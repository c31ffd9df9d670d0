"""Hyper-cleaning: which training labels are wrong, told by a few that are right.

Half of the labels of scikit-learn's digits are wrong. Every training image has a weight sigmoid(θᵢ), and the loss on
clean images is differentiated through one step of the classifier (Ren et al., Learning to Reweight Examples for Robust
Deep Learning, ICML 2018).
"""

from itertools import cycle

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.peers.problem import Problem

QUESTION = "hyper-cleaning: a weight for each of 1,000 digits, one step of SGD"

Samples = tuple[Tensor, Tensor, Tensor]
"""Images (n, 64), labels (n,), and where each stands among all (n,)."""


class Weights(nn.Module):
    """θ (n,): a weight is its sigmoid."""

    def __init__(self, count: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(count, dtype=dtype))


def inner_loss(model: nn.Module, outer: nn.Module, batch: Samples) -> Tensor:
    """Every sample counts by its weight."""
    images, labels, indices = batch
    return (outer.logits[indices].sigmoid() * cross_entropy(model(images), labels, reduction="none")).mean()


def outer_loss(model: nn.Module, outer: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy on clean samples."""
    return cross_entropy(model(batch[0]), batch[1])


def make(tiny: bool, dtype: torch.dtype) -> Problem:
    """Batches of 200 of the training images, which come round again."""
    count, batch, width = (20, 10, 8) if tiny else (1000, 200, 128)
    generator = torch.Generator().manual_seed(0)
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=generator)
    images, labels = torch.tensor(digits.data / 16, dtype=dtype)[order], torch.tensor(digits.target)[order]
    clean = images[count : count + batch], labels[count : count + batch]
    wrong = torch.arange(len(labels)) < count // 2
    shift = torch.randint(1, 10, labels.shape, generator=generator)
    noisy = torch.where(wrong, (labels + shift) % 10, labels)
    chosen = torch.randperm(count, generator=generator).split(batch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, 10)).to(dtype)
    outer = Weights(count, dtype)
    return Problem(
        model=model,
        outer=outer,
        inner_loss=inner_loss,
        outer_loss=outer_loss,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.5),
        outer_optimizer=torch.optim.Adam(outer.parameters(), lr=0.1),
        steps=1,
        train=cycle([(images[indices], noisy[indices], indices) for indices in chosen]),
        held_out=cycle([clean]),
    )
