"""The second-order part on a sub-batch and in chunks: exact where it should be, unbiased where it is drawn."""

import pytest
import torch
from bilevel.segmentation import Batch, Residual, batch, segmenter, trained
from support.strategies import taken
from torch import Tensor, nn

from metasynth.augment.noise import GaussianNoise
from metasynth.bilevel.batches import take_samples
from metasynth.bilevel.checks.preflight import preflight
from metasynth.bilevel.hypergradient import Hypergradient, HypergradientStrategy, hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.finite_difference import FiniteDifference
from metasynth.bilevel.strategies.forward import Forward
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.strategies.parts import InParts
from metasynth.bilevel.strategies.product import ProductStrategy
from metasynth.bilevel.strategies.unrolled import Unrolled
from metasynth.bilevel.update.inner_update import InnerUpdate
from metasynth.segment.losses import soft_dice_loss

STRATEGIES = taken("mixed", "forward", "finite_difference-reporting")


def inner_loss(model: nn.Module, outer: nn.Module, given: Batch) -> Tensor:
    """A mean over samples, unlike the Dice of the whole batch."""
    return soft_dice_loss(model(outer(given.images, given.draws)), given.labels, batch=False)


def outer_loss(model: nn.Module, outer: nn.Module, given: Batch) -> Tensor:
    return soft_dice_loss(model(given.images), given.labels, batch=False)


PROBLEM = BilevelProblem(inner_loss, outer_loss)


def of_samples(n: int, seed: int = 0) -> Batch:
    """n samples; ``batch`` gives two at a time."""
    pairs = [batch(100 * seed + k) for k in range((n + 1) // 2)]
    joined = Batch(*(torch.cat([getattr(p, name) for p in pairs]) for name in ("images", "labels", "draws")))
    return take_samples(joined, torch.arange(n))


def at(strategy: HypergradientStrategy, given: Batch) -> Hypergradient:
    model, outer = segmenter(), Residual()
    inner = trained(model, lambda p: torch.optim.Adam(p, lr=3e-3), outer, 20)
    return hypergradient(
        StepInputs(PROBLEM, FunctionalModel(model), InnerUpdate(inner), outer, [given]), of_samples(2, 9), strategy
    )[0]


def flat(result: Hypergradient) -> Tensor:
    return torch.cat([g.flatten() for g in result.gradients.values()])


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, None])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_chunks_of_any_size_give_the_whole(strategy: str, chunk: int | None) -> None:
    given = of_samples(5)
    whole, parts = at(Mixed(), given), at(InParts(STRATEGIES[strategy], chunk=chunk), given)
    off = (flat(parts) - flat(whole)).norm()
    assert off <= parts.diagnostics.get("error", 0.0) + 1e-10 * flat(whole).norm()
    assert off <= 1e-4 * flat(whole).norm()
    assert parts.inner_losses == whole.inner_losses


@pytest.mark.parametrize(
    ("strategy", "samples", "real"),
    [
        pytest.param(Mixed(), 2, 4, id="mixed"),
        pytest.param(Forward(), 2, 4, id="forward", marks=pytest.mark.slow),
        pytest.param(FiniteDifference(), 1, 4, id="finite_difference", marks=pytest.mark.slow),
        pytest.param(FiniteDifference(), 1, 1, id="economical"),
    ],
)
def test_a_random_sub_batch_is_unbiased(strategy: ProductStrategy, samples: int, real: int) -> None:
    """The mean over 400 draws lies within three standard errors of the hypergradient of the whole batches.

    Along the whole's own direction; economical is a quarter of both batches, the real one drawn anew as well.
    """
    given, target = of_samples(4), of_samples(4, 9)
    model, outer = segmenter(), Residual()
    inner = trained(model, lambda p: torch.optim.Adam(p, lr=3e-3), outer, 20)
    functional, draws = FunctionalModel(model), []
    exact = flat(hypergradient(StepInputs(PROBLEM, functional, InnerUpdate(inner), outer, [given]), target, Mixed())[0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for _ in range(400):
            part = take_samples(target, torch.randperm(4)[:real])
            result, _ = hypergradient(
                StepInputs(PROBLEM, functional, InnerUpdate(inner), outer, [given]), part, InParts(strategy, samples)
            )
            draws.append(flat(result))
    along = torch.stack(draws) @ (exact / exact.norm())
    assert along.std() > 1e-3 * exact.norm()  # the draws differ
    assert (along.mean() - exact.norm()).abs() <= 3 * along.std() / len(draws) ** 0.5


def test_a_sub_batch_as_large_as_the_batch_is_exact() -> None:
    given = of_samples(4)
    torch.testing.assert_close(flat(at(InParts(samples=9), given)), flat(at(Mixed(), given)), rtol=1e-12, atol=0)


def test_the_step_itself_is_of_the_whole_batch() -> None:
    """φ* does not depend on which samples the second derivative is taken of."""
    given, target = of_samples(5), of_samples(2, 9)
    committed = []
    for strategy in (Mixed(), InParts(FiniteDifference(), samples=1)):
        model, outer = segmenter(), GaussianNoise(0.2).double()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        frozen = torch.optim.SGD(outer.parameters(), lr=0.0)
        solver = BilevelSolver(PROBLEM, model, optimizer, outer, frozen, strategy)
        for _ in range(3):
            solver.step([given], target)
        committed.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*committed)


@pytest.mark.parametrize(
    ("problem", "norm"),
    [
        (BilevelProblem(lambda m, o, b: soft_dice_loss(m(o(b.images, b.draws)), b.labels), outer_loss), None),
        (PROBLEM, "batch"),
        (
            BilevelProblem(
                lambda m, o, b: inner_loss(m, o, Batch(b.images, b.labels, torch.randn_like(b.draws))), outer_loss
            ),
            None,
        ),
    ],
    ids=["batch-dice", "batch-norm", "own-draws"],
)
def test_losses_that_couple_samples_are_refused(problem: BilevelProblem, norm: str | None) -> None:
    model, outer = segmenter(norm=norm), GaussianNoise(0.2).double()
    inner = torch.optim.Adam(model.parameters())
    with pytest.raises(ValueError, match="InParts needs an inner_loss that is the mean over the samples"):
        preflight(problem, model, inner, outer, of_samples(4), of_samples(2, 9), InParts(samples=2))


def test_a_mean_over_samples_is_accepted() -> None:
    model, outer = segmenter().float(), GaussianNoise(0.2)
    given = of_samples(4)
    single = Batch(given.images.float(), given.labels, given.draws.float())
    preflight(PROBLEM, model, torch.optim.Adam(model.parameters()), outer, single, single, InParts(samples=2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InParts(Unrolled(2)), "strategy must be one of a single inner step in three parts .* got Unrolled"),
        (lambda: InParts(samples=0), "samples must be an integer of at least 1 or None, got 0"),
        (lambda: InParts(chunk=0.5), "chunk must be an integer of at least 1 or None, got 0.5"),
    ],
)
def test_options_out_of_range_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_draws_follow_the_global_stream() -> None:
    given, found = of_samples(5), []
    for seed in (1, 1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            found.append(flat(at(InParts(samples=2), given)))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
