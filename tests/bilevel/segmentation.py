"""A small bilevel problem with a real segmenter, and its hypergradient by central differences.

The difference quotients run native `torch.optim` steps from deep copies of model and optimiser: they share no code
with what they check.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from support import problems
from support.problems import MakeOptimiser
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from metasynth.bilevel.hypergradient import Hypergradient, HypergradientStrategy, hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.update.inner_update import InnerUpdate
from metasynth.segment.losses import soft_dice_loss
from metasynth.segment.unet import Norm, UNet

SIZE = (2, 1, 6, 6)
"""(B, C, *S) of every batch."""

WARM_STEPS = 20

MEASURED_RATE = 10.0
"""Hypergradients are in proportion to the learning rate, so a larger one lifts them above rounding."""

OPTIMISERS: dict[str, MakeOptimiser] = {
    "sgd": partial(torch.optim.SGD, lr=0.3),
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "nesterov": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": partial(torch.optim.Adam, lr=3e-3),
    "adam-decay": partial(torch.optim.Adam, lr=3e-3, weight_decay=0.01),
    "adamw": partial(torch.optim.AdamW, lr=3e-3, weight_decay=0.1),
    "rmsprop": partial(torch.optim.RMSprop, lr=3e-3, alpha=0.9),
    "rmsprop-centred": partial(torch.optim.RMSprop, lr=3e-3, alpha=0.9, eps=1e-3, momentum=0.5, centered=True),
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Batch:
    """images and draws (B, 1, *S), labels (B, *S); the draws make the augmentation repeatable."""

    images: Tensor
    labels: Tensor
    draws: Tensor


def batch(seed: int) -> Batch:
    """Three classes of their own mean intensity, in blobs."""
    generator = seeded(seed)
    coarse = torch.rand(SIZE[0], 1, 3, 3, dtype=torch.float64, generator=generator)
    smooth = nn.functional.interpolate(coarse, SIZE[2:], mode="bilinear", align_corners=True)[:, 0]
    labels = (smooth * 3).long().clamp(max=2)
    means = torch.rand(3, dtype=torch.float64, generator=generator)
    texture = 0.1 * torch.randn(SIZE, dtype=torch.float64, generator=generator)
    draws = torch.randn(SIZE, dtype=torch.float64, generator=generator)
    return Batch(means[labels].unsqueeze(1) + texture, labels, draws)


def segmenter(seed: int = 0, norm: Norm | None = None) -> UNet:
    return UNet(3, widths=(3, 4), norm=norm, generator=seeded(seed)).double()


def inner_loss(model: nn.Module, outer: nn.Module, given: Batch) -> Tensor:
    return soft_dice_loss(model(outer(given.images, given.draws)), given.labels)


def outer_loss(model: nn.Module, outer: nn.Module, given: Batch) -> Tensor:
    return soft_dice_loss(model(given.images), given.labels)


PROBLEM = BilevelProblem(inner_loss, outer_loss)


class Residual(nn.Module):
    """images + sigma * draws + a small learned convolutional residual: an outer of 40 parameters."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.inward = nn.Conv2d(1, 2, 3, padding=1)
        self.outward = nn.Conv2d(2, 1, 3, padding=1)
        self.sigma = nn.Parameter(torch.tensor(0.2))
        generator = seeded(seed)
        with torch.no_grad():
            for parameter in (*self.inward.parameters(), *self.outward.parameters()):
                parameter.normal_(0, 0.3, generator=generator)
        self.double()

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        return images + self.sigma * draws + self.outward(torch.tanh(self.inward(images)))


def learned_rates(outer: Residual, group: Mapping[str, Any]) -> dict[str, Tensor]:
    """The group's learning rate times a factor, and its weight decay plus a tenth times another."""
    return {
        "lr": group["lr"] * (2 * outer.sigma + outer.inward.bias[0]).exp(),
        "weight_decay": (group["weight_decay"] + 0.1) * (outer.outward.bias[0] - outer.sigma).exp(),
    }


AROUND: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped": {"clip_norm": 0.02},
    "learned": {"hyperparameters": learned_rates},
    "clipped and learned": {"clip_norm": 0.02, "hyperparameters": learned_rates},
}
"""Options of an `InnerUpdate`; the limit is below the gradients that are met."""


def with_dead_units() -> UNet:
    """Channel 0 of the first and of the deepest convolution never fires, so their gradients are exactly zero."""
    model = segmenter()
    with torch.no_grad():
        model.encoder[0].convs[0].bias[0] = -1e3
        model.encoder[1].convs[1].bias[0] = -1e3
    return model


def trained(model: nn.Module, make: MakeOptimiser, outer: nn.Module, steps: int) -> torch.optim.Optimizer:
    """An optimiser that has taken native steps on ``model``, at its measured rate from here on."""
    optimiser = make(model.parameters())
    for index in range(steps):
        native_step(model, optimiser, outer, batch(500 + index))
    optimiser.zero_grad()
    for options in optimiser.param_groups:
        options["lr"] *= MEASURED_RATE
    return optimiser


def as_update(given: InnerUpdate | torch.optim.Optimizer) -> InnerUpdate:
    return given if isinstance(given, InnerUpdate) else InnerUpdate(given)


def native_step(model: nn.Module, update: InnerUpdate | torch.optim.Optimizer, outer: nn.Module, given: Batch) -> None:
    update = as_update(update)
    problems.native_step(update, model, lambda: inner_loss(model, outer, given), outer)


@dataclass(frozen=True)
class Outcome:
    """The outer loss after native steps, and which side every ReLU and max-pool was on throughout."""

    loss: float
    sides: tuple[Tensor, ...]

    def same_side(self, other: "Outcome") -> bool:
        return all(torch.equal(a, b) for a, b in zip(self.sides, other.sides, strict=True))


def outcome(
    model: nn.Module,
    update: InnerUpdate | torch.optim.Optimizer,
    outer: nn.Module,
    inner_batches: Sequence[Batch],
    target: Batch,
) -> Outcome:
    """Native steps from copies of model and optimiser, then the outer loss."""
    model, update = copy.deepcopy((model, update))
    sides: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _module, _input, output: sides.append(output > 0))
        elif isinstance(module, nn.MaxPool2d):
            module.register_forward_hook(
                lambda _module, given, _output: sides.append(max_pool2d(given[0], 2, return_indices=True)[1])
            )
    for given in inner_batches:
        native_step(model, update, outer, given)
    with torch.no_grad():
        return Outcome(outer_loss(model, outer, target).item(), tuple(sides))


class KinkError(AssertionError):
    """A ReLU or max-pool changes side too near: choose other batches."""


def central_difference(along: Callable[[float], Outcome]) -> float:
    """Derivative of the loss at 0, to fourth order: Richardson extrapolation of two central differences.

    A difference across a kink is worth nothing, so the step is the widest at which every ReLU and max-pool stays on
    its side. Below the narrowest, rounding would exceed the bounds of the tests.
    """
    for step in (1e-3, 5e-4, 2e-4, 1e-4, 5e-5, 2e-5):
        low, high = along(-step), along(step)
        if not low.same_side(high):
            continue
        lower, higher = along(-step / 2), along(step / 2)
        if low.same_side(lower) and low.same_side(higher):
            wide = (high.loss - low.loss) / (2 * step)
            narrow = (higher.loss - lower.loss) / step
            return (4 * narrow - wide) / 3
    raise KinkError


def along_direction(
    model: nn.Module,
    update: InnerUpdate | torch.optim.Optimizer,
    outer: nn.Module,
    inner_batches: Sequence[Batch],
    target: Batch,
    direction: Sequence[Tensor],
) -> Callable[[float], Outcome]:
    """The outer loss as a function of a shift of all outer parameters along ``direction``."""

    def shifted(by: float) -> Outcome:
        moved = copy.deepcopy(outer)
        with torch.no_grad():
            for parameter, d in zip(moved.parameters(), direction, strict=True):
                parameter.add_(d, alpha=by)
        return outcome(model, update, moved, inner_batches, target)

    return shifted


def computed(
    model: nn.Module,
    update: InnerUpdate | torch.optim.Optimizer,
    outer: nn.Module,
    inner_batches: Sequence[Batch],
    target: Batch,
    strategy: HypergradientStrategy,
) -> Hypergradient:
    inputs = StepInputs(PROBLEM, FunctionalModel(model), as_update(update), outer, inner_batches)
    return hypergradient(inputs, target, strategy)[0]
