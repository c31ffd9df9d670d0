"""Every strategy and optimiser against central differences through native steps of a convolutional segmenter."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from bilevel.segmentation import (
    OPTIMISERS,
    WARM_STEPS,
    Residual,
    along_direction,
    batch,
    central_difference,
    computed,
    seeded,
    segmenter,
    trained,
)
from problems import STRATEGIES
from torch import Tensor, nn

from metasynth.augment.noise import GaussianNoise
from metasynth.bilevel.functional import FunctionalModel
from metasynth.bilevel.hypergradient import hypergradient
from metasynth.bilevel.problem import BilevelProblem
from metasynth.segment.unet import UNet

BOUND = 1e-6
"""Relative error allowed."""

TARGET = batch(99)

# Epsilon is above the gradients' size: else the first step of Adam is sign(g) and has no derivative to speak of.
COLD = {
    "adam": partial(torch.optim.Adam, lr=0.03, eps=1e-2),
    "adamw": partial(torch.optim.AdamW, lr=0.03, eps=1e-2, weight_decay=0.1),
}

ONE = [torch.tensor(1.0, dtype=torch.float64)]


def relative_error(value: float, truth: float) -> float:
    return abs(value - truth) / abs(truth)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_learned_noise(strategy: str, optimiser: str) -> None:
    model, outer, chosen = segmenter(), GaussianNoise(0.2).double(), STRATEGIES[strategy]
    inner = trained(model, OPTIMISERS[optimiser], outer, WARM_STEPS)
    batches = [batch(k) for k in range(chosen.inner_steps)]
    h = computed(model, inner, outer, batches, TARGET, chosen).gradients["raw_sigma"].item()
    truth = central_difference(along_direction(model, inner, outer, batches, TARGET, ONE))
    assert relative_error(h, truth) < BOUND


@pytest.mark.parametrize("optimiser", COLD)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_learned_noise_from_cold_moments(strategy: str, optimiser: str) -> None:
    model, outer, chosen = segmenter(), GaussianNoise(0.2).double(), STRATEGIES[strategy]
    inner = COLD[optimiser](model.parameters())
    batches = [batch(k) for k in range(chosen.inner_steps)]
    h = computed(model, inner, outer, batches, TARGET, chosen).gradients["raw_sigma"].item()
    truth = central_difference(along_direction(model, inner, outer, batches, TARGET, ONE))
    assert relative_error(h, truth) < BOUND


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_learned_residual_along_directions(strategy: str, optimiser: str) -> None:
    model, outer, chosen = segmenter(), Residual(), STRATEGIES[strategy]
    inner = trained(model, OPTIMISERS[optimiser], outer, WARM_STEPS)
    batches = [batch(k) for k in range(chosen.inner_steps)]
    gradients = computed(model, inner, outer, batches, TARGET, chosen).gradients
    assert list(gradients) == [name for name, _ in outer.named_parameters()]
    for direction in directions(outer):
        h = sum((g * d).sum().item() for g, d in zip(gradients.values(), direction, strict=True))
        truth = central_difference(along_direction(model, inner, outer, batches, TARGET, direction))
        assert relative_error(h, truth) < BOUND


def directions(outer: nn.Module) -> list[list[Tensor]]:
    """Two random unit directions over all outer parameters, and two coordinates."""
    shapes = [p.shape for p in outer.parameters()]
    found = []
    for seed in (1, 2):
        generator = seeded(seed)
        drawn = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]
        norm = torch.stack([d.square().sum() for d in drawn]).sum().sqrt()
        found.append([d / norm for d in drawn])
    for which, entry in (("inward.weight", 4), ("outward.bias", 0)):
        unit = {name: torch.zeros_like(p) for name, p in outer.named_parameters()}
        unit[which].view(-1)[entry] = 1.0
        found.append(list(unit.values()))
    return found


def with_dead_units() -> UNet:
    """Channel 0 of the first and of the deepest convolution never fires, so their gradients are exactly zero."""
    model = segmenter()
    with torch.no_grad():
        model.encoder[0].convs[0].bias[0] = -1e3
        model.encoder[1].convs[1].bias[0] = -1e3
    return model


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("optimiser", COLD)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_dead_units(strategy: str, optimiser: str, warm: bool) -> None:
    model, outer, chosen = with_dead_units(), GaussianNoise(0.2).double(), STRATEGIES[strategy]
    make = OPTIMISERS[optimiser] if warm else COLD[optimiser]
    inner = trained(model, make, outer, WARM_STEPS if warm else 0)
    if warm:
        second_moment = inner.state[model.encoder[0].convs[0].weight]["exp_avg_sq"]
        assert (second_moment[0] == 0).all()
        assert (second_moment[1:] > 0).all()
    batches = [batch(k) for k in range(chosen.inner_steps)]
    h = computed(model, inner, outer, batches, TARGET, chosen).gradients["raw_sigma"].item()
    truth = central_difference(along_direction(model, inner, outer, batches, TARGET, ONE))
    assert relative_error(h, truth) < BOUND


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("strategy", ["mixed", "unrolled-1"])
def test_zero_gradient_that_depends_on_the_outer_parameter(
    strategy: str, make: Callable[..., torch.optim.Optimizer]
) -> None:
    """At θ = 0 the gradient θ is zero, and so are both moments; the update -lr θ/(|θ| + eps) has the slope -lr/eps."""

    model = nn.Linear(1, 1, bias=False).double()
    theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    problem = BilevelProblem(lambda m, o, b: o * m.weight.sum(), lambda m, o, b: m.weight.sum())
    inner = make(model.parameters(), lr=0.1, eps=0.5)
    result, _ = hypergradient(problem, FunctionalModel(model), inner, theta, [None], None, STRATEGIES[strategy])
    assert result.gradients["outer"].item() == pytest.approx(-0.1 / 0.5, rel=1e-12)
