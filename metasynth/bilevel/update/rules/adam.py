"""The rules of Adam and its kin: Adam, AdamW, Adamax, NAdam and RAdam."""

from typing import NamedTuple

import torch
from torch import Tensor

from metasynth.bilevel.update.rules.arithmetic import (
    Number,
    Options,
    State,
    between,
    decayed,
    mean_square,
    plus,
    plus_ratio,
    rounded_as_torch,
    scalar,
    shrunk,
    sqrt_flat_at_zero,
    started,
    value_of,
)


@rounded_as_torch
def adam_update(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
    """One step of `torch.optim.Adam` (weight decay added to the gradient, AMSGrad) on one parameter."""
    names = ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * options["amsgrad"]
    moved = _moved(parameter, gradient, started(state, names, parameter), options)
    first, second = moved.state["exp_avg"], moved.state["exp_avg_sq"]
    if options["amsgrad"]:
        second = moved.state["max_exp_avg_sq"] = torch.maximum(moved.state["max_exp_avg_sq"], second)
    denominator = sqrt_flat_at_zero(second) / moved.unbias2**0.5 + options["eps"]
    return plus_ratio(moved.parameter, first, denominator, -(options["lr"] / moved.unbias1)), moved.state


def adamw_update(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
    """One step of `torch.optim.AdamW` (decoupled weight decay, AMSGrad) on one parameter."""
    return adam_update(parameter, gradient, state, {**options, "decoupled_weight_decay": True})


@rounded_as_torch
def nadam_update(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
    """One step of `torch.optim.NAdam` on one parameter."""
    if not state:
        zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        state = {"step": scalar(0.0), "mu_product": scalar(1.0), **zeros}
    moved = _moved(parameter, gradient, state, options)
    lr, beta1, decay = options["lr"], options["betas"][0], options["momentum_decay"]
    now, following = (beta1 * (1.0 - 0.5 * (0.96 ** (t * decay))) for t in (moved.steps, moved.steps + 1))
    product = state["mu_product"] * now
    moved.state["mu_product"] = product
    product = product if isinstance(now, Tensor) else value_of(product)
    denominator = sqrt_flat_at_zero(moved.state["exp_avg_sq"] / moved.unbias2) + options["eps"]
    updated = plus_ratio(moved.parameter, moved.gradient, denominator, -lr * (1.0 - now) / (1.0 - product))
    scale = (-lr * following) / (1.0 - product * following)
    return plus_ratio(updated, moved.state["exp_avg"], denominator, scale), moved.state


@rounded_as_torch
def radam_update(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
    """One step of `torch.optim.RAdam` on one parameter."""
    moved = _moved(parameter, gradient, started(state, ["exp_avg", "exp_avg_sq"], parameter), options)
    beta2, count = options["betas"][1], moved.steps
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * count * (beta2**count) / moved.unbias2
    step = moved.state["exp_avg"] / moved.unbias1 * options["lr"]
    if isinstance(length, Tensor):
        # Both are evaluated, and where the mean is too short the first must have a finite derivative.
        is_long = length > 5.0
        rectified = _rectified(step, moved, torch.where(is_long, length, longest), longest, options["eps"])
        step = torch.where(is_long, rectified, step)
    elif length > 5.0:
        step = _rectified(step, moved, length, longest, options["eps"])
    return plus(moved.parameter, step, -1.0), moved.state


def _rectified(step: Tensor, moved: "_Moved", length: Number, longest: Number, eps: Number) -> Tensor:
    rate = moved.unbias2**0.5 / (sqrt_flat_at_zero(moved.state["exp_avg_sq"]) + eps)
    return step * rate * ((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)) ** 0.5


@rounded_as_torch
def adamax_update(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
    """One step of `torch.optim.Adamax` on one parameter."""
    state = started(state, ["exp_avg", "exp_inf"], parameter)
    (beta1, beta2), step = options["betas"], state["step"] + 1
    gradient = decayed(gradient, parameter, options)
    first = between(state["exp_avg"], gradient, 1 - beta1)
    largest = torch.maximum(state["exp_inf"] * beta2, gradient.abs() + options["eps"])
    rate = options["lr"] / (1 - beta1 ** step.item())
    return plus_ratio(parameter, first, largest, -rate), {"step": step, "exp_avg": first, "exp_inf": largest}


class _Moved(NamedTuple):
    """What moments and weight decay have made of parameter and gradient, and what unbiases the moments."""

    parameter: Tensor
    gradient: Tensor
    state: State
    steps: float
    unbias1: Number
    unbias2: Number


def _moved(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> _Moved:
    beta1, beta2 = options["betas"]
    if options.get("decoupled_weight_decay"):
        parameter = shrunk(parameter, options)
    else:
        gradient = decayed(gradient, parameter, options)
    step = state["step"] + 1
    first = between(state["exp_avg"], gradient, 1 - beta1)
    second = mean_square(state["exp_avg_sq"], gradient, beta2)
    count = step.item()
    state = {**state, "step": step, "exp_avg": first, "exp_avg_sq": second}
    return _Moved(parameter, gradient, state, count, 1 - beta1**count, 1 - beta2**count)
