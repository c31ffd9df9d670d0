"""The digits and their corruption, the losses, and the classifiers that are trained on different selections."""

from collections.abc import Iterator
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from metasynth.experiments.hyper_cleaning.settings import HyperCleaningConfig
from torch import Tensor, nn
from torch.nn import functional as F

from metasynth.augment.bijections import Sigmoid
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.running.prepared import PreparedData
from metasynth.running.progress import Progress
from metasynth.running.seeding import derive_seed, generator_for
from metasynth.running.study import built_in
from metasynth.sizes import require_memory
from metasynth.training.reach import within_reach
from metasynth.training.trainers import differentiate

CLASSES, PIXELS = 10, 64

Data = tuple[Tensor, Tensor]
"""Images (N, 64), grey values in [0, 1], and classes (N,)."""

SELECTIONS = {
    "learned": "all, with the learned weights",
    "everything": "all, equally",
    "random half": "half of them, at random",
    "validation": "the validation set alone",
    "clean": "the clean ones (needs the truth)",
}


def prepare(config: HyperCleaningConfig, data: Path | None, progress: Progress) -> PreparedData:
    """The digits within scikit-learn."""
    require_memory(4 * config.hidden * (PIXELS + CLASSES + config.batch_size), "the classifier", "hidden")
    return built_in(Path(str(files("sklearn").joinpath("datasets/data/digits.csv.gz"))), data)


def read_digits(path: Path, device: str) -> Data:
    """The (1797, 8, 8) images, with 17 grey levels, as vectors, and their classes."""
    table = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=np.float32)).to(device)
    return table[:, :PIXELS] / 16, table[:, PIXELS].long()


def take(data: Data, indices: Tensor) -> Data:
    """Some of the samples."""
    return data[0][indices], data[1][indices]


def corrupt(labels: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Replace ``count`` of the labels (N,) by wrong ones; return the labels and which are wrong (N,)."""
    chosen = torch.randperm(len(labels), generator=generator)[:count]
    offsets = torch.zeros(len(labels), dtype=torch.long)
    offsets[chosen] = torch.randint(1, CLASSES, (count,), generator=generator)
    offsets = offsets.to(labels.device)
    return (labels + offsets) % CLASSES, offsets > 0


def weighted_loss(model: nn.Module, theta: Tensor, batch: tuple[Data, Tensor]) -> Tensor:
    """mean_i sigmoid(theta_i) CE_i over a batch of samples and their indices."""
    (images, labels), indices = batch
    return (theta[indices].sigmoid() * F.cross_entropy(model(images), labels, reduction="none")).mean()


def clean_loss(model: nn.Module, theta: Tensor, data: Data) -> Tensor:
    """Cross-entropy on clean samples."""
    return F.cross_entropy(model(data[0]), data[1])


def classifier(config: HyperCleaningConfig, seed: int, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A classifier, the same at every call with that seed, and its optimiser."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "classifier"))
        widths = (PIXELS, config.hidden, CLASSES) if config.hidden else (PIXELS, CLASSES)
        layers = [layer for sizes in pairwise(widths) for layer in (nn.Linear(*sizes), nn.ReLU())]
        model = nn.Sequential(*layers[:-1])
    return model.to(device), torch.optim.SGD(model.parameters(), lr=config.lr)


def batches(config: HyperCleaningConfig, seed: int, count: int) -> Iterator[Tensor]:
    """The indices of every step's samples, of ``count`` that there are."""
    for step in range(config.steps):
        yield torch.randperm(count, generator=generator_for(seed, "batch", step))[: config.batch_size]


def learn_weights(config: HyperCleaningConfig, seed: int, train: Data, validation: Data) -> Iterator[Tensor]:
    """The weights (N,) of the training samples after every outer step."""
    model, optimizer = classifier(config, seed, train[0].device)
    theta = torch.zeros(config.train, device=train[0].device, requires_grad=True)
    outer_optimizer = torch.optim.Adam([theta], lr=config.outer_lr)
    solver = BilevelSolver(BilevelProblem(weighted_loss, clean_loss), model, optimizer, theta, outer_optimizer, Mixed())
    for indices in batches(config, seed, config.train):
        with within_reach({"the weight of a sample": (Sigmoid(), theta)}, "outer_lr"):
            solver.step([(take(train, indices), indices)], validation)
        yield theta.detach().sigmoid()


def train_weighted(config: HyperCleaningConfig, seed: int, data: Data, weights: Tensor) -> nn.Module:
    """The same classifier trained for as many steps with fixed weights (N,)."""
    model, optimizer = classifier(config, seed, data[0].device)
    for step, indices in enumerate(batches(config, seed, len(weights)), start=1):
        images, labels = take(data, indices)
        loss = (weights[indices] * F.cross_entropy(model(images), labels, reduction="none")).mean()
        differentiate(loss, optimizer, step)
        optimizer.step()
    return model


def found_fraction(weights: Tensor, wrong: Tensor) -> float:
    """The fraction of the wrongly labelled samples (N,) whose weight is below the median of all."""
    return (weights[wrong] < weights.median()).double().mean().item()


def compare(
    config: HyperCleaningConfig, seed: int, train: Data, wrong: Tensor, weights: Tensor, *others: Data
) -> dict[str, float]:
    """Test accuracies of classifiers trained on each of `SELECTIONS`; ``others`` are validation and test set."""
    validation, test = others
    half = torch.randperm(config.train, generator=generator_for(seed, "half"))[: config.train // 2]
    parts = {"everything": train, "random half": take(train, half), "validation": validation}
    selections = {"learned": train, **parts, "clean": take(train, ~wrong)}
    accuracy = {}
    for name, data in selections.items():
        fixed = weights if name == "learned" else torch.ones_like(data[1], dtype=weights.dtype)
        predicted = train_weighted(config, seed, data, fixed)(test[0]).argmax(dim=1)
        accuracy[name] = (predicted == test[1]).double().mean().item()
    return accuracy
