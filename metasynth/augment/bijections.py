"""Bijections from the real line onto the range of a constrained parameter.

A learned standard deviation is stored as an unconstrained number and read through one of these, so that no
step of an optimiser can make it negative.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from metasynth.errors import UsageError

# Above this the softplus equals its argument to float64 precision: exp(-40) < 1e-17.
_SOFTPLUS_IS_IDENTITY = 40.0


class Bijection(ABC):
    """A smooth, increasing, one-to-one map from the real line onto an interval, elementwise."""

    @abstractmethod
    def forward(self, raw: Tensor) -> Tensor:
        """Constrained values of unconstrained `raw`; any shape, twice differentiable."""

    @abstractmethod
    def inverse(self, value: Tensor, name: str = "value") -> Tensor:
        """Unconstrained values whose `forward` is `value`; any shape.

        Raises
        ------
        UsageError
            (a ValueError) when an element of `value` is outside the interval or not finite; the message
            starts with `name`.
        """

    def is_flat(self, raw: Tensor) -> Tensor:
        """Where the derivative of `forward` is below the rounding of 1 in the type of `raw`; bool, of its shape.

        Values are of order 1 or below, so that there steps of `raw` no longer show.
        """
        with torch.enable_grad():
            leaf = raw.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.forward(leaf).sum(), leaf)
        return slope < torch.finfo(slope.dtype).eps


@final
@dataclass(frozen=True)
class Softplus(Bijection):
    """Onto (0, inf): value = log(1 + exp(raw)); close to the identity for large raw."""

    def forward(self, raw: Tensor) -> Tensor:
        """`log(1 + exp(raw))`."""
        return softplus(raw, threshold=_SOFTPLUS_IS_IDENTITY)

    def inverse(self, value: Tensor, name: str = "value") -> Tensor:
        """`value + log(1 - exp(-value))`; values from the dtype's smallest normal number up."""
        _check_positive(value, name)
        return value + torch.log(-torch.expm1(-value))


@final
@dataclass(frozen=True)
class Exp(Bijection):
    """Onto (0, inf): value = exp(raw); equal steps of raw are equal ratios of the value."""

    def forward(self, raw: Tensor) -> Tensor:
        """`exp(raw)`."""
        return torch.exp(raw)

    def inverse(self, value: Tensor, name: str = "value") -> Tensor:
        """`log(value)`; values from the dtype's smallest normal number up."""
        _check_positive(value, name)
        return torch.log(value)


@final
@dataclass(frozen=True)
class Sigmoid(Bijection):
    """Onto (low, high): value = low + (high - low) / (1 + exp(-raw)).

    In floating point `forward` reaches `low` or `high` itself where the sigmoid is within rounding of 0 or 1.
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise UsageError(f"Sigmoid: low and high must be finite with low < high, got {self.low}, {self.high}")

    def forward(self, raw: Tensor) -> Tensor:
        """`low + (high - low) sigmoid(raw)`."""
        return self.low + (self.high - self.low) * torch.sigmoid(raw)

    def inverse(self, value: Tensor, name: str = "value") -> Tensor:
        """`log(value - low) - log(high - value)`; value must lie strictly between low and high."""
        inside = (value > self.low) & (value < self.high)
        if not bool(inside.all()):
            raise UsageError(
                f"{name}: must be greater than {self.low:g} and less than {self.high:g}, got {_first(value, ~inside):g}"
            )
        return torch.log(value - self.low) - torch.log(self.high - value)


def _check_positive(value: Tensor, name: str) -> None:
    """Raise unless every element is finite and at least the smallest normal number of its dtype."""
    smallest = torch.finfo(value.dtype).tiny
    allowed = (value >= smallest) & torch.isfinite(value)
    if not bool(allowed.all()):
        raise UsageError(
            f"{name}: must be finite and at least {smallest:.3g} (the map onto the positive numbers "
            f"never reaches 0), got {_first(value, ~allowed):g}"
        )


def _first(value: Tensor, where: Tensor) -> float:
    """The first element of `value` at which `where` is true."""
    return float(value[where].reshape(-1)[0])


class Positive(nn.Module):
    """A learned number above 0: ``bijection.forward(raw_value)`` with the softplus as bijection.

    Raises
    ------
    UsageError
        (a ValueError) which begins with ``name``, when ``start`` is not positive and finite.
    """

    def __init__(self, start: float, name: str) -> None:
        super().__init__()
        self.bijection = Softplus()
        value = torch.tensor(float(start), dtype=torch.get_default_dtype())
        self.raw_value = nn.Parameter(self.bijection.inverse(value, name))

    def forward(self) -> Tensor:
        """The number ()."""
        return self.bijection.forward(self.raw_value)
