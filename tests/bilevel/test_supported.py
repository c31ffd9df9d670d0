"""Every row of docs/reference/supported.md is run: what is taken is right, what is refused says so as the row does."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from bilevel.native_training import by_training_again, outer_parameters
from support.cubes import Cube, DetachedCube
from support.strategies import taken
from torch import Tensor, nn
from torch.ao.quantization import quantize_dynamic
from torch.nn import functional
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "supported.md"
TAKEN = taken("mixed", "unrolled-2", "implicit", "forward", "finite_difference")
STRATEGIES = {type(one).__name__: one for one in TAKEN.values()}
KINDS = ("module", "model", "operation", "optimiser")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]


class Row(NamedTuple):
    """One of a table, whose kind is the head of its first column."""

    kind: str
    expression: str
    given: str
    taken_by: frozenset[str]
    messages: tuple[str, ...]


def rows() -> Iterator[Row]:
    kind, has_input = "", False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")] if line.startswith("| ") else []
        if not cells or cells[0].startswith("---"):
            continue
        if not cells[0].startswith("`"):
            kind, has_input = cells[0], "input" in cells
            continue
        expression, *rest = cells
        given = rest.pop(0) if has_input else "rows"
        yield Row(kind, expression.strip("`"), given, named(rest[0]), tuple(re.findall("`([^`]+)`", "".join(rest[1:]))))


def named(cell: str) -> frozenset[str]:
    """The strategies that a cell names."""
    if cell in ("all", "none"):
        return frozenset(STRATEGIES if cell == "all" else ())
    listed = set(cell.removeprefix("all but ").split(", "))
    assert listed <= STRATEGIES.keys(), f"{cell!r} names no strategy"
    return frozenset(STRATEGIES.keys() - listed if cell.startswith("all but ") else listed)


ROWS = list(rows())


@pytest.fixture(autouse=True)
def _in_double_precision() -> Iterator[None]:
    torch._dynamo.reset()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def inputs() -> dict[str, Tensor]:
    """What the tables call rows, images and so on: normal, but for the indices."""
    shapes = {
        "rows": (4, 6),
        "signals": (3, 2, 6),
        "images": (2, 2, 5, 6),
        "squares": (2, 4, 3, 6),
        "volumes": (2, 2, 4, 4, 6),
        "tokens": (3, 2, 6),
    }
    generator = torch.Generator().manual_seed(2)
    made = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {**made, "indices": torch.tensor([[0, 1], [1, 2], [1, 3]]), "classes": torch.tensor([0, 5, 2, 2])}


class Behind(nn.Module):
    """A module behind a linear layer; indices go into the module, whose output goes into the layer."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.first = nn.Linear(6, 6)
        self.last = nn.Linear(3, 2)

    def forward(self, given: Tensor) -> Tensor:
        if not given.is_floating_point():
            return self.last(self.module(given))
        found = self.module(self.first(given))
        return found[0] if isinstance(found, tuple) else found


def distance(x: Tensor) -> Tensor:
    """From different values in different places, by a function whose derivatives of any order depend on x."""
    return (functional.softplus(x) - torch.linspace(0, 1, x.numel()).reshape(x.shape)).square().mean()


class Checkpointed(nn.Module):
    """A model that is computed again in the backward pass."""

    def __init__(self, model: nn.Module, use_reentrant: bool = False) -> None:
        super().__init__()
        self.model, self.use_reentrant = model, use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.model, x, use_reentrant=self.use_reentrant)


def with_hook(x: Tensor, hook: Callable[[Tensor], Any]) -> Tensor:
    """The same values, whose gradient the hook is given."""
    copied = x + 0
    if copied.requires_grad:
        copied.register_hook(hook)
    return copied


def evaluated(expression: str, **given: Any) -> Any:
    """The value of an expression of the tables."""
    known = {"torch": torch, "nn": nn, "functional": functional, "prune": prune, "quantize_dynamic": quantize_dynamic}
    known |= {"checkpointed": Checkpointed}
    known |= {"Cube": Cube, "DetachedCube": DetachedCube, "with_hook": with_hook}
    known |= {"weight_norm": weight_norm, "orthogonal": orthogonal, "spectral_norm": spectral_norm}
    return eval(expression, {**known, **inputs(), **given})


def made(row: Row) -> tuple[BilevelProblem, Callable[[], nn.Module], Callable[[Any], torch.optim.Optimizer]]:
    """A problem with what a row is about in its place: in the model, in the inner loss or as inner optimiser."""

    def model() -> nn.Module:
        torch.manual_seed(0)
        if row.kind == "module":
            return Behind(evaluated(row.expression))
        plain = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 6))
        return evaluated(row.expression, model=plain) if row.kind == "model" else plain

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        if row.kind == "optimiser":
            return evaluated(row.expression, p=parameters)
        return torch.optim.SGD(parameters, lr=0.3)

    def values(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        return model(outer["gain"] * given) if given.is_floating_point() else outer["gain"] * model(given)

    def inner_loss(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        x = values(model, outer, given)
        found = evaluated(row.expression, x=x) if row.kind == "operation" else x
        return distance(found + outer["shift"])

    def outer_loss(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        return distance(values(model, {"gain": 1.0}, given))

    return BilevelProblem(inner_loss, outer_loss), model, optimizer


def solved(row: Row, strategy: HypergradientStrategy) -> Tensor:
    """The hypergradient that a solver moves the outer parameters by."""
    problem, make_model, make_optimizer = made(row)
    model, outer, batch = make_model(), outer_parameters(), inputs()[row.given]
    before = torch.stack([t.detach().clone() for t in outer.values()])
    optimizer = make_optimizer([p for p in model.parameters() if not nn.parameter.is_lazy(p)])
    solver = BilevelSolver(problem, model, optimizer, outer, torch.optim.SGD(outer.values(), lr=1.0), strategy)
    torch.manual_seed(1)
    solver.step([batch] * strategy.inner_steps, batch)
    return before - torch.stack([t.detach() for t in outer.values()])


def test_the_tables_are_read() -> None:
    assert {row.kind for row in ROWS} == set(KINDS)
    assert len({row.expression for row in ROWS}) == len(ROWS) > 90
    for row in ROWS:
        assert bool(row.messages) == (row.taken_by != STRATEGIES.keys()), row


@pytest.mark.parametrize("row", ROWS, ids=[row.expression for row in ROWS])
def test_a_row_is_true(row: Row) -> None:
    said = [refusal_of(row, name) for name in STRATEGIES if name not in row.taken_by]
    for line in said:
        assert any(message in line for message in row.messages), line
    for message in row.messages:
        assert any(message in line for line in said), message
    for name in row.taken_by:
        strategy = STRATEGIES[name]
        found = solved(row, strategy)
        if name != "Implicit":
            assert found.abs().max() > 1e-9
            problem, make_model, make_optimizer = made(row)
            batch = inputs()[row.given]
            expected = by_training_again(problem, make_model, make_optimizer, batch, strategy.inner_steps)
            torch.testing.assert_close(found, expected, rtol=2e-5, atol=1e-8, msg=lambda m, name=name: f"{name}: {m}")


def refusal_of(row: Row, name: str) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        solved(row, STRATEGIES[name])
    assert "\n" not in str(caught.value)
    return str(caught.value)
