"""Long unrolls in the memory of few steps: the same derivative, the same model after it, and fewer graphs at once."""

import copy
import re
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from metasynth.bilevel import (
    BilevelProblem,
    BilevelSolver,
    FunctionalModel,
    Hypergradient,
    InnerStep,
    InnerUpdate,
    StepInputs,
    Unrolled,
    hypergradient,
)
from metasynth.bilevel.strategies import segments
from metasynth.segment import UNet, cross_entropy_loss

STEPS = 16


class Network(nn.Module):
    """A network with running statistics, dropout and a part that is computed again in its backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Any = checkpoint(lambda x: torch.tanh(self.norm(self.first(x))), x, use_reentrant=False)
        return self.last(nn.functional.dropout(hidden, 0.3, self.training))


def inner(model: nn.Module, outer: Tensor, x: Tensor) -> Tensor:
    return (model(x + outer.exp() * x.flip(0)) - x).square().mean()


def target(model: nn.Module, outer: Tensor, x: Tensor) -> Tensor:
    return (model(x) - x).square().mean()


def taken(strategy: Unrolled, problem: BilevelProblem) -> tuple[Hypergradient, InnerStep]:
    torch.manual_seed(0)
    model = Network().double()
    outer = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
    batches = list(torch.randn(STEPS, 6, 3, dtype=torch.float64))
    update = InnerUpdate(torch.optim.Adam(model.parameters(), lr=0.05))
    inputs = StepInputs(problem, FunctionalModel(model), update, outer, batches[: strategy.steps])
    return hypergradient(inputs, batches[0], strategy)


@pytest.mark.parametrize(("last", "mean_of"), [(None, 1), (1, 1), (7, 1), (None, 3), (None, 6), (None, STEPS), (7, 5)])
def test_with_statistics_dropout_and_checkpoints_it_is_the_same(last: int | None, mean_of: int) -> None:
    problem = BilevelProblem(inner, target)
    kept, kept_step = taken(Unrolled(STEPS, last=last, mean_of=mean_of), problem)
    again, again_step = taken(Unrolled(STEPS, last=last, remat=True, mean_of=mean_of), problem)
    assert again.gradients["outer"].item() == pytest.approx(kept.gradients["outer"].item(), rel=1e-12)
    assert kept.gradients["outer"].abs() > 1e-5
    assert again.outer_loss == kept.outer_loss
    assert again.inner_losses == kept.inner_losses
    assert all(torch.equal(a, b) for a, b in zip(again_step.parameters, kept_step.parameters, strict=True))
    assert again_step.buffers.keys() == kept_step.buffers.keys()
    assert all(torch.equal(again_step.buffers[name], value) for name, value in kept_step.buffers.items())


@pytest.mark.parametrize("remat", [False, True], ids=["kept", "again"])
@pytest.mark.parametrize("mean_of", [2, 5, STEPS])
def test_the_outer_loss_is_taken_at_the_mean_of_the_last_iterates(mean_of: int, remat: bool) -> None:
    """Against central differences of plain training with `torch.optim`."""
    torch.manual_seed(3)
    start = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    *batches, real = torch.randn(STEPS + 1, 6, 3, dtype=torch.float64)

    def trained(log_scale: Tensor) -> tuple[float, list[Tensor]]:
        model = copy.deepcopy(start)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        iterates = []
        for batch in batches:
            optimizer.zero_grad()
            inner(model, log_scale, batch).backward()
            optimizer.step()
            iterates.append([p.detach().clone() for p in model.parameters()])
        means = [torch.stack(values).mean(0) for values in zip(*iterates[-mean_of:], strict=True)]
        with torch.no_grad():
            for p, mean in zip(model.parameters(), means, strict=True):
                p.copy_(mean)
            return target(model, log_scale, real).item(), iterates[-1]

    at, step = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True), 1e-4
    with torch.no_grad():
        above, below = at + step, at - step
    expected = (trained(above)[0] - trained(below)[0]) / (2 * step)
    outer_loss, last = trained(at.detach())
    model = copy.deepcopy(start)
    update = InnerUpdate(torch.optim.Adam(model.parameters(), lr=0.05))
    inputs = StepInputs(BilevelProblem(inner, target), FunctionalModel(model), update, at, batches)
    result, taken_step = hypergradient(inputs, real, Unrolled(STEPS, remat=remat, mean_of=mean_of))
    assert result.gradients["outer"].item() == pytest.approx(expected, rel=1e-6)
    assert result.outer_loss.item() == pytest.approx(outer_loss, rel=1e-12)
    assert all(torch.equal(a, b) for a, b in zip(taken_step.parameters, last, strict=True))  # training goes on from it


def test_the_mean_is_over_steps_that_are_differentiated() -> None:
    for arguments, most in (({"steps": 3}, 3), ({"steps": 5, "last": 2}, 2)):
        for wrong in (0, most + 1, 1.5):
            expected = f"mean_of must be an integer from 1 to the {most} steps that are differentiated, got {wrong!r}"
            with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
                Unrolled(**arguments, mean_of=wrong)  # type: ignore[arg-type]


def test_few_graphs_are_held_at_once() -> None:
    living: list[weakref.ref[Tensor]] = []
    most = 0

    def counted(model: nn.Module, outer: Tensor, x: Tensor) -> Tensor:
        nonlocal most
        error = model(x + outer.exp() * x.flip(0)) - x
        living.append(weakref.ref(error))  # which the square keeps as long as its graph lives
        most = max(most, sum(ref() is not None for ref in living))
        return error.square().mean()

    problem = BilevelProblem(counted, target)
    taken(Unrolled(STEPS), problem)
    assert most == STEPS
    living.clear()
    most = 0
    taken(Unrolled(STEPS, remat=True), problem)
    assert most <= 5  # of a segment of √16 steps, and one on its way out


def test_draws_that_cannot_be_repeated_are_refused() -> None:
    own = torch.Generator().manual_seed(0)

    def drawn(model: nn.Module, outer: Tensor, x: Tensor) -> Tensor:
        return inner(model, outer, x + torch.randn(x.shape, dtype=x.dtype, generator=own))

    with pytest.raises(ValueError, match=r"evaluated again for Unrolled\(remat=True\) with the same random states, "):
        taken(Unrolled(4, remat=True), BilevelProblem(drawn, target))


def test_steps_taken_again_are_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """In single precision, where training would soon amplify the rounding of a gradient taken in another order."""
    off = []

    def compared(first: Tensor, again: Tensor, *_: object) -> None:
        off.append((first - again.detach()).abs().item())

    monkeypatch.setattr(segments, "require_equal_losses", compared)
    torch.manual_seed(0)
    model = UNet(4, 2, widths=(8, 16, 32), norm="instance")
    sigma = torch.tensor(0.1, requires_grad=True)
    batches = list(torch.rand(STEPS, 2, 1, 32, 32))

    def noisy(model: nn.Module, outer: Tensor, x: Tensor) -> Tensor:
        return cross_entropy_loss(model(x + outer * x.flip(-1)), (3 * x[:, 0]).long())

    update = InnerUpdate(torch.optim.Adam(model.parameters(), lr=5e-3))
    inputs = StepInputs(BilevelProblem(noisy, noisy), FunctionalModel(model), update, sigma, batches)
    hypergradient(inputs, batches[0], Unrolled(STEPS, remat=True))
    assert off == [0.0] * STEPS


@pytest.mark.parametrize("step", [0, 1])
def test_a_loss_of_any_step_that_does_not_repeat_itself_is_refused(step: int) -> None:
    calls = 0

    def changed(model: nn.Module, outer: Tensor, x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        factor = 1 + 1e-9 if calls == 5 + step else 1.0  # of four steps in two segments, the last of which is first
        return factor * inner(model, outer, x)

    with pytest.raises(ValueError, match=r"evaluated again for Unrolled\(remat=True\) with the same random states"):
        taken(Unrolled(4, remat=True), BilevelProblem(changed, target))


def test_a_solver_goes_the_same_way() -> None:
    """Through both optimisers, over several outer steps."""
    ways = []
    for remat in (False, True):
        torch.manual_seed(1)
        model = Network().double()
        outer = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)
        solver = BilevelSolver(
            BilevelProblem(inner, target),
            model,
            torch.optim.Adam(model.parameters(), lr=0.05),
            outer,
            torch.optim.Adam([outer], lr=0.1),
            Unrolled(5, remat=remat),
        )
        for _ in range(3):
            *batches, real = torch.randn(6, 6, 3, dtype=torch.float64)
            solver.step(batches, real)
        ways.append([outer.detach(), *(p.detach() for p in model.parameters())])
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(*ways, strict=True))
    assert ways[0][0] != -1.0
