"""The mean over processes as an operation of the graph of each.

Replicas hold the same x and each a function f_r of it; what is differentiated is the mean of the f_r. Under the inner
product of that mean, ⟨a, b⟩ = mean_r a_rᵀ b_r, the averaging a_r → mean_s a_s is its own adjoint. So its derivative is
an average too, forwards and backwards and as often as it is taken, and the mean over processes of what each then finds
for the derivative in x is the derivative of the mean.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Mean = Callable[[list[Tensor | None]], list[Tensor | None]]
"""Averages tensors over processes in one exchange, without a graph."""


class Averaged(torch.autograd.Function):
    """``apply(mean, *tensors)``: the tensors, or None, averaged by ``mean``, with its derivatives of every order.

    All processes have to reach it in the same order, forwards and backwards.
    """

    @staticmethod
    def forward(mean: Mean, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        """The means; of a tensor that is None in some processes, with zero for theirs."""
        return tuple(mean([*tensors]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        """Keep what averages. A derivative that is None in this process may be one in another."""
        ctx.mean, ctx.given = inputs[0], [t is not None for t in inputs[1:]]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """The mean of the cotangents."""
        means = Averaged.apply(ctx.mean, *cotangents)
        return (None, *(found if given else None for found, given in zip(means, ctx.given, strict=True)))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """The mean of the tangents."""
        return tuple(Averaged.apply(ctx.mean, *tangents))
