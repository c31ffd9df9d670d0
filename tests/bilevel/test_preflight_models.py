"""Models and operations that a patched copy cannot stand in for are refused before the first step."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from bilevel.preflight_cases import IMAGES, check, network, outer_loss, outer_parameters, refuse
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from metasynth.bilevel.checks.preflight import preflight
from metasynth.bilevel.checks.second_derivative import refusal
from metasynth.bilevel.hypergradient import hypergradient
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.finite_difference import FiniteDifference
from metasynth.bilevel.strategies.forward import Forward
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.update.inner_update import InnerUpdate


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


def test_hook_of_an_accumulated_gradient() -> None:
    model = hooked(lambda m: m.weight.register_post_accumulate_grad_hook(lambda p: None))
    refuse("inner model: 3.weight has hooks for when its gradient was accumulated", model=model)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_old_weight_norm_is_a_hook() -> None:
    refuse(r"3 has forward or backward hooks.*weight_norm", model=hooked(nn.utils.weight_norm))


@pytest.mark.parametrize("constrain", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_parametrizations_are_no_hooks(constrain: Callable[[nn.Module], nn.Module]) -> None:
    model = network()
    constrain(model[3])
    check(model=model)


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


def distances(x: Tensor) -> Tensor:
    return torch.cdist(x, x + 1)


class Overwriting(torch.autograd.Function):
    """Whose backward changes in place what it has just used."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        factor = 2 * x
        found = factor * given
        factor.add_(1.0)
        return found


WITHOUT_SECOND: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "once": (OnceDifferentiable.apply, "the backward of OnceDifferentiable is marked once_differentiable; write one"),
    "attention": (
        attention,
        r"scaled_dot_product_attention ran a fused kernel, .* under torch.nn.attention.sdpa_kernel",
    ),
    "distances": (distances, "cdist has no second derivative; write it out of other operations"),
    "overwriting": (Overwriting.apply, "an operation in place changed a tensor that the second derivative needs"),
}


def passed_through(operation: Callable[[Tensor], Tensor]) -> BilevelProblem:
    def loss(model: nn.Module, outer: Any, given: Tensor) -> Tensor:
        return (operation(model(given * outer["gain"])) + outer["shift"]).square().mean()

    return BilevelProblem(loss, outer_loss)


@pytest.mark.parametrize("name", WITHOUT_SECOND)
def test_operation_without_a_second_derivative(name: str) -> None:
    operation, cause = WITHOUT_SECOND[name]
    message = refuse("inner_loss cannot be differentiated twice: " + cause, problem=passed_through(operation))
    assert message.endswith(", or choose FiniteDifference")
    check(passed_through(operation), strategy=FiniteDifference())


def test_fused_attention_is_differentiated_by_finite_differences_and_otherwise_as_advised() -> None:
    """The fused kernel under FiniteDifference against double backward of the kernel the message names."""
    found = []
    for strategy, kernel in ((Mixed(), SDPBackend.MATH), (FiniteDifference(), SDPBackend.FLASH_ATTENTION)):

        def chosen(x: Tensor, kernel: SDPBackend = kernel) -> Tensor:
            with sdpa_kernel(kernel):
                return attention(x)

        model = network().double()
        outer = {name: t.detach().double().requires_grad_() for name, t in outer_parameters().items()}
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        batch = IMAGES.double()
        preflight(passed_through(chosen), model, optimizer, outer, batch, batch, strategy)
        result, _ = hypergradient(
            StepInputs(passed_through(chosen), FunctionalModel(model), InnerUpdate(optimizer), outer, [batch]),
            batch,
            strategy,
        )
        found.append(torch.stack(list(result.gradients.values())))
    assert found[0].norm() > 1e-3
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-9)


def test_forward_names_what_it_cannot_pass() -> None:
    refuse("inner_loss cannot be differentiated by Forward", problem=passed_through(attention), strategy=Forward())


def test_recurrent_kernels_are_told_from_torchs_message() -> None:
    """Only a GPU has them; the message is torch's."""
    said = (
        "the derivative for '_cudnn_rnn_backward' is not implemented. Double backwards is not supported for CuDNN RNNs "
        "due to limitations in the CuDNN API.\nTo run double backwards"
    )
    refused = refusal(NotImplementedError(said))
    assert refused is not None
    assert "a recurrent layer ran a cuDNN kernel" in str(refused)
    assert "torch.backends.cudnn.flags(enabled=False)" in str(refused)
    assert refusal(RuntimeError("CUDA out of memory")) is None


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
