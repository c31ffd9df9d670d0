"""Nothing about images: per-weight penalties of a regression, and recurrent and attention models as inner model."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from metasynth.bilevel.hypergradient import HypergradientStrategy, hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.strategies.unrolled import Unrolled
from metasynth.bilevel.update.inner_update import InnerUpdate

Data = tuple[Tensor, Tensor]


def test_learned_penalties_single_out_the_weights_that_matter() -> None:
    """Ten inputs of which three carry signal; few training rows, and a penalty exp(θ_i) w_i² learned for each."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.tensor([2.0, -1.5, 1.0] + [0.0] * 7)

    def rows(n: int) -> Data:
        x = torch.randn(n, 10, generator=generator)
        return x, x @ truth + torch.randn(n, generator=generator)

    train, held_out, test = rows(15), rows(200), rows(1000)

    def fit(model: nn.Module, data: Data) -> Tensor:
        return (model(data[0]).squeeze(1) - data[1]).square().mean()

    def penalised(model: nn.Module, outer: dict[str, Tensor], data: Data) -> Tensor:
        return fit(model, data) + (outer["log_penalty"].exp() * model.weight.square()).sum()

    model = nn.Linear(10, 1, bias=False)
    nn.init.zeros_(model.weight)
    plain = copy.deepcopy(model)
    outer = {"log_penalty": torch.full((1, 10), -3.0, requires_grad=True)}
    inner = torch.optim.SGD(model.parameters(), lr=0.05)
    solver = BilevelSolver(
        BilevelProblem(penalised, lambda m, o, data: fit(m, data)),
        model,
        inner,
        outer,
        torch.optim.Adam(outer.values(), lr=0.05),
        Unrolled(5),
    )
    for _ in range(150):
        report = solver.step([train] * 5, held_out)
    assert report.outer_steps == 150
    native = torch.optim.SGD(plain.parameters(), lr=0.05)
    for _ in range(750):
        native.zero_grad()
        fit(plain, train).backward()
        native.step()
    learned = outer["log_penalty"].detach().squeeze()
    assert learned[:3].max() < learned[3:].median()
    with torch.no_grad():
        assert fit(model, test) < 0.7 * fit(plain, test)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.cells = kind(3, 4, batch_first=True)
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(x)[0])


class ByMethod(nn.Module):
    """Whose losses call a submodule and a method instead of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.Linear(3, 4), nn.Linear(4, 1)

    def decode(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(x))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "sequential": lambda: nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 1)),
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "transformer": lambda: nn.Sequential(
        nn.Linear(3, 4), nn.TransformerEncoderLayer(4, 2, 8, 0.0, activation="gelu", batch_first=True)
    ),
    "by method": ByMethod,
}


def apply(model: nn.Module, x: Tensor) -> Tensor:
    return model.decode(model.encoder(x)) if isinstance(model, ByMethod) else model(x)


def inner_loss(model: nn.Module, outer: Tensor, x: Tensor) -> Tensor:
    return (apply(model, x * outer) - x.sum(dim=-1, keepdim=True)).square().mean()


def outer_loss(model: nn.Module, outer: Tensor, x: Tensor) -> Tensor:
    return (apply(model, x) - x.sum(dim=-1, keepdim=True)).square().mean()


@pytest.mark.parametrize("strategy", [Mixed(), Unrolled(2)], ids=["mixed", "unrolled-2"])
@pytest.mark.parametrize("name", MODELS)
def test_any_module_as_inner_model(name: str, strategy: HypergradientStrategy) -> None:
    """Central differences through native steps, and the solver's own steps."""
    torch.manual_seed(0)
    model = MODELS[name]().double()
    theta = torch.tensor([0.8, 1.1, 0.6], dtype=torch.float64, requires_grad=True)
    data = torch.randn(4, 5, 6, 3, dtype=torch.float64)
    inner = torch.optim.Adam(model.parameters(), lr=1e-2, eps=1e-3)
    problem = BilevelProblem(inner_loss, outer_loss)
    batches, target = list(data[: strategy.inner_steps]), data[3]

    def native(shift: float) -> tuple[float, nn.Module]:
        net, held = copy.deepcopy((model, inner))
        for given in batches:
            held.zero_grad()
            inner_loss(net, theta.detach() + shift, given).backward()
            held.step()
        return outer_loss(net, theta, target).item(), net

    with sdpa_kernel(SDPBackend.MATH):
        wide, narrow = ((native(s)[0] - native(-s)[0]) / (2 * s) for s in (1e-3, 5e-4))
        truth = (4 * narrow - wide) / 3
        functional = FunctionalModel(model)
        result, _ = hypergradient(StepInputs(problem, functional, InnerUpdate(inner), theta, batches), target, strategy)
        assert result.gradients["outer"].sum().item() == pytest.approx(truth, rel=1e-7)

        _, expected = native(0.0)
        BilevelSolver(problem, model, inner, theta, torch.optim.SGD([theta], lr=0.1), strategy).step(batches, target)
    for a, b in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
