"""An outer parameter without a hypergradient is refused in one line that says which loss cuts it off, and where."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bilevel.preflight_cases import check, inner_loss, network, outer_loss, outer_parameters, refuse
from support.strategies import each
from torch import Tensor, nn

from metasynth.bilevel.checks.graph_ends import functions_of_users
from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.problem import BilevelProblem, Loss
from metasynth.bilevel.processes.averaged import Averaged
from metasynth.bilevel.strategies.finite_difference import FiniteDifference
from metasynth.bilevel.strategies.forward import Forward
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.strategies.parts import InParts
from metasynth.bilevel.update.inner_update import InnerUpdate

# Batch statistics; and what needs no connection.
STRATEGIES = each(without=("in_parts", "evolution_strategies"))


def with_shift(change: Callable[[Tensor], Any]) -> Loss:
    """The inner loss with something made of the shift in its place."""

    def loss(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        return inner_loss(model, {"gain": outer["gain"], "shift": change(outer["shift"])}, given)

    return loss


def without_grad(shift: Tensor) -> Tensor:
    with torch.no_grad():
        return 2 * shift


class Rounded(torch.autograd.Function):
    """An operation that says it has no derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rounded = (8 * x).floor()
        ctx.mark_non_differentiable(rounded)
        return rounded

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> None:
        return None


CUTS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "detach": (lambda shift: shift.exp().detach(), "detach"),
    "detach in place": (lambda shift: shift.exp().detach_(), "detach_"),
    "data": (lambda shift: shift.data, "data"),
    "item": (lambda shift: shift.item(), "item"),
    "float": (lambda shift: float(shift), "float()"),
    "list": (lambda shift: torch.stack([shift, shift]).tolist()[0], "tolist"),
    "numpy": (lambda shift: torch.tensor(shift.detach().numpy()), "detach"),
    "no_grad": (without_grad, "mul under torch.no_grad()"),
    "integer": (lambda shift: (100 * shift).long(), "long"),
    "argmax": (lambda shift: torch.stack([shift, torch.tensor(0.3)]).argmax(), "argmax"),
    "comparison": (lambda shift: torch.where(shift > 0, 1.0, 2.0), "gt"),
}


def line_of(function: Callable[..., Any]) -> int:
    """The last line of a function of this file."""
    lines, start = inspect.getsourcelines(function)
    return start + len(lines) - 1


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True to a scalar:UserWarning")
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", CUTS)
def test_where_the_graph_ends(name: str, strategy: str) -> None:
    cut, operation = CUTS[name]
    message = refuse(
        "outer parameter shift cannot be learned: inner_loss depends on it, but the graph ends at ",
        problem=BilevelProblem(with_shift(cut), outer_loss),
        strategy=STRATEGIES[strategy],
    )
    ends = message.partition("ends at ")[2].partition(";")[0]
    assert ends.startswith(f"{operation} (test_preflight_connection.py, line {line_of(cut)})")
    assert message.endswith("; outer_loss does not use it")


def test_an_operation_without_a_derivative() -> None:
    refuse(
        "inner_loss depends on it, but no graph leads there: detach",
        problem=BilevelProblem(with_shift(Rounded.apply), outer_loss),
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["add", "sum of squares"])
def test_what_enters_additively(name: str, strategy: str) -> None:
    terms: dict[str, Callable[[Tensor], Tensor]] = {"add": lambda s: s, "sum of squares": lambda s: 3 * s.square()}

    def loss(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        return model(given * outer["gain"]).square().mean() + terms[name](outer["shift"])

    refuse(
        r"outer parameter shift cannot be learned: inner_loss depends on it, but its gradient in the model's "
        r"parameters does not \(the graphs of both meet only in Add\); outer_loss does not use it",
        problem=BilevelProblem(loss, outer_loss),
        strategy=STRATEGIES[strategy],
    )
    check(BilevelProblem(loss, lambda m, o, b: outer_loss(m, o, b) + o["shift"]), strategy=STRATEGIES[strategy])


def unused(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
    return inner_loss(model, {"gain": outer["gain"], "shift": 0.1}, given)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_not_used(strategy: str) -> None:
    outer = {**outer_parameters(), "third": torch.tensor(1.0, requires_grad=True)}
    refuse(
        r"outer parameter shift cannot be learned: inner_loss does not use it; outer_loss does not use it "
        r"\(nor can third\)$",
        problem=BilevelProblem(unused, outer_loss),
        outer=outer,
        strategy=STRATEGIES[strategy],
    )


def test_the_outer_loss_is_explained_too() -> None:
    def outer_only(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        return outer_loss(model, outer, given) + outer["shift"].item()

    refuse(
        "inner_loss does not use it; outer_loss depends on it, but the graph ends at item",
        problem=BilevelProblem(unused, outer_only),
    )


def test_a_loss_that_draws_for_itself_is_not_said_to_depend() -> None:
    generator = torch.Generator().manual_seed(0)

    def noisy(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        return unused(model, outer, given + torch.randn(given.shape, generator=generator))

    refuse("inner_loss does not use it, or cuts the graph", problem=BilevelProblem(noisy, outer_loss))


def test_what_only_a_report_reads_is_told_from_what_the_loss_depends_on() -> None:
    log: list[float] = []

    def logging(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        log.append(outer["shift"].item())
        return unused(model, outer, given)

    refuse("inner_loss reads it, but the graph ends at item", problem=BilevelProblem(logging, outer_loss))


def test_a_hyperparameter_of_the_update_is_a_way() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    learned = InnerUpdate(optimizer, hyperparameters=lambda outer, group: {"lr": group["lr"] * outer["shift"].exp()})
    check(BilevelProblem(unused, outer_loss), model=model, optimizer=learned)
    cut = InnerUpdate(optimizer, hyperparameters=lambda outer, group: {"lr": group["lr"] * outer["shift"].item()})
    refuse(
        "outer_loss does not use it; no hyperparameter of the update depends on it",
        problem=BilevelProblem(unused, outer_loss),
        model=model,
        optimizer=cut,
    )


def test_explaining_changes_nothing() -> None:
    outer, model = outer_parameters(), network()
    model[0].bias.requires_grad_(False)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    refuse("cannot be learned", problem=BilevelProblem(with_shift(Tensor.item), outer_loss), outer=outer, model=model)
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: t.item() for name, t in outer.items()} == {name: t.item() for name, t in outer_parameters().items()}
    assert all(t.requires_grad and t.grad is None for t in outer.values())
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True, True, True]
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def test_losses_that_ignore_the_model() -> None:
    def constant(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        return outer["gain"] * outer["shift"]

    def cut(loss: Loss) -> Loss:
        return lambda model, outer, given: loss(lambda x: model(x).detach(), outer, given)

    place = r"the graph ends at detach \(test_preflight_connection.py, line \d+\)"
    own = "the inner model cannot be trained: inner_loss "
    none = "there is no hypergradient: outer_loss "
    refuse(own + "does not use its trainable parameters", problem=BilevelProblem(constant, outer_loss))
    refuse(
        own + "depends on its trainable parameters, but " + place,
        problem=BilevelProblem(cut(inner_loss), outer_loss),
    )
    refuse(none + "does not use the inner model's trainable", problem=BilevelProblem(inner_loss, constant))
    refuse(
        none + "depends on the inner model's trainable parameters, but " + place,
        problem=BilevelProblem(inner_loss, cut(outer_loss)),
    )


def test_models_that_are_not_trained() -> None:
    model = network()
    first = torch.optim.SGD(model[:1].parameters(), lr=0.1)
    check(model=model, optimizer=first)  # frozen by omission

    def last_only(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        return (model[3](outer["gain"] * given[:, :5]) + outer["shift"]).square().mean()

    refuse(
        r"the inner SGD holds none of the parameters inner_loss depends on: 3.weight, 3.bias",
        problem=BilevelProblem(last_only, outer_loss),
        model=model,
        optimizer=first,
    )
    refuse(
        "there is no hypergradient: of the inner model's parameters outer_loss depends only on 0.weight, 0.bias, which",
        problem=BilevelProblem(last_only, lambda m, o, b: m[0](b).square().mean()),
        model=model,
    )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    refuse("the inner model has no parameter with requires_grad=True", model=model)


def test_a_graph_made_outside_of_the_loss() -> None:
    outer = outer_parameters()
    scale = outer["gain"].exp().square()
    loss = lambda m, o, b: inner_loss(m, {"gain": scale, "shift": o["shift"]}, b)  # noqa: E731
    refuse(
        "a loss uses a tensor with a graph that was made outside of it", problem=BilevelProblem(loss, loss), outer=outer
    )


def test_averages_over_processes_are_no_function_of_a_users() -> None:
    """Differences in single precision are no judge of theirs, which are compared in float64 elsewhere."""
    (mean,) = Averaged.apply(lambda tensors: tensors, torch.ones(2, requires_grad=True))
    assert functions_of_users(mean.sum()) == []


@pytest.mark.parametrize("strategy", [FiniteDifference(), InParts(FiniteDifference()), Forward()])
def test_no_graph_of_the_gradient_is_asked_for_without_need(strategy: HypergradientStrategy) -> None:
    """A backward pass tells by its grad mode whether it is to be differentiated again."""
    modes: list[bool] = []

    class Told(torch.autograd.Function):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            return None

        @staticmethod
        def backward(ctx: Any, given: Tensor) -> Tensor:
            modes.append(torch.is_grad_enabled())
            return given

        @staticmethod
        def jvp(ctx: Any, given: Tensor) -> Tensor:
            return given.clone()

    def told(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        return inner_loss(lambda x: Told.apply(model(x)), outer, given).reshape(())

    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    check(BilevelProblem(told, outer_loss), model=model, strategy=strategy)
    assert modes
    assert not any(modes)
    modes.clear()
    check(BilevelProblem(told, outer_loss), model=model, strategy=Mixed())
    assert any(modes)
