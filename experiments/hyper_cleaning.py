"""Data hyper-cleaning: which of the training labels are wrong, told by a few images whose labels are right?

Half of the labels of scikit-learn's digits are replaced by wrong ones. Every training sample i has a weight
w_i = sigmoid(theta_i), and the classifier φ descends mean_i w_i CE(φ; x_i, y_i). The outer loss is the cross-entropy
of the updated classifier on a small clean validation set; its hypergradient lowers the weights of samples whose
gradients do not help there. The weights found are then used to train anew, beside classifiers trained on other
selections of the samples.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from metasynth.augment.bijections import Sigmoid
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.report.figures import Series, trajectory
from metasynth.report.html import ReportContent, ReportFigure
from metasynth.report.style import COLORS, INK, new_figure, style
from metasynth.report.tables import Table
from metasynth.running.prepared import PreparedData
from metasynth.running.progress import Progress
from metasynth.running.records import CONFIG, METRICS, RESULTS, RunFolder
from metasynth.running.seeding import derive_seed, generator_for
from metasynth.running.study import Experiment, StudyContext, built_in
from metasynth.schema import COUNT, NUMBER, entries, listing
from metasynth.sizes import require_memory
from metasynth.training.reach import LARGEST_UNCONSTRAINED, require_rate, within_reach
from metasynth.training.trainers import differentiate

DIGITS, CLASSES, PIXELS = 1797, 10, 64
WEIGHTS = "weights.json"

Data = tuple[Tensor, Tensor]
"""Images (N, 64), grey values in [0, 1], and classes (N,)."""

SELECTIONS = {
    "learned": "all, with the learned weights",
    "everything": "all, equally",
    "random half": "half of them, at random",
    "validation": "the validation set alone",
    "clean": "the clean ones (needs the truth)",
}


@dataclass(frozen=True)
class HyperCleaningConfig:
    """Settings of the study.

    Attributes
    ----------
    train : int
        Samples to learn from.
    validation : int
        Clean samples to judge them by; the rest are the test set.
    corrupted : float
        Fraction of the training labels replaced by one of the other nine, all equally likely.
    hidden : int
        Units of the classifier's hidden layer; 0 for a linear classifier.
    steps : int
        Inner steps, with an outer step after each.
    batch_size : int
        Samples an inner step.
    lr : float
        Learning rate of the inner SGD.
    outer_lr : float
        Learning rate of Adam on the theta_i.
    repeats : int
        Divisions and corruptions of the data, each with everything done anew.
    """

    train: int = 1000
    validation: int = 200
    corrupted: float = 0.5
    hidden: int = 0
    steps: int = 1000
    batch_size: int = 200
    lr: float = 0.5
    outer_lr: float = 0.1
    repeats: int = 3

    def __post_init__(self) -> None:
        for name in ("train", "validation", "steps", "batch_size", "repeats", "lr", "outer_lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        require_rate(LARGEST_UNCONSTRAINED, outer_lr=self.outer_lr)
        if self.train + self.validation >= DIGITS or self.batch_size > self.train:
            raise ValueError(
                f"train + validation must be below {DIGITS} and batch_size at most train, got "
                f"{self.train} + {self.validation} and {self.batch_size}"
            )
        if not 0 < self.corrupted < 1 or not 0 < round(self.corrupted * self.train) < self.train:
            raise ValueError(f"corrupted must leave both wrong and right labels, got {self.corrupted}")
        if self.hidden < 0:
            raise ValueError(f"hidden must be at least 0, got {self.hidden}")


PRESETS = {"quick": HyperCleaningConfig(), "standard": HyperCleaningConfig(hidden=32, steps=3000, repeats=5)}


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


def run(context: StudyContext) -> dict[str, Any]:
    """Repeat with other divisions and corruptions; a resumed run begins anew."""
    config: HyperCleaningConfig = context.config
    digits = read_digits(context.data, context.device)
    context.folder.truncate(0)
    rows, groups = [], []
    sizes = [config.train, config.validation, DIGITS - config.train - config.validation]
    with context.progress.task("hyper-cleaning", config.repeats * config.steps) as task:
        for repeat in range(config.repeats):
            seed = derive_seed(context.seed, "repeat", repeat)
            order = torch.randperm(DIGITS, generator=generator_for(seed, "split"))
            (images, truth), validation, test = (take(digits, indices) for indices in order.split(sizes))
            count = round(config.corrupted * config.train)
            labels, wrong = corrupt(truth, count, generator_for(seed, "corruption"))
            train = images, labels
            for step, weights in enumerate(learn_weights(config, seed, train, validation), start=1):
                found = found_fraction(weights, wrong)
                context.folder.append({"repeat": repeat, "outer_step": step, "found": found})
                task.advance(note=f"{found:.1%} found")
            accuracy = compare(config, seed, train, wrong, weights, validation, test)
            rows.append({"repeat": repeat, "found": found, "accuracy": accuracy})
            groups.append({"clean": weights[~wrong].tolist(), "corrupted": weights[wrong].tolist()})
    context.folder.write_json(WEIGHTS, groups)
    return {"rows": rows}


def report(folder: RunFolder) -> ReportContent:
    """The accuracies, the weights of clean and corrupted samples, and how fast the wrong ones are found."""
    rows, config = folder.results["rows"], folder.manifest["config"]
    table = [{"training samples": text, **_spread(rows, name)} for name, text in SELECTIONS.items()]
    wrong, found = round(config["corrupted"] * config["train"]), [f"{row['found']:.1%}" for row in rows]
    weights, records = folder.read_json(WEIGHTS), folder.read_metrics()
    courses = [_found(records, row["repeat"]) for row in rows]
    return ReportContent(
        title="Wrong labels, found through the classifier's training",
        summary=[
            f"{wrong} of {config['train']} training labels of scikit-learn's digits were replaced by wrong ones. A "
            "weight of each sample was learned from hypergradients of the loss on "
            f"{config['validation']} clean samples.",
            f"Of the wrong labels, {', '.join(found)} have a weight below the median, in {len(rows)} repeats.",
            "The accuracies are of classifiers trained alike, from the same start and for as many steps, on different "
            "selections of the training samples. Only the learned weights have seen the validation set, which is why "
            "training on it alone is shown too.",
        ],
        tables=[Table.from_records("Test accuracy by what was trained on, over repeats.", table)],
        figures=[
            ReportFigure("weights", "Learned weights of all repeats, and their median.", _histogram(weights)),
            ReportFigure("found", "Wrong labels below the median weight.", trajectory(courses, ylabel="fraction")),
        ],
    )


def _spread(rows: list[dict[str, Any]], name: str) -> dict[str, float]:
    values = [row["accuracy"][name] for row in rows]
    return {"mean": float(np.mean(values)), "least": min(values), "most": max(values)}


def _found(records: list[dict[str, Any]], repeat: int) -> Series:
    of_repeat = [record for record in records if record["repeat"] == repeat]
    return Series(f"repeat {repeat}", [r["outer_step"] for r in of_repeat], [r["found"] for r in of_repeat])


def _histogram(weights: list[dict[str, list[float]]]) -> Figure:
    pooled = {name: np.concatenate([one[name] for one in weights]) for name in ("clean", "corrupted")}
    with style():
        figure = new_figure(5.0, 3.0)
        axes = figure.add_subplot()
        for color, (name, values) in zip(COLORS, pooled.items(), strict=False):
            axes.hist(values, bins=np.linspace(0, 1, 41).tolist(), color=color, alpha=0.6, label=f"{name} label")
        axes.axvline(float(np.median(np.concatenate(list(pooled.values())))), color=INK, ls="--", label="median")
        axes.set(xlabel="learned weight", ylabel="samples")
        axes.legend()
        return figure


QUESTION = "Which training labels are wrong, told by a few images whose labels are right?"
_SETTINGS = {"corrupted": NUMBER, "train": COUNT, "validation": COUNT}
_ROW = {"repeat": COUNT, "found": NUMBER, "accuracy": entries(dict.fromkeys(SELECTIONS, NUMBER))}
CONTENTS = {
    METRICS: listing(entries({"repeat": COUNT, "outer_step": COUNT, "found": NUMBER}), least=1),
    RESULTS: entries({"rows": listing(entries(_ROW), least=1)}),
    CONFIG: entries({"config": entries(_SETTINGS)}),
    WEIGHTS: listing(entries(dict.fromkeys(("clean", "corrupted"), listing(NUMBER, least=1))), least=1),
}
EXPERIMENT = Experiment("hyper_cleaning", QUESTION, PRESETS, prepare, run, report, contents=CONTENTS)
