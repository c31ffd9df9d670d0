"""Rules that divide by the root of a running mean or sum of squares: RMSprop, Adagrad and Adadelta."""

import torch
from torch import Tensor

from metasynth.bilevel.update.rules.arithmetic import (
    Options,
    State,
    between,
    decayed,
    is_zero,
    mean_square,
    plus,
    plus_product,
    plus_ratio,
    rounded_as_torch,
    scalar,
    sqrt_flat_at_zero,
    started,
)


@rounded_as_torch
def rmsprop_update(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
    """One step of `torch.optim.RMSprop` (momentum, centred, weight decay) on one parameter.

    Where the centred variance v - m², which is not negative but for rounding, comes out below zero, it counts as zero;
    `torch.optim` takes its square root and gives NaN there, and in that alone they differ.
    """
    alpha, momentum, centered = options["alpha"], options["momentum"], options["centered"]
    is_moved = not is_zero(momentum)
    kept = {"square_avg": True, "momentum_buffer": is_moved, "grad_avg": centered}
    state = started(state, [name for name in kept if kept[name]], parameter)
    gradient = decayed(gradient, parameter, options)
    variance = mean_square(state["square_avg"], gradient, alpha)
    state = {**state, "step": state["step"] + 1, "square_avg": variance}
    if centered:
        mean = between(state["grad_avg"], gradient, 1 - alpha)
        state["grad_avg"] = mean
        variance = plus_product(variance, mean, mean, -1)
    denominator = sqrt_flat_at_zero(variance) + options["eps"]
    if is_moved:
        buffer = plus_ratio(state["momentum_buffer"] * momentum, gradient, denominator)
        state["momentum_buffer"] = buffer
        return plus(parameter, buffer, -options["lr"]), state
    return plus_ratio(parameter, gradient, denominator, -options["lr"]), state


@rounded_as_torch
def adagrad_update(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
    """One step of `torch.optim.Adagrad` (decay of rate and weights) on one parameter."""
    if not state:
        state = {"step": scalar(0.0), "sum": torch.full_like(parameter, options["initial_accumulator_value"])}
    gradient = decayed(gradient, parameter, options)
    step, total = state["step"] + 1, plus_product(state["sum"], gradient, gradient)
    rate = options["lr"] / (1 + (step.item() - 1) * options["lr_decay"])
    denominator = sqrt_flat_at_zero(total) + options["eps"]
    return plus_ratio(parameter, gradient, denominator, -rate), {"step": step, "sum": total}


@rounded_as_torch
def adadelta_update(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
    """One step of `torch.optim.Adadelta` on one parameter."""
    rho, eps = options["rho"], options["eps"]
    state = started(state, ["square_avg", "acc_delta"], parameter)
    gradient = decayed(gradient, parameter, options)
    square = mean_square(state["square_avg"], gradient, rho)
    delta = sqrt_flat_at_zero(state["acc_delta"] + eps) / sqrt_flat_at_zero(square + eps) * gradient
    moved = mean_square(state["acc_delta"], delta, rho)
    updated = plus(parameter, delta, -options["lr"])
    return updated, {"step": state["step"] + 1, "square_avg": square, "acc_delta": moved}
