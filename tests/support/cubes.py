"""A function of a user's own, with a backward that can be differentiated and one that cannot."""

from typing import Any

import torch
from torch import Tensor


class Cube(torch.autograd.Function):
    """x³ with a backward that can be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * g


class DetachedCube(Cube):
    """The same, but for x² being a constant in the backward."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0].detach() ** 2 * g
