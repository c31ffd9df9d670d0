"""What torch differentiates twice to a wrong value is written out, or refused by the strategies that would take it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from bilevel import native_training
from bilevel.native_training import by_training_again
from bilevel.preflight_cases import IMAGES, check, inner_loss, outer_loss, refuse
from support.strategies import EACH, EXACT, taken
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from metasynth.bilevel.hypergradient import HypergradientStrategy, hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.finite_difference import FiniteDifference
from metasynth.bilevel.strategies.forward import Forward
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.strategies.parts import InParts
from metasynth.bilevel.strategies.unrolled import Unrolled
from metasynth.bilevel.update.inner_update import InnerUpdate

Operation = Callable[[Tensor], Tensor]

ALL = EXACT | taken("finite_difference")
WITH_HESSIAN = {n: one for n, one in EACH.items() if one.needs_hessian} | taken("unrolled-3-last-2")
WITHOUT_HESSIAN = {
    n: one
    for n, one in EACH.items()
    if not (one.needs_hessian or one.mode == "forward mode" or n == "evolution_strategies")
}


def constrained(*constrain: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    for constraint in constrain:
        constraint(model[0])
        constraint(model[2])
    return model


PROBLEM = BilevelProblem(inner_loss, outer_loss)
descent = partial(torch.optim.SGD, lr=0.3)


def by_training(make: Callable[[], nn.Module], steps: int) -> Tensor:
    return by_training_again(PROBLEM, make, descent, IMAGES.double(), steps)


def by(strategy: HypergradientStrategy, model: nn.Module) -> Tensor:
    outer, optimizer = native_training.outer_parameters(), descent(model.parameters())
    batches = [IMAGES.double()] * strategy.inner_steps
    check(PROBLEM, model, optimizer, outer, strategy, batch=batches[0])
    found, _ = hypergradient(
        StepInputs(PROBLEM, FunctionalModel(model), InnerUpdate(optimizer), outer, batches), batches[0], strategy
    )
    return torch.stack([g for g in found.gradients.values() if g is not None])


MODELS: dict[str, Callable[[], nn.Module]] = {
    "weight_norm": partial(constrained, parametrizations.weight_norm),
    "weight_norm of columns": partial(constrained, partial(parametrizations.weight_norm, dim=1)),
    "weight_norm as a whole": partial(constrained, partial(parametrizations.weight_norm, dim=None)),
    "orthogonal": partial(constrained, partial(parametrizations.orthogonal, orthogonal_map="cayley")),
    "reflections": partial(constrained, partial(parametrizations.orthogonal, orthogonal_map="householder")),
    "spectral_norm in eval mode": partial(
        constrained, lambda m: parametrizations.spectral_norm(m).parametrizations.weight.eval()
    ),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")
@pytest.mark.parametrize("strategy", ALL.values(), ids=ALL)
@pytest.mark.parametrize("name", MODELS)
def test_parametrisations_have_the_hypergradient_of_a_training(name: str, strategy: HypergradientStrategy) -> None:
    expected = by_training(MODELS[name], strategy.inner_steps)
    assert expected.abs().min() > 1e-3
    torch.testing.assert_close(by(strategy, MODELS[name]()), expected, rtol=1e-6, atol=1e-7)


def test_weight_norm_of_convolutions_is_what_the_model_computes() -> None:
    for dim in (0, 1, 2, 3, None):
        torch.manual_seed(0)
        model = parametrizations.weight_norm(nn.Conv2d(3, 4, 3), dim=dim)
        images, patched = torch.randn(2, 3, 5, 5), FunctionalModel(model)
        torch.testing.assert_close(patched.bind(patched.refresh())(images), model(images), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("strategy", WITH_HESSIAN.values(), ids=WITH_HESSIAN)
def test_spectral_norm_in_training_is_refused_where_the_hessian_is_taken(strategy: HypergradientStrategy) -> None:
    message = refuse("inner", model=constrained(parametrizations.spectral_norm).float(), strategy=strategy)
    assert message == (
        "inner model: 0.parametrizations.weight.0 (spectral_norm) finds its singular vectors anew in each pass but "
        "takes them for constants, so its second derivative is wrong; put it in eval mode (they are then kept), or "
        "choose Mixed or FiniteDifference"
    )


@pytest.mark.parametrize("strategy", WITHOUT_HESSIAN.values(), ids=WITHOUT_HESSIAN)
def test_spectral_norm_that_has_converged_is_right_in_a_single_step(strategy: HypergradientStrategy) -> None:
    make = partial(constrained, partial(parametrizations.spectral_norm, n_power_iterations=100))
    if strategy.inner_steps == 1:
        torch.testing.assert_close(by(strategy, make()), by_training(make, 1), rtol=1e-5, atol=1e-6)
    check(model=make().float(), strategy=strategy)


def scaled_lookup(x: Tensor) -> Tensor:
    return functional.embedding(torch.tensor([0, 1, 1]), x, scale_grad_by_freq=True)


def chunked(reduction: str, x: Tensor) -> Tensor:
    options = nn.LinearCrossEntropyOptions()
    classes = torch.tensor([0, 1, 0, 1])
    return functional.linear_cross_entropy(x, torch.eye(2), classes, reduction=reduction, options=options)


def square(x: Tensor) -> Tensor:
    return x.mT @ x + torch.eye(2)


# What is called on (4, 2) values of the model; the lines for double backward and for Forward. Empty: accepted; None:
# refused in torch's own words.
TWICE = "inner_loss cannot be differentiated twice: "
FORWARD = "inner_loss cannot be differentiated by Forward (forward mode, then reverse): "
CHOOSE = ", or choose FiniteDifference"
IN_TORCH = "has a wrong second derivative in torch"
REFUSED: dict[str, tuple[Operation, str, str | None]] = {
    "weight_norm": (
        lambda x: torch._weight_norm(x, x.abs().sum(1, keepdim=True), 0),
        f"{TWICE}torch._weight_norm {IN_TORCH}; use torch.nn.utils.parametrizations.weight_norm, which is written "
        f"out{CHOOSE}",
        None,
    ),
    "cross entropy in chunks": (
        partial(chunked, "mean"),
        f"{TWICE}linear_cross_entropy with options=LinearCrossEntropyOptions(...) {IN_TORCH}; leave the options "
        f"out{CHOOSE}",
        None,
    ),
    "cross entropies in chunks": (
        partial(chunked, "none"),
        f"{TWICE}linear_cross_entropy with options=LinearCrossEntropyOptions(...) has no second derivative; leave the "
        f"options out{CHOOSE}",
        None,
    ),
    "embedding": (
        scaled_lookup,
        f"{TWICE}embedding with scale_grad_by_freq=True {IN_TORCH}; set scale_grad_by_freq=False",
        f"{FORWARD}embedding with scale_grad_by_freq=True {IN_TORCH}; set scale_grad_by_freq=False",
    ),
    "cdist": (
        lambda x: torch.cdist(x, x + 1),
        f"{TWICE}cdist has no second derivative; write it out of other operations (for p=2: "
        f"compute_mode='use_mm_for_euclid_dist'){CHOOSE}",
        None,
    ),
    "hardsigmoid": (
        functional.hardsigmoid,
        f"{TWICE}hardsigmoid has no second derivative; write it as relu6(x + 3) / 6{CHOOSE}",
        None,
    ),
    "multi_margin_loss": (
        lambda x: functional.multi_margin_loss(x, torch.tensor([0, 1, 0, 1])),
        f"{TWICE}multi_margin_loss has no second derivative; write it out of other operations{CHOOSE}",
        None,
    ),
    "ctc_loss": (
        lambda x: functional.ctc_loss(x.log_softmax(1), torch.tensor([1]), torch.tensor(4), torch.tensor(1)),
        f"{TWICE}ctc_loss has no second derivative; write it out of other operations{CHOOSE}",
        None,
    ),
    "solve": (
        lambda x: torch.linalg.solve(square(x), x.mT),
        "",
        f"{FORWARD}linalg.solve {IN_TORCH}; choose Mixed or FiniteDifference",
    ),
    "eigenvectors": (
        lambda x: torch.linalg.eigh(square(x)).eigenvectors.abs(),
        "",
        f"{FORWARD}linalg.eigh (its eigenvectors) {IN_TORCH}; choose Mixed or FiniteDifference",
    ),
    "eigenvalues": (lambda x: torch.linalg.eigvalsh(square(x)), "", ""),
    "scatter_reduce": (
        lambda x: x.scatter_reduce(1, torch.tensor([[0, 0]]), x[:1], "prod"),
        "",
        f"{FORWARD}scatter_reduce of products {IN_TORCH}; choose Mixed or FiniteDifference",
    ),
    "scatter_add": (lambda x: x.scatter_reduce(1, torch.tensor([[0, 0]]), x[:1], "sum"), "", ""),
}

BY_DIFFERENCES = {
    "embedding": "inner_loss cannot be differentiated by FiniteDifference: embedding with scale_grad_by_freq=True "
    f"{IN_TORCH}; set scale_grad_by_freq=False"
}


def passed_through(operation: Operation) -> BilevelProblem:
    def loss(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        return (operation(model(given * outer["gain"])) + outer["shift"]).square().mean()

    return BilevelProblem(loss, outer_loss)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_operations_of_the_table_are_refused_in_their_mode_alone(name: str) -> None:
    operation, twice, forward = REFUSED[name]
    problem = passed_through(operation)
    for strategy in (Mixed(), *WITH_HESSIAN.values()):
        accept_or_refuse(problem, strategy, twice)
    if forward is not None:
        accept_or_refuse(problem, Forward(), forward)
    accept_or_refuse(problem, FiniteDifference(), BY_DIFFERENCES.get(name, ""))


def accept_or_refuse(problem: BilevelProblem, strategy: HypergradientStrategy, line: str) -> None:
    """Insist on this line; or, if it is empty, on none."""
    if line:
        assert refuse("inner_loss", problem=problem, strategy=strategy) == line
    else:
        check(problem, strategy=strategy)


def test_what_takes_its_derivative_from_another_strategy_is_refused_with_it() -> None:
    operation, twice, _ = REFUSED["cdist"]
    assert refuse("inner_loss", problem=passed_through(operation), strategy=InParts(Mixed(), samples=2)) == twice
    operation, _, forward = REFUSED["scatter_reduce"]
    assert refuse("inner_loss", problem=passed_through(operation), strategy=InParts(Forward(), samples=2)) == forward


def normalised(w: Tensor) -> Tensor:
    return torch._weight_norm(w, w.abs().sum(1, keepdim=True), 0)


def of_parameters(operation: Operation) -> BilevelProblem:
    """A loss to which an operation on the model's parameters alone is added."""

    def loss(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        return inner_loss(model, outer, given) + operation(next(iter(model.parameters()))).square().sum()

    return BilevelProblem(loss, outer_loss)


@pytest.mark.parametrize("operation", [lambda w: torch.cdist(w, w + 1), normalised], ids=["missing", "wrong"])
def test_an_operation_on_parameters_alone_matters_where_the_hessian_is_taken(operation: Operation) -> None:
    for strategy in WITH_HESSIAN.values():
        refuse("inner_loss cannot be differentiated twice: ", problem=of_parameters(operation), strategy=strategy)
    for strategy in (Mixed(), Unrolled(1), Unrolled(3, last=1)):
        check(of_parameters(operation), strategy=strategy)


def test_a_gradient_that_is_none_matters_everywhere() -> None:
    for strategy in (Mixed(), Forward(), FiniteDifference(), *WITH_HESSIAN.values()):
        refuse("embedding with scale_grad_by_freq=True", problem=of_parameters(scaled_lookup), strategy=strategy)


def test_an_operation_on_outer_parameters_alone_is_differentiated_once() -> None:
    def loss(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        return inner_loss(model, {**outer, "gain": torch.cdist(outer["gain"].expand(1, 1), torch.zeros(1, 1))}, given)

    for strategy in (*WITH_HESSIAN.values(), Mixed()):
        check(BilevelProblem(loss, outer_loss), strategy=strategy)


class Cdist(torch.autograd.Function):
    """A user's own, which has all derivatives that torch's lacks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * given


def test_a_function_of_the_users_own_is_not_taken_for_torchs() -> None:
    for strategy in (Mixed(), *WITH_HESSIAN.values()):
        check(passed_through(Cdist.apply), strategy=strategy)
