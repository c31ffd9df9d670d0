"""Update rules of SGD, Adam, AdamW and RMSprop: functions of (parameter, gradient, state, options).

Each follows `torch.optim` operation by operation (order, rounding, state) and returns new tensors, so that steps
taken by a rule and steps taken by the optimiser itself can be mixed freely.

The options ``lr`` and ``weight_decay`` may be 0-d tensors, in which the result is then differentiable. It is computed
with their value as a number, as `torch.optim` does it, so a tensor changes no bit of a step.
"""

from typing import Any

import torch
from torch import Tensor

State = dict[str, Any]
Options = dict[str, Any]


def sgd_update(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
    """One step of `torch.optim.SGD` (momentum, dampening, Nesterov, weight decay) on one parameter."""
    gradient = _decayed(gradient, parameter, options)
    momentum = options["momentum"]
    if momentum != 0:
        buffer = state.get("momentum_buffer")
        if buffer is None:
            buffer = gradient.clone()
        else:
            buffer = buffer.mul(momentum).add(gradient, alpha=1 - options["dampening"])
        state = {**state, "momentum_buffer": buffer}
        gradient = gradient.add(buffer, alpha=momentum) if options["nesterov"] else buffer
    return _plus(parameter, gradient, -options["lr"]), state


def adam_update(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
    """One step of `torch.optim.Adam` (weight decay added to the gradient) on one parameter."""
    return _adam(parameter, gradient, state, options, bool(options.get("decoupled_weight_decay", False)))


def adamw_update(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
    """One step of `torch.optim.AdamW` (decoupled weight decay) on one parameter."""
    return _adam(parameter, gradient, state, options, True)


def _adam(parameter: Tensor, gradient: Tensor, state: State, options: Options, decoupled: bool) -> tuple[Tensor, State]:
    beta1, beta2 = options["betas"]
    if not state:
        state = {
            "step": torch.tensor(0.0),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    if decoupled:
        parameter = _shrunk(parameter, options)
    else:
        gradient = _decayed(gradient, parameter, options)
    step = state["step"] + 1
    first = torch.lerp(state["exp_avg"], gradient, 1 - beta1)
    second = state["exp_avg_sq"].mul(beta2).addcmul(gradient, gradient, value=1 - beta2)
    count = step.item()
    correction1 = 1 - beta1**count
    correction2_sqrt = (1 - beta2**count) ** 0.5
    denominator = (sqrt_flat_at_zero(second) / correction2_sqrt).add(options["eps"])
    updated = _plus_ratio(parameter, first, denominator, -options["lr"], correction1)
    return updated, {"step": step, "exp_avg": first, "exp_avg_sq": second}


def rmsprop_update(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
    """One step of `torch.optim.RMSprop` (momentum, centred, weight decay) on one parameter.

    Where the centred variance v - m², which is not negative but for rounding, comes out below zero, it counts as zero;
    `torch.optim` takes its square root and gives NaN there, and in that alone they differ.
    """
    alpha, momentum, centered = options["alpha"], options["momentum"], options["centered"]
    if not state:
        kept = {"square_avg": True, "momentum_buffer": momentum > 0, "grad_avg": centered}
        state = {"step": torch.tensor(0.0), **{name: torch.zeros_like(parameter) for name in kept if kept[name]}}
    gradient = _decayed(gradient, parameter, options)
    variance = state["square_avg"].mul(alpha).addcmul(gradient, gradient, value=1 - alpha)
    state = {**state, "step": state["step"] + 1, "square_avg": variance}
    if centered:
        mean = torch.lerp(state["grad_avg"], gradient, 1 - alpha)
        state["grad_avg"] = mean
        variance = variance.addcmul(mean, mean, value=-1)
    denominator = sqrt_flat_at_zero(variance).add(options["eps"])
    if momentum > 0:
        buffer = state["momentum_buffer"].mul(momentum).addcdiv(gradient, denominator)
        state["momentum_buffer"] = buffer
        return _plus(parameter, buffer, -options["lr"]), state
    return _plus_ratio(parameter, gradient, denominator, -options["lr"]), state


def sqrt_flat_at_zero(value: Tensor) -> Tensor:
    """Square root whose derivative at zero is zero instead of infinite; zero below zero.

    The second moment is exactly zero where a gradient has always been zero (a dead ReLU unit). There the naive chain
    rule multiplies an infinite derivative by zero and gives NaN. The update m / (sqrt(v) + eps) itself is
    differentiable at that point, with the derivative of m over eps, which is what a zero derivative here gives.
    """
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1.0).sqrt(), 0.0)


def number_of(value: float | Tensor) -> float:
    """The value of an option, which may be a 0-d tensor."""
    return value.item() if isinstance(value, Tensor) else value


def _slope(value: float | Tensor) -> Tensor | None:
    """Zero, with the derivative of ``value``; None if it has none."""
    if not isinstance(value, Tensor):
        return None
    zero = value - value.detach()
    return zero if zero.requires_grad else None


def _plus(base: Tensor, vector: Tensor, scale: float | Tensor) -> Tensor:
    """The sum base + scale vector."""
    total, slope = base.add(vector, alpha=number_of(scale)), _slope(scale)
    return total if slope is None else total + slope * vector


def _plus_ratio(base: Tensor, above: Tensor, below: Tensor, scale: float | Tensor, over: float = 1.0) -> Tensor:
    """The sum base + (scale / over) above / below."""
    total, slope = base.addcdiv(above, below, value=number_of(scale) / over), _slope(scale)
    return total if slope is None else total + slope / over * (above / below)


def _decayed(gradient: Tensor, parameter: Tensor, options: Options) -> Tensor:
    """The gradient of the loss with L2 decay."""
    decay = options["weight_decay"]
    return gradient if _is_zero(decay) else _plus(gradient, parameter, decay)


def _shrunk(parameter: Tensor, options: Options) -> Tensor:
    """The parameter after decoupled decay."""
    lr, decay = options["lr"], options["weight_decay"]
    if _is_zero(decay):
        return parameter
    shrunk, slope = parameter.mul(1 - number_of(lr) * number_of(decay)), _slope(lr * decay)
    return shrunk if slope is None else shrunk - slope * parameter


def _is_zero(decay: float | Tensor) -> bool:
    """Whether it can be left out; a tensor may have a derivative where it is zero."""
    return not isinstance(decay, Tensor) and decay == 0
