"""How passes are carried out changes cost alone: channels-last weights, checkpointing, autocast."""

import pytest
import torch
from bilevel.segmentation import PROBLEM, Batch, Residual, batch, seeded
from support.strategies import each
from torch import Tensor

from metasynth.bilevel.hypergradient import Hypergradient, HypergradientStrategy, hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.finite_difference import FiniteDifference
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.update.inner_update import InnerUpdate
from metasynth.segment.unet import Norm, UNet

STRATEGIES = each(without=("in_parts", "implicit"))
"""Without what a Dice over the batch is not for, and an undamped solve, which magnifies rounding."""


def unet(norm: Norm | None = None, checkpoint: bool = False) -> UNet:
    return UNet(3, widths=(4, 6), norm=norm, generator=seeded(0), checkpoint=checkpoint).double()


def at(model: UNet, strategy: HypergradientStrategy) -> Hypergradient:
    outer = Residual()
    inner = torch.optim.SGD(model.parameters(), lr=0.3)
    batches = [batch(k) for k in range(strategy.inner_steps)]
    torch.manual_seed(0)
    return hypergradient(
        StepInputs(PROBLEM, FunctionalModel(model), InnerUpdate(inner), outer, batches), batch(9), strategy
    )[0]


def flat(result: Hypergradient) -> Tensor:
    return torch.cat([g.flatten() for g in result.gradients.values()])


@pytest.mark.parametrize("norm", [None, "batch"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_checkpointing_changes_no_hypergradient(strategy: str, norm: Norm | None) -> None:
    plain, checkpointed = (at(unet(norm, checkpoint), STRATEGIES[strategy]) for checkpoint in (False, True))
    assert flat(plain).norm() > 0
    torch.testing.assert_close(flat(checkpointed), flat(plain), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_checkpointing_moves_buffers_once(strategy: str) -> None:
    """Recomputation runs every normalisation again; running statistics must not notice."""
    committed = []
    for checkpoint in (False, True):
        model, outer = unet("batch", checkpoint), Residual()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        frozen = torch.optim.SGD(outer.parameters(), lr=0.0)
        solver = BilevelSolver(PROBLEM, model, optimizer, outer, frozen, STRATEGIES[strategy])
        for _ in range(2):
            solver.step([batch(k) for k in range(solver.strategy.inner_steps)], batch(9))
        solver.inner_step(batch(5))
        committed.append(dict(model.named_buffers()))
    for name, value in committed[0].items():
        torch.testing.assert_close(committed[1][name], value, rtol=1e-12, atol=0)
    moved = committed[0]["encoder.0.norms.0.num_batches_tracked"].item()
    assert moved == 2 * STRATEGIES[strategy].inner_steps + 1


def test_checkpointing_keeps_less() -> None:
    """Saved tensors of one pass of a deep level, counted where autograd saves them."""

    def saved(checkpoint: bool) -> int:
        kept: list[int] = []
        model = unet("batch", checkpoint)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t):
            model(batch(0).images)
        return sum(kept)

    assert saved(True) < 0.6 * saved(False)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_channels_last_gives_the_same_and_stays(strategy: str) -> None:
    results = []
    for form in (torch.contiguous_format, torch.channels_last):
        model, outer = unet().to(memory_format=form), Residual()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        solver = BilevelSolver(
            PROBLEM, model, optimizer, outer, torch.optim.SGD(outer.parameters(), lr=1.0), STRATEGIES[strategy]
        )
        torch.manual_seed(0)
        for _ in range(2):
            solver.step([batch(k) for k in range(solver.strategy.inner_steps)], batch(9))
        weight = model.encoder[1].convs[0].weight
        assert weight.is_contiguous(memory_format=form)
        results.append(torch.cat([p.detach().flatten() for p in (*model.parameters(), *outer.parameters())]))
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-11)


def single(given: Batch) -> Batch:
    return Batch(given.images.float(), given.labels, given.draws.float())


@pytest.mark.parametrize("strategy", ["mixed", "unrolled-3"])
def test_autocast_rounds_passes_and_keeps_the_rest_in_single_precision(strategy: str) -> None:
    chosen, found = STRATEGIES[strategy], []
    for autocast in (None, torch.bfloat16):
        problem = BilevelProblem(PROBLEM.inner_loss, PROBLEM.outer_loss, autocast=autocast)
        model, outer = unet().float(), Residual().float()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for k in range(20):
            optimizer.zero_grad()
            problem.inner_value(model, outer, single(batch(20 + k))).backward()
            optimizer.step()
        given = [single(batch(k)) for k in range(chosen.inner_steps)]
        result, step = hypergradient(
            StepInputs(problem, FunctionalModel(model), InnerUpdate(optimizer), outer, given), single(batch(9)), chosen
        )
        assert all(g.dtype == torch.float32 for g in result.gradients.values())
        assert all(p.dtype == torch.float32 for p in step.parameters)
        assert all(
            s.dtype == torch.float32 for states in step.optimizer.state for p in states.values() for s in p.values()
        )
        found.append(flat(result))
    cosine = torch.nn.functional.cosine_similarity(found[0], found[1], dim=0)
    assert cosine > 0.9
    assert not torch.equal(found[0], found[1])


def test_autocast_reaches_the_convolutions() -> None:
    seen: list[torch.dtype] = []

    def loss(model: UNet, outer: Residual, given: Batch) -> Tensor:
        logits = model(outer(given.images, given.draws))
        seen.append(logits.dtype)
        return logits.float().square().mean()

    problem = BilevelProblem(loss, loss, autocast=torch.bfloat16)
    model, outer = unet().float(), Residual().float()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    hypergradient(
        StepInputs(problem, FunctionalModel(model), InnerUpdate(optimizer), outer, [single(batch(0))]),
        single(batch(1)),
        Mixed(),
    )
    assert seen == [torch.bfloat16] * 2


def test_finite_differences_refuse_autocast() -> None:
    problem = BilevelProblem(PROBLEM.inner_loss, PROBLEM.outer_loss, autocast=torch.bfloat16)
    model, outer = unet().float(), Residual().float()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    outer_optimizer = torch.optim.SGD(outer.parameters(), lr=0.1)
    solver = BilevelSolver(problem, model, optimizer, outer, outer_optimizer, FiniteDifference())
    with pytest.raises(ValueError, match=r"FiniteDifference cannot be used with autocast=torch\.bfloat16"):
        solver.step([single(batch(0))], single(batch(1)))
