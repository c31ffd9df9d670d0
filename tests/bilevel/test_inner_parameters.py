"""Tied, frozen, unused and omitted parameters of the inner model, under every strategy."""

import copy
from functools import partial

import pytest
import torch
from support.problems import MakeOptimiser
from support.strategies import BIASED, each, taken
from torch import Tensor, nn

from metasynth.bilevel.hypergradient import hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.update.inner_update import InnerUpdate

STRATEGIES = each(without=("implicit",)) | taken("in_parts-of-2", "implicit-solved")
OPTIMISERS: dict[str, MakeOptimiser] = {
    "nesterov": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "adamw": partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1, eps=1e-3),
}


class Net(nn.Module):
    """Two layers with one weight; a frozen scale; a second head that no loss uses; a bias left to the caller."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.head, self.unused = nn.Linear(4, 2), nn.Linear(4, 3)
        self.second.weight = self.first.weight
        self.scale = nn.Parameter(torch.tensor(0.7), requires_grad=False)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.scale * torch.tanh(self.second(torch.tanh(self.first(x)))))


OMITTED = ("second.bias", "head.weight")


def batch(index: int) -> tuple[Tensor, Tensor]:
    x, draws = torch.randn(2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(index))
    return x, draws


def inner_loss(model: nn.Module, outer: dict[str, Tensor], given: tuple[Tensor, Tensor]) -> Tensor:
    x, draws = given
    return (model(x + outer["sigma"] * draws) - outer["gain"] * x[:, :2]).square().mean()


def outer_loss(model: nn.Module, outer: dict[str, Tensor], given: tuple[Tensor, Tensor]) -> Tensor:
    return (model(given[0]) - given[0][:, :2]).square().mean()


PROBLEM = BilevelProblem(inner_loss, outer_loss)


def theta() -> dict[str, Tensor]:
    return {
        name: torch.tensor(v, dtype=torch.float64, requires_grad=True) for name, v in (("sigma", 0.3), ("gain", 0.8))
    }


def optimiser_of(model: Net, optimiser: str) -> torch.optim.Optimizer:
    """Without the omitted parameters; with those that are frozen or unused."""
    return OPTIMISERS[optimiser]([p for name, p in model.named_parameters() if name not in OMITTED])


def native(
    optimiser: str, warm: int, batches: list[int], outer: dict[str, Tensor]
) -> tuple[Net, torch.optim.Optimizer]:
    """Warm steps at the usual θ, then steps at another one."""
    model = Net()
    inner = optimiser_of(model, optimiser)
    for index, values in [*((100 + k, theta()) for k in range(warm)), *((k, outer) for k in batches)]:
        inner.zero_grad()
        inner_loss(model, {name: t.detach() for name, t in values.items()}, batch(index)).backward()
        inner.step()
    inner.zero_grad()
    return model, inner


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name not in BIASED])
def test_hypergradient(strategy: str, optimiser: str) -> None:
    """Central differences through native steps."""
    chosen, outer = STRATEGIES[strategy], theta()
    indices = list(range(chosen.inner_steps))
    model, inner = native(optimiser, 5, [], outer)
    result, _ = hypergradient(
        StepInputs(PROBLEM, FunctionalModel(model), InnerUpdate(inner), outer, [batch(k) for k in indices]),
        batch(50),
        chosen,
    )

    def after(name: str, shift: float) -> float:
        moved = {n: t.detach() + (shift if n == name else 0.0) for n, t in outer.items()}
        return outer_loss(native(optimiser, 5, indices, moved)[0], outer, batch(50)).item()

    for name, found in result.gradients.items():
        wide, narrow = ((after(name, s) - after(name, -s)) / (2 * s) for s in (1e-3, 5e-4))
        assert found is not None
        tolerance = 1e-6 if strategy == "finite_difference" else 1e-7
        assert found.item() == pytest.approx((4 * narrow - wide) / 3, rel=tolerance, abs=1e-10)


def test_implicit_hypergradient() -> None:
    """-(∂g/∂θ)ᵀ (H + I)⁻¹ v with all matrices written out, over the parameters that the inner steps move."""
    outer = theta()
    model, inner = native("nesterov", 5, [], outer)
    chosen = STRATEGIES["implicit-solved"]
    result, taken = hypergradient(
        StepInputs(PROBLEM, FunctionalModel(model), InnerUpdate(inner), outer, [batch(0), batch(1)]), batch(50), chosen
    )

    at, _ = native("nesterov", 5, [0, 1], outer)
    trained = ["first.weight", "first.bias", "head.bias"]
    held = dict(at.named_parameters())

    def gradient(values: list[Tensor]) -> list[Tensor]:
        bound = dict(zip(trained, values, strict=True))
        full = {**held, **bound, "second.weight": bound["first.weight"]}
        loss = inner_loss(lambda x: torch.func.functional_call(at, full, (x,)), outer, batch(1))
        return list(torch.autograd.grad(loss, values, create_graph=True))

    phi = [held[n].detach().requires_grad_() for n in trained]
    g = torch.cat([t.flatten() for t in gradient(phi)])
    rows = [torch.autograd.grad(e, [*phi, *outer.values()], retain_graph=True) for e in g]
    hessian = torch.stack([torch.cat([t.flatten() for t in row[: len(phi)]]) for row in rows])
    mixed = torch.stack([torch.stack(row[len(phi) :]) for row in rows])
    v = torch.cat(
        [t.flatten() for t in torch.autograd.grad(outer_loss(at, outer, batch(50)), [held[n] for n in trained])]
    )
    expected = -mixed.T @ torch.linalg.solve(hessian + torch.eye(len(v), dtype=v.dtype), v)
    assert result.diagnostics["converged"] == 1.0
    torch.testing.assert_close(torch.stack(list(result.gradients.values())), expected, rtol=1e-8, atol=1e-12)
    for found, wanted in zip(taken.parameters, at.parameters(), strict=True):
        torch.testing.assert_close(found, wanted.detach(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_commit(strategy: str, optimiser: str) -> None:
    """Weights and moments are those of native steps; what has no gradient has neither moved nor any state."""
    chosen, outer = STRATEGIES[strategy], theta()
    model = Net()
    before = copy.deepcopy(dict(model.named_parameters()))
    inner = optimiser_of(model, optimiser)
    solver = BilevelSolver(PROBLEM, model, inner, outer, torch.optim.SGD(outer.values(), lr=0.0), chosen)
    for _ in range(2):
        first = solver.inner_steps
        solver.step([batch(first + k) for k in range(chosen.inner_steps)], batch(50))
    solver.inner_step(batch(solver.inner_steps))
    wanted, other = native(optimiser, 0, list(range(solver.inner_steps)), outer)
    assert model.second.weight is model.first.weight
    for (name, found), value in zip(model.named_parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(found, value, rtol=0, atol=1e-12, msg=name)
        stays = name in (*OMITTED, "scale", "unused.weight", "unused.bias")
        assert torch.equal(found, before[name]) == stays, name
        assert (found in inner.state) == (not stays), name
        assert found.requires_grad == (name != "scale")
        assert found.grad is None
    states, expected = inner.state_dict()["state"], other.state_dict()["state"]
    assert states.keys() == expected.keys()
    for index, state in expected.items():
        for key, value in state.items():
            torch.testing.assert_close(states[index][key], value, rtol=0, atol=1e-12)
