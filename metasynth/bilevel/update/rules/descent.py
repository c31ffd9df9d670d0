"""Rules that move along the gradient or its sign, without a second moment: SGD, ASGD and Rprop."""

import torch
from torch import Tensor

from metasynth.bilevel.update.rules.arithmetic import (
    Number,
    Options,
    State,
    decayed,
    is_zero,
    plus,
    plus_product,
    rounded_as_torch,
    scalar,
    started,
    value_of,
)


@rounded_as_torch
def sgd_update(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
    """One step of `torch.optim.SGD` (momentum, dampening, Nesterov, weight decay) on one parameter."""
    gradient = decayed(gradient, parameter, options)
    momentum = options["momentum"]
    if not is_zero(momentum):
        buffer = state.get("momentum_buffer")
        if buffer is None:
            buffer = gradient.clone()
        else:
            buffer = plus(buffer * momentum, gradient, 1 - options["dampening"])
        state = {**state, "momentum_buffer": buffer}
        gradient = plus(gradient, buffer, momentum) if options["nesterov"] else buffer
    return plus(parameter, gradient, -options["lr"]), state


@rounded_as_torch
def asgd_update(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
    """One step of `torch.optim.ASGD` on one parameter, with the mean of its iterates in the state (``ax``).

    A step is taken at the rate that the step before it left, η_t = lr / (1 + λ lr t)^α, rounded as the state keeps it.
    """
    lr, lambd, alpha = options["lr"], options["lambd"], options["alpha"]
    if not state:
        step, mu = scalar(0.0, parameter), scalar(1.0, parameter)
        state = {"step": step, "eta": _kept(lr, mu), "mu": mu, "ax": torch.zeros_like(parameter)}
    gradient = decayed(gradient, parameter, options)
    step, eta, factor = state["step"] + 1, state["eta"], state["mu"].item()
    eta = eta if any(isinstance(option, Tensor) for option in (lr, lambd, alpha)) else value_of(eta)
    updated = plus(parameter * (1 - lambd * eta), gradient, -eta)
    # With a factor of one torch copies, which the sum below rounds otherwise.
    mean = updated.clone() if factor == 1 else state["ax"] + (updated - state["ax"]) * factor
    count = value_of(step)
    eta = _kept(lr / ((1 + lambd * lr * count) ** alpha), state["mu"])
    return updated, {"step": step, "eta": eta, "mu": _kept(1 / max(1, count - options["t0"]), state["mu"]), "ax": mean}


def _kept(rate: Number, like: Tensor) -> Tensor:
    """A number as the state keeps it: rounded as torch's default type, in the type that another has there."""
    return rate.to(like.device) if isinstance(rate, Tensor) else torch.tensor(rate).to(like)


@rounded_as_torch
def rprop_update(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
    """One step of `torch.optim.Rprop` on one parameter.

    It depends on the signs of gradients alone, whose derivative is zero wherever there is one. The gradient is taken
    for a constant here, so that what can only be learned through it is seen to have no derivative.
    """
    gradient = gradient.detach()
    below, above = options["etas"]
    if not state:
        state = {**started(state, ["prev"], parameter), "step_size": torch.ones_like(parameter) * options["lr"]}
    turned = gradient * state["prev"]
    factor = torch.where(turned < 0, below, torch.where(turned > 0, above, torch.ones_like(turned)))
    size = (state["step_size"] * factor).clamp(*options["step_sizes"])
    gradient = torch.where(turned < 0, 0.0, gradient)
    updated = plus_product(parameter, gradient.sign(), size, -1)
    return updated, {"step": state["step"] + 1, "prev": gradient, "step_size": size}
