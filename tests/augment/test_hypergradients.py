"""Augmenters in the problem they are made for: one step of a segmenter, differentiated with respect to them."""

import copy
from typing import Any, NamedTuple

import pytest
import torch
from augment.augmenters import AUGMENTERS, given_to, seeded
from bilevel import segmentation
from support.strategies import taken
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from metasynth.augment.augmenter import Augmenter
from metasynth.augment.residual import ResidualNetwork, residual_unet
from metasynth.bilevel.checks.preflight import preflight
from metasynth.bilevel.hypergradient import HypergradientStrategy, hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.update.inner_update import InnerUpdate

RATE = 0.5
OTHERS = taken("forward", "unrolled", "finite_difference-reporting", "in_parts-of-1")


class Example(NamedTuple):
    images: Tensor
    labels: Tensor
    draws: Any
    given: Tensor


def example(augmenter: Augmenter[Any], seed: int) -> Example:
    given = segmentation.batch(seed)
    draws = augmenter.draw(given.images, seeded(seed))
    return Example(given.images, given.labels, draws, given_to(augmenter, given.images))


def inner_loss(model: nn.Module, augmenter: nn.Module, given: Example) -> Tensor:
    return cross_entropy(model(augmenter(given.given, given.draws)), given.labels)


def outer_loss(model: nn.Module, augmenter: nn.Module, given: Example) -> Tensor:
    return cross_entropy(model(given.images), given.labels)


PROBLEM = BilevelProblem(inner_loss, outer_loss)


def segmenter() -> nn.Module:
    """Without kinks, so that difference quotients converge."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 3, 3, padding=1)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.5, generator=seeded(7))
    return model


def computed(augmenter: Augmenter[Any], strategy: HypergradientStrategy) -> tuple[Tensor, float]:
    """The hypergradient, flat, and what is reported of its error."""
    model = segmenter()
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE)
    batches, target = [example(augmenter, 0)], example(augmenter, 99)
    found, _ = hypergradient(
        StepInputs(PROBLEM, FunctionalModel(model), InnerUpdate(optimiser), augmenter, batches), target, strategy
    )
    gradients = [found.gradients[name] for name, _ in augmenter.named_parameters()]
    return torch.cat([g.flatten() for g in gradients if g is not None]), found.diagnostics.get("error", 0.0)


def loss_after_step(augmenter: Augmenter[Any], shift: Tensor) -> float:
    """The outer loss after a step of torch's own SGD, with the augmenter's parameters shifted."""
    moved, model = copy.deepcopy(augmenter), segmenter()
    with torch.no_grad():
        vector = nn.utils.parameters_to_vector(moved.parameters())
        nn.utils.vector_to_parameters(vector + shift, moved.parameters())
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE)
    inner_loss(model, moved, example(augmenter, 0)).backward()
    optimiser.step()
    with torch.no_grad():
        return outer_loss(model, moved, example(augmenter, 99)).item()


@pytest.mark.parametrize("name", AUGMENTERS)
def test_hypergradient_is_the_derivative_of_the_loss_after_a_step(name: str) -> None:
    augmenter = AUGMENTERS[name](2).double()
    found, _ = computed(augmenter, Mixed())
    direction = torch.randn(found.shape, dtype=torch.float64, generator=seeded(3))
    direction /= direction.norm()
    wide, narrow = (
        (loss_after_step(augmenter, h * direction) - loss_after_step(augmenter, -h * direction)) / (2 * h)
        for h in (2e-3, 1e-3)
    )
    assert (found @ direction).item() == pytest.approx((4 * narrow - wide) / 3, rel=1e-6)


@pytest.mark.parametrize("strategy", OTHERS)
@pytest.mark.parametrize("name", AUGMENTERS)
def test_every_strategy_gives_the_same(name: str, strategy: str) -> None:
    augmenter = AUGMENTERS[name](2).double()
    expected, _ = computed(augmenter, Mixed())
    found, error = computed(augmenter, OTHERS[strategy])
    assert expected.norm() > 0
    assert (found - expected).norm() <= error + 1e-10 * expected.norm()
    assert error < 1e-4 * expected.norm()


def test_every_layer_of_a_network_has_a_hypergradient_once_its_heads_have_moved() -> None:
    augmenter = ResidualNetwork(residual_unet(widths=(2, 3), generator=seeded(0))).double()
    model = segmenter()
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE)
    preflight(PROBLEM, model, optimiser, augmenter, example(augmenter, 0), example(augmenter, 99))
    sizes = {name: parameter.numel() for name, parameter in augmenter.named_parameters()}
    found, _ = computed(augmenter, Mixed())
    parts = dict(zip(sizes, found.split(list(sizes.values())), strict=True))
    assert all(part.any() == (".head." in name) for name, part in parts.items())
    with torch.no_grad():
        for parameter, part in zip(augmenter.parameters(), parts.values(), strict=True):
            parameter -= 1e-3 * part.sign().view_as(parameter)  # the first step of Adam
    moved, _ = computed(augmenter, Mixed())
    assert all(part.any() for part in moved.split(list(sizes.values())))


def test_the_amplitude_of_a_random_change_has_no_mean_hypergradient_at_zero() -> None:
    """Why networks start with some randomness: for xi and -xi the hypergradients of w in x + w xi x are opposite."""

    def of(amplitude: float, sign: float) -> float:
        change = ResidualNetwork(_RandomGain(amplitude)).double()
        batch, target, model = example(change, 0), example(change, 99), segmenter()
        batch = batch._replace(draws=sign * batch.draws)
        optimiser = torch.optim.SGD(model.parameters(), lr=RATE)
        found, _ = hypergradient(
            StepInputs(PROBLEM, FunctionalModel(model), InnerUpdate(optimiser), change, [batch]), target, Mixed()
        )
        gradient = found.gradients["network.amplitude"]
        assert gradient is not None
        return gradient.item()

    assert of(0.0, 1.0) != 0
    assert of(0.0, 1.0) == pytest.approx(-of(0.0, -1.0), rel=1e-12)
    assert of(0.5, 1.0) != pytest.approx(-of(0.5, -1.0), rel=0.01)


class _RandomGain(nn.Module):
    """w xi x."""

    def __init__(self, amplitude: float) -> None:
        super().__init__()
        self.amplitude = nn.Parameter(torch.tensor(amplitude))

    def forward(self, images: Tensor) -> Tensor:
        return self.amplitude * images[:, -1:] * images[:, :-1]
