"""Whether the losses of a step depend on something that is learned, in any process."""

from collections.abc import Mapping

import torch
from torch import Tensor

from metasynth.bilevel.derivatives import Gradients


def reached_by(loss: Tensor, gradients: Gradients) -> Tensor:
    """1 where a loss depends on something, else 0, in a tensor that can be averaged with the losses."""
    return torch.zeros_like(loss.detach()) + float(any(g is not None for g in gradients))


def require_reached(reached: Mapping[str, Tensor]) -> None:
    """ValueError for a loss that depends on no parameter in any process."""
    for name, value in reached.items():
        if not value:
            raise ValueError(
                f"{name} depends on no parameter that is learned, so there is no hypergradient; it may be detached, or "
                "evaluated under torch.no_grad"
            )
