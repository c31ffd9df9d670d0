"""ReLUs and max-pools held on the side they were on in an earlier pass.

A network of these is piecewise smooth in its parameters, and its derivatives jump where a unit changes side. Automatic
differentiation leaves the jumps out; a difference quotient takes them in, however small its step, as long as one of
some million units changes side on the way. With the sides held the network is the smooth piece around φ continued
beyond its borders, whose difference quotients converge to what automatic differentiation gives.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_RELU = {functional.relu, torch.relu, Tensor.relu}
_RELU_IN_PLACE = {torch.relu_, Tensor.relu_}
_LEAKY = {functional.leaky_relu}
# Function -> number of voxel axes.
_POOLS = {
    functional.max_pool1d: 1,
    functional.max_pool2d: 2,
    functional.max_pool3d: 3,
    torch.max_pool1d: 1,
    torch.max_pool2d: 2,
    torch.max_pool3d: 3,
}
_WITH_INDICES: dict[int, Callable[..., Any]] = {
    1: functional.max_pool1d_with_indices,
    2: functional.max_pool2d_with_indices,
    3: functional.max_pool3d_with_indices,
}


class Kinks:
    """Records the side of every ReLU, leaky ReLU and max-pool of one pass, and holds later passes to it.

    Other functions with kinks (clamp, abs, hardtanh, maxima) pass unchanged. What tells the side is kept by reference
    where the recorded pass keeps it for its own backward pass.
    """

    def __init__(self) -> None:
        self._sides: list[Tensor] = []

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """A context that records, in order of evaluation."""
        with _Mode(self._sides, holds=False):
            yield

    @contextmanager
    def held(self) -> Iterator[None]:
        """A context in which the units recorded are held, in the same order.

        Raises
        ------
        ValueError
            Within it, if the pass does not evaluate the same units of the same shapes.
        """
        with _Mode(self._sides, holds=True):
            yield


class _Mode(TorchFunctionMode):
    def __init__(self, sides: list[Tensor], holds: bool) -> None:
        super().__init__()
        self._sides = sides
        self._holds = holds
        self._next = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if func in _RELU or func in _RELU_IN_PLACE:
            in_place = func in _RELU_IN_PLACE or _argument(args, options, 1, "inplace", False)
            return self._rectify(func, args, options, 0.0, in_place)
        if func in _LEAKY:
            slope = _argument(args, options, 1, "negative_slope", 0.01)
            return self._rectify(func, args, options, slope, _argument(args, options, 2, "inplace", False))
        if func in _POOLS and not _argument(args, options, 6, "return_indices", False):
            return self._pool(_POOLS[func], args, options)
        return func(*args, **options)

    def _rectify(
        self, func: Callable[..., Any], args: Any, options: dict[str, Any], slope: float, in_place: bool
    ) -> Tensor:
        x = _argument(args, options, 0, "input")
        if not self._holds:
            given = x.detach().clone() if in_place else x.detach()
            rectified = func(*args, **options)
            # The backward pass of a ReLU keeps its output, that of a leaky ReLU its input.
            self._sides.append(rectified.detach() if slope == 0 and not in_place else given)
            return rectified
        side = self._recorded_side(x.dtype, x, x.ndim)
        # The backward rules of both functions are what is wanted here: linear, with the slope of the recorded side.
        if slope == 0:
            held = torch.ops.aten.threshold_backward(x, side, 0)
        else:
            held = torch.ops.aten.leaky_relu_backward(x, side, slope, False)
        return x.copy_(held) if in_place else held

    def _pool(self, axes: int, args: Any, options: dict[str, Any]) -> Tensor:
        x = _argument(args, options, 0, "input")
        if not self._holds:
            pooled, indices = _WITH_INDICES[axes](*args, **options)
            self._sides.append(indices)
            return pooled
        start = x.ndim - axes
        indices = self._recorded_side(torch.int64, x, start)
        return x.flatten(start).gather(start, indices.flatten(start)).view_as(indices)

    def _recorded_side(self, dtype: torch.dtype, x: Tensor, axes: int) -> Tensor:
        if self._next < len(self._sides):
            side = self._sides[self._next]
            self._next += 1
            if side.dtype == dtype and side.shape[:axes] == x.shape[:axes]:
                return side
        raise ValueError(
            "inner_loss evaluated other ReLUs or max-pools when replayed than in its first pass: it draws random "
            "numbers that cannot be replayed; take the draws from the batch"
        )


def _argument(args: Any, options: dict[str, Any], position: int, name: str, default: Any = None) -> Any:
    return args[position] if len(args) > position else options.get(name, default)
