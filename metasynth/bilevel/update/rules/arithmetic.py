"""What update rules are written in: sums and products whose scalars are numbers or tensors, rounded as torch does.

A rule follows the `_single_tensor` function of its optimiser operation by operation. With numbers for its options it
rounds as that does. With tensors for some of them it is the same formula, differentiable in these. `rounded_as_torch`
makes one function of both: the value is that of numbers, so that a tensor changes no bit of a step, and the derivative
that of tensors.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor

State = dict[str, Any]
Options = dict[str, Any]
Number = float | Tensor
"""A number, a 0-d tensor, or a tensor of the parameter's shape."""
Rule = Callable[[Tensor, Tensor, State, Options], tuple[Tensor, State]]


def rounded_as_torch(formula: Rule, twice: bool = False) -> Rule:
    """The rule of a formula, with ``maximize`` seen to.

    The formula is evaluated once, with the options' values, unless one of them is to be differentiated. Then it is
    evaluated without gradients for its value, and a second time for its derivatives. It must not change a tensor that
    it is given. With ``twice`` that is always so, for formulas that round otherwise under `torch.no_grad`.
    """

    @wraps(formula)
    def rule(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
        gradient = -gradient if options.get("maximize") else gradient
        given = {name: option for name, option in options.items() if name != "params"}
        values = {name: _in_type_of(parameter, value_of(option)) for name, option in given.items()}
        if not torch.is_grad_enabled() or not (twice or any(_is_learned(option) for option in given.values())):
            return formula(parameter, gradient, state, values)
        with torch.no_grad():
            updated, moved = formula(parameter, gradient, state, values)
        learned = {name: _in_type_of(parameter, option) for name, option in given.items()}
        tangent, tangents = formula(parameter, gradient, state, learned)
        return with_slope(updated, tangent), {name: with_slope(value, tangents[name]) for name, value in moved.items()}

    return rule


def _in_type_of(parameter: Tensor, option: Any) -> Any:
    """An option in the parameter's type, where it would not count as a number beside it."""
    if isinstance(option, tuple | list):
        return tuple(_in_type_of(parameter, part) for part in option)
    is_number = not isinstance(option, Tensor) or option.dim() == 0 < parameter.dim()
    return option if is_number else option.to(parameter.dtype)


def value_of(option: Any) -> Any:
    """An option without its derivative: a number for a 0-d tensor."""
    if isinstance(option, tuple | list):
        return tuple(value_of(part) for part in option)
    if isinstance(option, Tensor):
        return option.detach() if option.dim() else option.item()
    return option


def _is_learned(option: Any) -> bool:
    if isinstance(option, tuple | list):
        return any(_is_learned(part) for part in option)
    return isinstance(option, Tensor) and option.requires_grad


def with_slope(value: Any, formula: Any) -> Any:
    """The value, to the bit, with the derivative of another that is equal but for rounding."""
    if not (isinstance(formula, Tensor) and formula.requires_grad):
        return value
    return value + (formula - formula.detach()).to(value.dtype)


def is_zero(option: Number) -> bool:
    """Whether it can be left out; a tensor may have a derivative where it is zero."""
    return not isinstance(option, Tensor) and option == 0


def plus(base: Tensor, vector: Tensor, scale: Number) -> Tensor:
    """The sum base + scale vector."""
    return base + scale * vector if isinstance(scale, Tensor) else base.add(vector, alpha=scale)


def plus_product(base: Tensor, a: Tensor, b: Tensor, scale: Number = 1.0) -> Tensor:
    """The sum base + scale a b."""
    return base + scale * (a * b) if isinstance(scale, Tensor) else base.addcmul(a, b, value=scale)


def plus_ratio(base: Tensor, above: Tensor, below: Tensor, scale: Number = 1.0) -> Tensor:
    """The sum base + scale above / below."""
    return base + scale * (above / below) if isinstance(scale, Tensor) else base.addcdiv(above, below, value=scale)


def between(start: Tensor, end: Tensor, weight: Number) -> Tensor:
    """The mean (1 - weight) start + weight end."""
    return start + weight * (end - start) if isinstance(weight, Tensor) else torch.lerp(start, end, weight)


def mean_square(old: Tensor, gradient: Tensor, kept: Number) -> Tensor:
    """The running mean kept old + (1 - kept) gradient²."""
    return plus_product(old * kept, gradient, gradient, 1 - kept)


def decayed(gradient: Tensor, parameter: Tensor, options: Options) -> Tensor:
    """The gradient of the loss with L2 decay."""
    decay = options["weight_decay"]
    return gradient if is_zero(decay) else plus(gradient, parameter, decay)


def shrunk(parameter: Tensor, options: Options) -> Tensor:
    """The parameter after decoupled decay."""
    decay = options["weight_decay"]
    return parameter if is_zero(decay) else parameter * (1 - options["lr"] * decay)


def sqrt_flat_at_zero(value: Tensor) -> Tensor:
    """Square root whose derivative at zero is zero instead of infinite; zero below zero.

    The second moment is exactly zero where a gradient has always been zero (a dead ReLU unit). There the naive chain
    rule multiplies an infinite derivative by zero and gives NaN. The update m / (sqrt(v) + eps) itself is
    differentiable at that point, with the derivative of m over eps, which is what a zero derivative here gives.
    """
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1.0).sqrt(), 0.0)


def started(state: State, zeros: Sequence[str], parameter: Tensor) -> State:
    """The state, or that before the first step: a count and, by these names, zeros like the parameter."""
    return state or {"step": scalar(0.0), **{name: torch.zeros_like(parameter) for name in zeros}}


def scalar(value: float, like: Tensor | None = None) -> Tensor:
    """A number of a state, in the type that `torch.optim` keeps it in; on the CPU, or where another tensor is."""
    dtype = torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32
    return torch.tensor(value, dtype=dtype, device=None if like is None else like.device)
