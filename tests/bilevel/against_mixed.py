"""Hypergradients held against those of `Mixed`, from the same random state."""

from collections.abc import Callable

import torch
from bilevel.segmentation import batch
from support.strategies import taken
from torch import Tensor, nn

from metasynth.augment.noise import GaussianNoise
from metasynth.bilevel.hypergradient import Hypergradient, HypergradientStrategy, hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem, Loss
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.update.inner_update import InnerUpdate

TARGET = batch(99)
REPLAYING = taken("forward", "finite_difference-reporting")


def logits_loss(from_logits: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    return lambda model, outer, given: from_logits(model(outer(given.images, given.draws)), given.labels)


def mixed_and(
    strategy: HypergradientStrategy, problem: BilevelProblem, model: nn.Module
) -> tuple[Hypergradient, Hypergradient]:
    """The hypergradients of `Mixed` and of a strategy from the same random state."""
    outer = GaussianNoise(0.2).double()
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for chosen in (Mixed(), strategy):
        torch.manual_seed(3)
        found.append(
            hypergradient(
                StepInputs(problem, FunctionalModel(model), InnerUpdate(inner), outer, [batch(0)]), TARGET, chosen
            )[0]
        )
    return found[0], found[1]


def assert_same(mixed: Hypergradient, other: Hypergradient) -> None:
    expected = mixed.gradients["raw_sigma"].item()
    assert expected != 0
    allowed = other.diagnostics.get("error", 0.0) + 1e-9 * abs(expected)
    assert abs(other.gradients["raw_sigma"].item() - expected) <= allowed
    assert allowed < 1e-5 * abs(expected)
    assert other.inner_losses[0].item() == mixed.inner_losses[0].item()
    assert other.outer_loss.item() == mixed.outer_loss.item()


def network(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *layers, nn.Conv2d(4, 3, 3, padding=1)).double()
