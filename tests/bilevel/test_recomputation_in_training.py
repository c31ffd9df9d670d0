"""Checkpointed blocks with running statistics and dropout, against central differences over trainings without them."""

from collections.abc import Callable

import pytest
import torch
from bilevel.native_training import by_training_again, outer_parameters
from support.strategies import BIASED, EACH
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.patched.recomputation import REENTRANT
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver

ROWS = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """A layer whose calls are nested as deep as ``how`` says, each computed again in the backward pass."""

    def __init__(self, how: str, couples: bool) -> None:
        super().__init__()
        self.layer, self.how = nn.Linear(6, 6), how
        self.norm = nn.BatchNorm1d(6) if couples else nn.LayerNorm(6)
        self.dropout = nn.Dropout(0.4 if couples else 0.0)

    def within(self, x: Tensor) -> Tensor:
        return x + self.dropout(torch.tanh(self.norm(self.layer(x))))

    def twice(self, x: Tensor) -> Tensor:
        return checkpoint(self.within, x, use_reentrant=False).sin()

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "plain":
            return self.within(x).sin()
        if self.how == "nested":
            return checkpoint(self.twice, x, use_reentrant=False)
        if self.how == "without its random state":
            return checkpoint(self.within, x, use_reentrant=False, preserve_rng_state=False).sin()
        if self.how == "reentrant within":
            return checkpoint(lambda y: checkpoint(self.within, y, use_reentrant=True), x, use_reentrant=False)
        return checkpoint(self.within, x, use_reentrant=True)


def network(how: str, couples: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), Block(how, couples), nn.Sequential(Block(how, couples)), nn.Linear(6, 2)).to(
        torch.float64
    )


def inner_loss(model: nn.Module, outer: dict[str, Tensor], given: Tensor) -> Tensor:
    return (model(given * outer["gain"] + outer["shift"]) - given[:, :2]).square().mean()


def outer_loss(model: nn.Module, outer: dict[str, Tensor], given: Tensor) -> Tensor:
    return (model(given) - given[:, :2].abs()).square().mean()


PROBLEM = BilevelProblem(inner_loss, outer_loss)


def adam(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.1, eps=0.01)  # type: ignore[arg-type]


def solved(model: nn.Module, strategy: HypergradientStrategy, checked: bool = True) -> tuple[Tensor, list[Tensor]]:
    """The hypergradient that a solver moves by, and the model's parameters and buffers after its step."""
    outer = outer_parameters()
    before = torch.stack([t.detach().clone() for t in outer.values()])
    own = torch.optim.SGD(outer.values(), lr=1.0)
    solver = BilevelSolver(PROBLEM, model, adam(model.parameters()), outer, own, strategy, check=checked)
    torch.manual_seed(1)
    solver.step([ROWS] * strategy.inner_steps, ROWS)
    return before - torch.stack([t.detach() for t in outer.values()]), list(model.state_dict().values())


@pytest.mark.parametrize("how", ["nested", "without its random state"])
@pytest.mark.parametrize("strategy", EACH)
def test_every_strategy(strategy: str, how: str) -> None:
    chosen, couples = EACH[strategy], strategy != "in_parts"  # which is not for what couples samples
    found, state = solved(network(how, couples), chosen)
    expected, plain = solved(network("plain", couples), chosen)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)
    assert all(torch.equal(a, b) for a, b in zip(state, plain, strict=True))
    if strategy not in BIASED:
        theirs = by_training_again(PROBLEM, lambda: network("plain", couples), adam, ROWS, chosen.inner_steps)
        torch.testing.assert_close(found, theirs, rtol=1e-5, atol=1e-9)
    assert found.abs().min() > 1e-6


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("how", ["reentrant", "reentrant within"])
@pytest.mark.parametrize("strategy", EACH)
def test_the_older_kind_is_refused_where_it_is_met(strategy: str, how: str, checked: bool) -> None:
    model = network(how, couples=False)
    before = [value.clone() for value in model.state_dict().values()]
    with pytest.raises(ValueError, match="use_reentrant") as caught:
        solved(model, EACH[strategy], checked)
    assert str(caught.value) == REENTRANT
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before, strict=True))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("wrap", [torch.compile, lambda model, backend: model.compile(backend=backend) or model])
def test_a_compiled_model_has_its_checkpointing_in_its_own_passes(wrap: Callable[..., nn.Module]) -> None:
    torch._dynamo.reset()
    trained = []
    for model in (wrap(network("nested", False), backend="aot_eager"), network("plain", False)):
        outer = outer_parameters()
        solver = BilevelSolver(PROBLEM, model, adam(model.parameters()), outer, torch.optim.SGD(outer.values(), lr=1.0))
        solver.step([ROWS], ROWS)
        solver.inner_step(ROWS)
        trained.append([*model.parameters(), *outer.values()])
    for compiled, plain in zip(*trained, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-9, atol=1e-12)
