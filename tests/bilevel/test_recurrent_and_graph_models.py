"""An LSTM, and messages along the edges of a graph, under every strategy."""

from collections.abc import Callable

import pytest
import torch
from bilevel.any_model import PROBLEM, adam, require_contract, solved
from bilevel.native_training import outer_parameters
from support.strategies import EACH
from torch import Tensor, nn

from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.strategies.forward import Forward
from metasynth.bilevel.strategies.implicit import Implicit
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.strategies.unrolled import Unrolled

STEPS = torch.randn(4, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Recurrent(nn.Module):
    """Two layers in both directions, and one whose state is projected."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(6, 3, num_layers=2, batch_first=True, bidirectional=True)
        self.after = nn.LSTM(6, 4, proj_size=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        self.cells.flatten_parameters()
        return self.after(self.cells(x)[0])[0][:, -1]


class Packed(Recurrent):
    """On sequences of different lengths."""

    def forward(self, x: Tensor) -> Tensor:
        lengths = torch.tensor([3, 1, 2, 3][: len(x)])
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.after(nn.utils.rnn.pad_packed_sequence(self.cells(packed)[0], batch_first=True)[0])[0].mean(1)


class Messages(nn.Module):
    """Three nodes with two features, which send messages along edges; their sums and means are taken by scattering."""

    def __init__(self) -> None:
        super().__init__()
        self.message, self.update = nn.Linear(4, 3), nn.Linear(5, 2)
        self.register_buffer("edges", torch.tensor([[0, 1, 1, 2, 2], [1, 0, 2, 0, 1]]))

    def forward(self, x: Tensor) -> Tensor:
        nodes = x.flatten(1)[:, :6].unflatten(1, (3, 2))
        for _ in range(2):
            source, target = self.edges
            messages = torch.tanh(self.message(torch.cat([nodes[:, source], nodes[:, target]], -1)))
            total = torch.zeros(len(x), 3, 3, dtype=x.dtype).index_add(1, target, messages)
            nodes = torch.tanh(nodes + self.update(torch.cat([nodes, total], -1)))
        where = torch.tensor([0, 0, 1]).expand(len(x), 2, 3)
        sums = torch.zeros(len(x), 2, 2, dtype=x.dtype).scatter_add(2, where, nodes.mT)
        means = torch.zeros(len(x), 2, 2, dtype=x.dtype).scatter_reduce(2, where, nodes.mT, "mean", include_self=False)
        return (sums * means).sum(2)


def made(kind: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().double()


@pytest.mark.parametrize("kind", [Recurrent, Packed, Messages])
@pytest.mark.parametrize("strategy", EACH)
def test_every_strategy(strategy: str, kind: Callable[[], nn.Module]) -> None:
    # The lengths are of the places in a batch, not of its samples.
    if (strategy, kind) == ("in_parts", Packed):
        with pytest.raises(ValueError, match=r"^InParts needs an inner_loss that is the mean over the samples"):
            require_contract(lambda: made(kind), STEPS, strategy)
        return
    require_contract(lambda: made(kind), STEPS, strategy)


PROJECTED = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")


@PROJECTED
@pytest.mark.parametrize("strategy", [Mixed(), Unrolled(2), Implicit()], ids=["mixed", "unrolled", "implicit"])
def test_the_kernel_of_single_precision_is_differentiated_twice(strategy: Mixed | Unrolled | Implicit) -> None:
    """On CPUs it is another than that of double precision."""
    expected, _ = solved(made(Recurrent), STEPS, strategy)
    model = made(Recurrent).float()
    outer = {name: value.detach().float().requires_grad_() for name, value in outer_parameters().items()}
    started = torch.stack([t.detach().clone() for t in outer.values()])
    own = torch.optim.SGD(outer.values(), lr=1.0)
    solver = BilevelSolver(PROBLEM, model, adam(model.parameters()), outer, own, strategy)
    solver.step([STEPS.float()] * strategy.inner_steps, STEPS.float())
    found = started - torch.stack([t.detach() for t in outer.values()])
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-6)


@PROJECTED
def test_forward_mode_does_not_pass_that_kernel() -> None:
    model = made(Recurrent).float()
    outer = {name: value.detach().float().requires_grad_() for name, value in outer_parameters().items()}
    own = torch.optim.SGD(outer.values(), lr=1.0)
    solver = BilevelSolver(PROBLEM, model, adam(model.parameters()), outer, own, Forward())
    with pytest.raises(
        ValueError, match=r"^inner_loss cannot be differentiated by Forward .*; choose Mixed or"
    ) as caught:
        solver.step([STEPS.float()], STEPS.float())
    assert "\n" not in str(caught.value)
