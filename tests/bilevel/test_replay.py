"""Passes made twice: what is replayed, what moves once, and what is refused because it cannot be."""

from collections.abc import Callable

import pytest
import torch
from bilevel.against_mixed import REPLAYING, TARGET, assert_same, logits_loss, mixed_and, network
from bilevel.segmentation import PROBLEM, Batch, batch, segmenter
from torch import Tensor, nn

from metasynth.augment.noise import GaussianNoise
from metasynth.bilevel.hypergradient import Hypergradient, HypergradientStrategy, InnerStep, hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.finite_difference import FiniteDifference
from metasynth.bilevel.strategies.forward import Forward
from metasynth.bilevel.strategies.implicit import Implicit
from metasynth.bilevel.strategies.unrolled import Unrolled
from metasynth.bilevel.update.inner_update import InnerUpdate


@pytest.mark.parametrize(
    "strategy", [*REPLAYING.values(), Implicit(), Unrolled(2, last=1)], ids=lambda s: type(s).__name__
)
def test_buffers_and_random_state_move_once(strategy: HypergradientStrategy) -> None:
    model = network(nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
    outer = GaussianNoise(0.2).double()
    outer.register_buffer("count", torch.zeros(()))

    def counting(model: nn.Module, outer: nn.Module, given: Batch) -> Tensor:
        outer.count += 1
        return PROBLEM.inner_loss(model, outer, given)

    batches = [batch(k) for k in range(strategy.inner_steps)]
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    functional = FunctionalModel(model)
    torch.manual_seed(3)
    problem = BilevelProblem(counting, PROBLEM.outer_loss)
    _, step = hypergradient(StepInputs(problem, functional, InnerUpdate(inner), outer, batches), TARGET, strategy)
    state = torch.get_rng_state()
    functional.commit(step.parameters, step.buffers)

    native = network(nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
    its_inner = torch.optim.SGD(native.parameters(), lr=0.1)
    torch.manual_seed(3)
    for given in batches:
        its_inner.zero_grad()
        PROBLEM.inner_loss(native, outer, given).backward()
        its_inner.step()
    expected = native.state_dict()
    assert all(torch.allclose(v, expected[k], rtol=1e-12, atol=0) for k, v in model.state_dict().items())
    assert outer.count == len(batches)
    PROBLEM.outer_loss(native, outer, TARGET)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("strategy", REPLAYING)
def test_draws_that_cannot_be_replayed_are_refused(strategy: str) -> None:
    generator = torch.Generator().manual_seed(0)

    def drawing(model: nn.Module, outer: nn.Module, given: Batch) -> Tensor:
        draws = torch.randn(given.draws.shape, dtype=torch.float64, generator=generator)
        return PROBLEM.inner_loss(model, outer, Batch(given.images, given.labels, draws))

    with pytest.raises(ValueError, match=r"cannot be replayed; take the draws from the batch"):
        mixed_and(REPLAYING[strategy], BilevelProblem(drawing, PROBLEM.outer_loss), segmenter())


def test_draws_from_the_batch_or_torch_are_replayed() -> None:
    def drawing(model: nn.Module, outer: nn.Module, given: Batch) -> Tensor:
        return PROBLEM.inner_loss(model, outer, Batch(given.images, given.labels, torch.randn_like(given.draws)))

    for strategy in REPLAYING.values():
        assert_same(*mixed_and(strategy, BilevelProblem(drawing, PROBLEM.outer_loss), segmenter()))


def test_another_number_of_units_is_refused() -> None:
    calls = []

    def changing(model: nn.Module, outer: nn.Module, given: Batch) -> Tensor:
        calls.append(None)
        extra = outer(given.images, given.draws).relu().sum() if len(calls) > 1 else 0.0
        return PROBLEM.inner_loss(model, outer, given) + 0.0 * extra

    outer = GaussianNoise(0.2).double()
    model = segmenter()
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="other ReLUs or max-pools"):
        computed_with(BilevelProblem(changing, PROBLEM.outer_loss), model, inner, outer)


def computed_with(
    problem: BilevelProblem, model: nn.Module, inner: torch.optim.Optimizer, outer: nn.Module
) -> tuple[Hypergradient, InnerStep]:
    return hypergradient(
        StepInputs(problem, FunctionalModel(model), InnerUpdate(inner), outer, [batch(0)]), TARGET, FiniteDifference()
    )


class Doubling(torch.autograd.Function):
    """A function with a backward pass and no forward-mode derivative."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return 2 * gradient


@pytest.mark.parametrize(
    "operation",
    [lambda y: torch.cdist(y.flatten(1), y.flatten(1).detach() + 1), Doubling.apply],
    ids=["cdist", "custom"],
)
def test_operations_without_a_forward_derivative_are_named(operation: Callable[[Tensor], Tensor]) -> None:
    problem = BilevelProblem(logits_loss(lambda y, _: operation(y).square().mean()), PROBLEM.outer_loss)
    outer, model = GaussianNoise(0.2).double(), segmenter()
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"cannot be differentiated by Forward .*Mixed or FiniteDifference.*"):
        hypergradient(
            StepInputs(problem, FunctionalModel(model), InnerUpdate(inner), outer, [batch(0)]), TARGET, Forward()
        )
    result, _ = computed_with(problem, model, inner, outer)
    assert result.gradients["raw_sigma"].isfinite()
