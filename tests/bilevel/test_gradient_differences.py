"""Second derivatives through a user's own Functions and hooks are compared with differences of gradients."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bilevel.preflight_cases import IMAGES, check, network, outer_loss, outer_parameters, refuse
from support.cubes import Cube, DetachedCube
from support.strategies import each
from torch import Tensor, nn

from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.strategies.finite_difference import FiniteDifference


class ByNumpy(Cube):
    """The same by numpy, which knows no graph."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return torch.from_numpy(3 * ctx.saved_tensors[0].detach().numpy() ** 2) * g


def hooked(hook: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    def operation(x: Tensor) -> Tensor:
        x.register_hook(hook)
        return x**3

    return operation


def case_of(operation: Callable[[Tensor], Tensor], dtype: torch.dtype) -> dict[str, Any]:
    def inner_loss(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        return (operation(model(given * outer["gain"])) + outer["shift"]).square().mean()

    outer = {name: t.detach().to(dtype).requires_grad_() for name, t in outer_parameters().items()}
    return {
        "problem": BilevelProblem(inner_loss, outer_loss),
        "model": network().to(dtype),
        "outer": outer,
        "batch": IMAGES.to(dtype),
    }


DOUBLE_BACKWARD = [one for one in each(without=("in_parts",)).values() if one.mode == "double backward"]
STRATEGIES = [*DOUBLE_BACKWARD, FiniteDifference()]
DTYPES = [torch.float64, torch.float32]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("operation", [Cube.apply, hooked(lambda g: None), hooked(lambda g: 1 * g)])
def test_right_ones_are_taken(operation: Any, strategy: HypergradientStrategy, dtype: torch.dtype) -> None:
    check(**case_of(operation, dtype), strategy=strategy)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("strategy", DOUBLE_BACKWARD)
@pytest.mark.parametrize("function", [DetachedCube, ByNumpy])
def test_functions_that_forget_a_dependence(function: Any, strategy: HypergradientStrategy, dtype: torch.dtype) -> None:
    said = refuse("inner_loss has a wrong second derivative", **case_of(function.apply, dtype), strategy=strategy)
    assert re.fullmatch(
        r"inner_loss has a wrong second derivative, \S+ where differences of gradients give \S+, because of the "
        rf"torch.autograd.Function {function.__name__}; let a backward compute with torch from what "
        r"save_for_backward kept, or choose FiniteDifference",
        said,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", [DetachedCube, ByNumpy])
def test_differences_of_first_derivatives_take_them(function: Any, dtype: torch.dtype) -> None:
    check(**case_of(function.apply, dtype), strategy=FiniteDifference())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("hook", [lambda g: 2 * g, lambda g: -g])
def test_hooks_that_change_gradients(hook: Any, strategy: HypergradientStrategy, dtype: torch.dtype) -> None:
    said = refuse("inner_loss has a wrong second derivative", **case_of(hooked(hook), dtype), strategy=strategy)
    assert re.search(
        r"because of a hook of a tensor \(test_gradient_differences.py, line \d+\); remove a hook that changes "
        r"gradients$",
        said,
    )
