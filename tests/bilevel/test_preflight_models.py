"""Models and operations that a patched copy cannot stand in for are refused before the first step."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from bilevel.preflight_cases import network, outer_loss, refuse
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from metasynth.bilevel.problem import BilevelProblem


def hooked(register: Callable[[nn.Module], Any]) -> nn.Module:
    model = network()
    register(model[3])
    return model


@pytest.mark.parametrize(
    "register",
    [
        lambda m: m.register_forward_hook(lambda *_: None),
        lambda m: m.register_forward_pre_hook(lambda *_: None),
        lambda m: m.register_full_backward_hook(lambda *_: None),
    ],
)
def test_hooks(register: Callable[[nn.Module], Any]) -> None:
    refuse("inner model: 3 has forward or backward hooks, which a patched model drops", model=hooked(register))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_old_weight_norm_is_a_hook() -> None:
    refuse(r"3 has forward or backward hooks.*weight_norm", model=hooked(nn.utils.weight_norm))


class OnceDifferentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, given: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * given


def attention(x: Tensor) -> Tensor:
    return scaled_dot_product_attention(x[None, None], x[None, None], x[None, None])


@pytest.mark.parametrize("operation", [OnceDifferentiable.apply, attention])
def test_operation_without_a_second_derivative(operation: Callable[[Tensor], Tensor]) -> None:
    def loss(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        return (operation(model(given * outer["gain"])) + outer["shift"]).square().mean()

    refuse("inner_loss cannot be differentiated twice: ", problem=BilevelProblem(loss, outer_loss))


class Listed(nn.Module):
    """Reaches its first layer through a plain list, past every patch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 2)
        self.early = [self.first]

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.early[0](images))


class Scaled(nn.Module):
    """Behaves by its own class, which a patched model's is not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images) * (1.0 if type(self) is Scaled else 2.0)


def test_model_that_a_patch_does_not_reach() -> None:
    refuse("it gives another gradient for first.weight than the model itself", model=Listed())
    refuse("it gives a loss of .* where the model itself gives", model=Scaled())
    model = network()
    model[0].weight.register_hook(lambda g: 2 * g)
    refuse("it gives another gradient for 0.weight", model=model)
