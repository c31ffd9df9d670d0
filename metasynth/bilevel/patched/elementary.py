"""Normalisations and softmax from elementary operations, for second derivatives that torch has not, or has wrong.

In torch 2.13 the forward-mode rule of batch, instance and layer normalisation takes the statistics for constants when
it is itself differentiated, so the result is wrong and nothing says so; that of softmax and its relatives changes
a saved tensor in place and fails. Written out, all are right. (Group normalisation needs no help.)

The parametrisation `weight_norm` is wrong in double backward too, where its norms are taken for constants; a patched
model has it written out for good.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.overrides import TorchFunctionMode


class ElementaryOperations(TorchFunctionMode):
    """A context in which `torch.nn.functional`'s softmax family and normalisations are written out.

    Running statistics are not moved in it.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace the functions that have a replacement."""
        replacement = _REPLACEMENTS.get(func, func)
        return replacement(*args, **(kwargs or {}))


def log_sum_exp(input: Tensor, dim: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
    """`torch.logsumexp`: log Σ exp(input) over ``dim``, shifted by the largest value."""
    largest = input.detach().amax(dim, keepdim=True)
    total = torch.exp(input - largest).sum(dim, keepdim=True).log() + largest
    return total if keepdim else total.sum(dim)


def log_softmax(input: Tensor, dim: int, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    """`torch.nn.functional.log_softmax`."""
    given = input if dtype is None else input.to(dtype)
    return given - log_sum_exp(given, dim, keepdim=True)


def softmax(input: Tensor, dim: int, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    """`torch.nn.functional.softmax`."""
    given = input if dtype is None else input.to(dtype)
    exponentials = torch.exp(given - given.detach().amax(dim, keepdim=True))
    return exponentials / exponentials.sum(dim, keepdim=True)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """`torch.nn.functional.cross_entropy` of class indices without label smoothing; other uses pass unchanged."""
    if target.is_floating_point() or label_smoothing != 0 or size_average is not None or reduce is not None:
        return functional.cross_entropy(
            input, target, weight, size_average, ignore_index, reduce, reduction, label_smoothing
        )
    logarithms = log_softmax(input, 1 if input.ndim > 1 else 0)
    return functional.nll_loss(logarithms, target, weight, ignore_index=ignore_index, reduction=reduction)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm`; statistics over all axes but the second."""
    if not training:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    standardised = _standardise(input, [0, *range(2, input.ndim)], eps)
    return _scale(standardised, _per_channel(weight, input.ndim), _per_channel(bias, input.ndim))


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.instance_norm`; statistics over the voxel axes."""
    if not use_input_stats:
        return functional.instance_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    standardised = _standardise(input, list(range(2, input.ndim)), eps)
    return _scale(standardised, _per_channel(weight, input.ndim), _per_channel(bias, input.ndim))


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.layer_norm`; statistics over the last axes."""
    return _scale(_standardise(input, list(range(-len(normalized_shape), 0)), eps), weight, bias)


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """`torch._weight_norm`: g v / |v|, with a norm for each index along ``dim``, or for all together (-1)."""
    axes = [axis for axis in range(v.ndim) if dim == -1 or axis != dim]
    return v * (g / torch.linalg.vector_norm(v, dim=axes, keepdim=dim != -1))


def write_out(module: nn.Module) -> None:
    """Have ``module``, if it is a parametrisation with a wrong second derivative, call what is written out here."""
    if isinstance(module, parametrizations._WeightNorm):
        # An attribute of the instance, found before the method of its class.
        module.__dict__["forward"] = partial(_weight_norm_of, module.dim)


def _weight_norm_of(dim: int, weight_g: Tensor, weight_v: Tensor) -> Tensor:
    return weight_norm(weight_v, weight_g, dim)


def _per_channel(tensor: Tensor | None, ndim: int) -> Tensor | None:
    """(C,) as (1, C, 1, ...)."""
    return None if tensor is None else tensor.reshape(1, -1, *[1] * (ndim - 2))


def _standardise(x: Tensor, axes: list[int], eps: float) -> Tensor:
    """(x - mean) / sqrt(variance + eps) over ``axes``."""
    centred = x - x.mean(axes, keepdim=True)
    return centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()


def _scale(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = x if weight is None else x * weight
    return scaled if bias is None else scaled + bias


_REPLACEMENTS: dict[Callable[..., Any], Callable[..., Any]] = {
    **dict.fromkeys((torch.softmax, Tensor.softmax, functional.softmax), softmax),
    **dict.fromkeys((torch.log_softmax, Tensor.log_softmax, functional.log_softmax), log_softmax),
    **dict.fromkeys((torch.logsumexp, Tensor.logsumexp), log_sum_exp),
    functional.cross_entropy: cross_entropy,
    functional.batch_norm: batch_norm,
    functional.instance_norm: instance_norm,
    functional.layer_norm: layer_norm,
}
