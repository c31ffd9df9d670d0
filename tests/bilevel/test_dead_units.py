"""Learned noise through adaptive optimisers: at their first step, later, and where gradients have always been zero."""

from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
from bilevel.against_mixed import REPLAYING
from bilevel.segmentation import (
    OPTIMISERS,
    WARM_STEPS,
    along_direction,
    batch,
    central_difference,
    computed,
    segmenter,
    trained,
    with_dead_units,
)
from support.strategies import EXACT, STRATEGIES
from torch import nn

from metasynth.augment.noise import GaussianNoise
from metasynth.bilevel.hypergradient import hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.finite_difference import FiniteDifference
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.update.inner_update import InnerUpdate

BOUND = 1e-6
"""Relative error allowed."""

TARGET = batch(99)

# Epsilon is above the gradients' size: else the first step of Adam is sign(g) and has no derivative to speak of.
COLD = {
    "adam": partial(torch.optim.Adam, lr=0.03, eps=1e-2),
    "adamw": partial(torch.optim.AdamW, lr=0.03, eps=1e-2, weight_decay=0.1),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.01, alpha=0.5, eps=1e-2),
    "rmsprop-centred": partial(torch.optim.RMSprop, lr=0.01, alpha=0.5, eps=1e-2, momentum=0.5, centered=True),
    "amsgrad": partial(torch.optim.Adam, lr=0.03, eps=1e-2, amsgrad=True),
    "adagrad": partial(torch.optim.Adagrad, lr=0.03, eps=1e-2),
    "adadelta": partial(torch.optim.Adadelta, lr=1.0, eps=1e-4),
    # With a short memory the larger of two is the same one on both sides of a difference.
    "adamax": partial(torch.optim.Adamax, lr=0.03, betas=(0.9, 0.5), eps=1e-2),
    "nadam": partial(torch.optim.NAdam, lr=0.03, eps=1e-2),
    "radam": partial(torch.optim.RAdam, lr=1.0, betas=(0.9, 0.95), eps=1e-1),
    "asgd": partial(torch.optim.ASGD, lr=0.3),
}

CHOSEN = ["mixed", "forward", "unrolled-2", "unrolled-5"]

ONE = [torch.tensor(1.0, dtype=torch.float64)]


def relative_error(value: float, truth: float) -> float:
    return abs(value - truth) / abs(truth)


@pytest.mark.parametrize("optimiser", COLD)
@pytest.mark.parametrize("strategy", CHOSEN)
def test_learned_noise_from_cold_moments(strategy: str, optimiser: str) -> None:
    model, outer, chosen = segmenter(), GaussianNoise(0.2).double(), EXACT[strategy]
    inner = COLD[optimiser](model.parameters())
    batches = [batch(k) for k in range(chosen.inner_steps)]
    h = computed(model, inner, outer, batches, TARGET, chosen).gradients["raw_sigma"].item()
    truth = central_difference(along_direction(model, inner, outer, batches, TARGET, ONE))
    assert relative_error(h, truth) < BOUND


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("optimiser", COLD)
@pytest.mark.parametrize("strategy", CHOSEN)
def test_dead_units(strategy: str, optimiser: str, warm: bool) -> None:
    model, outer, chosen = with_dead_units(), GaussianNoise(0.2).double(), EXACT[strategy]
    make = (COLD | OPTIMISERS if warm else COLD)[optimiser]
    inner = trained(model, make, outer, WARM_STEPS if warm else 0)
    if warm:
        state = inner.state[model.encoder[0].convs[0].weight]
        # Adamax's is never zero, and ASGD has none.
        for name in {"square_avg", "exp_avg_sq", "sum", "row_var"} & state.keys():
            assert (state[name][0] == 0).all()
            assert (state[name][1:] > 0).all()
    batches = [batch(30 + k) for k in range(chosen.inner_steps)]
    h = computed(model, inner, outer, batches, TARGET, chosen).gradients["raw_sigma"].item()
    truth = central_difference(along_direction(model, inner, outer, batches, TARGET, ONE))
    assert relative_error(h, truth) < BOUND


@cache
def case(optimiser: str, dead: bool) -> tuple[nn.Module, torch.optim.Optimizer, nn.Module, float]:
    """A trained model and the truth by central differences."""
    model, outer = with_dead_units() if dead else segmenter(), GaussianNoise(0.2).double()
    inner = trained(model, OPTIMISERS[optimiser], outer, WARM_STEPS)
    one = [torch.tensor(1.0, dtype=torch.float64)]
    return model, inner, outer, central_difference(along_direction(model, inner, outer, [batch(0)], TARGET, one))


@pytest.mark.parametrize("dead", [False, True], ids=["alive", "dead"])
@pytest.mark.parametrize("optimiser", ["sgd", "nesterov", "adam", "adamw", "rmsprop", "rmsprop-centred"])
@pytest.mark.parametrize("strategy", [*REPLAYING, "finite_difference-limited"])
def test_learned_noise_from_warm_moments(strategy: str, optimiser: str, dead: bool) -> None:
    model, inner, outer, truth = case(optimiser, dead)
    chosen = STRATEGIES[strategy]
    result = computed(model, inner, outer, [batch(0)], TARGET, chosen)
    error = abs(result.gradients["raw_sigma"].item() - truth)
    assert error < 1e-6 * abs(truth)
    if strategy != "forward":
        exact = computed(model, inner, outer, [batch(0)], TARGET, Mixed()).gradients["raw_sigma"].item()
        assert abs(result.gradients["raw_sigma"].item() - exact) <= result.diagnostics["error"]
        assert result.diagnostics["error"] < 1e-4 * abs(truth)


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_excess_can_be_left_out(optimiser: str) -> None:
    model, inner, outer, truth = case(optimiser, False)
    dropped = FiniteDifference(limit=3.0, drop_excess=True)
    h = computed(model, inner, outer, [batch(0)], TARGET, dropped).gradients["raw_sigma"].item()
    assert abs(h - truth) > 1e-3 * abs(truth)


FLAT = {
    torch.optim.Adam: (0.5, 0.5),
    torch.optim.AdamW: (0.5, 0.5),
    torch.optim.RMSprop: (0.5, 0.5),
    torch.optim.Adagrad: (0.5, 0.5),
    torch.optim.Adamax: (0.5, 0.5),
    torch.optim.Adafactor: ((0.5, 1.0), 0.5),
    torch.optim.Adadelta: (0.5, 1.0),
    torch.optim.RAdam: (0.5, 1.0),
}
"""Epsilons, and what a gradient is divided by where it and all moments are zero."""


@pytest.mark.parametrize("make", FLAT)
@pytest.mark.parametrize("strategy", ["mixed", "unrolled"])
def test_zero_gradient_that_depends_on_the_outer_parameter(
    strategy: str, make: Callable[..., torch.optim.Optimizer]
) -> None:
    """At θ = 0 the gradient θ is zero, and so are the moments; the update -lr θ/(|θ| + eps) has the slope -lr/eps."""

    model = nn.Linear(1, 1, bias=False).double()
    theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    problem = BilevelProblem(lambda m, o, b: o * m.weight.sum(), lambda m, o, b: m.weight.sum())
    eps, below = FLAT[make]
    inner = make(model.parameters(), lr=0.1, eps=eps)
    result, _ = hypergradient(
        StepInputs(problem, FunctionalModel(model), InnerUpdate(inner), theta, [None]), None, EXACT[strategy]
    )
    assert result.gradients["outer"].item() == pytest.approx(-0.1 / below, rel=1e-12)
