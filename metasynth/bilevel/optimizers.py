"""Optimiser updates as differentiable functions: SGD, Adam and AdamW, registered with `higher`.

Each follows `torch.optim` operation by operation (order, rounding, state), so that steps taken here and steps
taken by the optimiser itself can be mixed freely; `higher`'s own Adam adds epsilon elsewhere and it has no AdamW.
The update rules are functions of (parameter, gradient, state, options) and return new tensors.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import higher
import torch
from higher.optim import DifferentiableOptimizer
from torch import Tensor

State = dict[str, Any]
Options = dict[str, Any]


def sgd_update(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
    """One step of `torch.optim.SGD` (momentum, dampening, Nesterov, weight decay) on one parameter."""
    if options["weight_decay"] != 0:
        gradient = gradient.add(parameter, alpha=options["weight_decay"])
    momentum = options["momentum"]
    if momentum != 0:
        buffer = state.get("momentum_buffer")
        if buffer is None:
            buffer = gradient.clone()
        else:
            buffer = buffer.mul(momentum).add(gradient, alpha=1 - options["dampening"])
        state = {**state, "momentum_buffer": buffer}
        gradient = gradient.add(buffer, alpha=momentum) if options["nesterov"] else buffer
    return parameter.add(gradient, alpha=-options["lr"]), state


def sqrt_flat_at_zero(value: Tensor) -> Tensor:
    """Square root whose derivative at zero is zero instead of infinite.

    The second moment of Adam is exactly zero where a gradient has always been zero (a dead ReLU unit). There the
    naive chain rule multiplies an infinite derivative by zero and gives NaN. The update m / (sqrt(v) + eps) itself
    is differentiable at that point, with the derivative of m over eps, which is what a zero derivative here gives.
    """
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1.0).sqrt(), 0.0)


def _adam(parameter: Tensor, gradient: Tensor, state: State, options: Options, decoupled: bool) -> tuple[Tensor, State]:
    beta1, beta2 = options["betas"]
    lr, weight_decay = options["lr"], options["weight_decay"]
    if not state:
        state = {
            "step": torch.tensor(0.0),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    if weight_decay != 0:
        if decoupled:
            parameter = parameter.mul(1 - lr * weight_decay)
        else:
            gradient = gradient.add(parameter, alpha=weight_decay)
    step = state["step"] + 1
    first = torch.lerp(state["exp_avg"], gradient, 1 - beta1)
    second = state["exp_avg_sq"].mul(beta2).addcmul(gradient, gradient, value=1 - beta2)
    count = step.item()
    correction1 = 1 - beta1**count
    correction2_sqrt = (1 - beta2**count) ** 0.5
    denominator = (sqrt_flat_at_zero(second) / correction2_sqrt).add(options["eps"])
    updated = parameter.addcdiv(first, denominator, value=-(lr / correction1))
    return updated, {"step": step, "exp_avg": first, "exp_avg_sq": second}


def adam_update(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
    """One step of `torch.optim.Adam` (weight decay added to the gradient) on one parameter."""
    return _adam(parameter, gradient, state, options, bool(options.get("decoupled_weight_decay", False)))


def adamw_update(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
    """One step of `torch.optim.AdamW` (decoupled weight decay) on one parameter."""
    return _adam(parameter, gradient, state, options, True)


class _RuleOptimizer(DifferentiableOptimizer):
    """A `higher` differentiable optimiser that applies an update rule; concrete ones only name the rule."""

    @staticmethod
    @abstractmethod
    def rule(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
        """The updated parameter and state."""

    def __init__(self, other: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> None:
        check_supported(other)
        super().__init__(other, *args, **kwargs)

    def _update(self, grouped_grads: list[list[Tensor | None]], **_: Any) -> None:
        for index, (options, grads) in enumerate(zip(self.param_groups, grouped_grads, strict=True)):
            for position, (parameter, gradient) in enumerate(zip(options["params"], grads, strict=True)):
                if gradient is None:
                    continue
                options["params"][position], self.state[index][position] = self.rule(
                    parameter, gradient, self.state[index][position], options
                )


class DifferentiableSGD(_RuleOptimizer):
    """Differentiable twin of `torch.optim.SGD`."""

    rule = staticmethod(sgd_update)


class DifferentiableAdam(_RuleOptimizer):
    """Differentiable twin of `torch.optim.Adam`; finite at dead units."""

    rule = staticmethod(adam_update)


class DifferentiableAdamW(_RuleOptimizer):
    """Differentiable twin of `torch.optim.AdamW`; finite at dead units."""

    rule = staticmethod(adamw_update)


higher.register_optim(torch.optim.SGD, DifferentiableSGD)
higher.register_optim(torch.optim.Adam, DifferentiableAdam)
higher.register_optim(torch.optim.AdamW, DifferentiableAdamW)

_UNSUPPORTED_FLAGS = ("amsgrad", "maximize", "capturable", "differentiable", "fused")


def check_supported(optimizer: torch.optim.Optimizer) -> None:
    """Refuse optimiser flags that the differentiable twin would not honour.

    Raises
    ------
    ValueError
        Naming the flag.
    """
    for options in optimizer.param_groups:
        for flag in _UNSUPPORTED_FLAGS:
            if options.get(flag):
                raise ValueError(
                    f"{type(optimizer).__name__}({flag}={options[flag]}) cannot be differentiated through; "
                    f"expected {flag}=False"
                )
        for name in ("lr", "weight_decay", "momentum", "eps"):
            if isinstance(options.get(name), Tensor):
                raise ValueError(f"{type(optimizer).__name__}({name}=...) must be a number, got a tensor")


def differentiable(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> DifferentiableOptimizer:
    """A differentiable twin of ``optimizer``, starting from a copy of its state.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Of a type registered with `higher` (exact type, not a subclass).
    parameters : sequence of tensor
        The model's own parameters, all of them, in order; the optimiser may hold a subset.

    Raises
    ------
    ValueError
        If the optimiser's type is not registered, or it holds parameters that are not the model's.
    """
    known = {id(p) for p in parameters}
    for options in optimizer.param_groups:
        if any(id(p) not in known for p in options["params"]):
            raise ValueError(
                f"the inner {type(optimizer).__name__} holds a parameter that is not the inner model's; "
                "expected only parameters of the inner model"
            )
    if type(optimizer) not in higher.optim._opt_mapping:
        raise ValueError(
            f"no differentiable twin of {type(optimizer).__name__} is registered; expected SGD, Adam, AdamW or a "
            "type added with higher.register_optim"
        )
    return higher.optim.get_diff_optim(optimizer, list(parameters), track_higher_grads=True)


def apply_update(
    optimizer: DifferentiableOptimizer, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]
) -> list[Tensor]:
    """The optimiser's update alone: φ* = U(φ, g; state), differentiable in ``gradients``.

    `DifferentiableOptimizer.step` computes the gradient itself; the three-part product needs the update by itself,
    for any registered optimiser. Parameters whose gradient is None, and those the optimiser does not hold, stay.
    """
    grouped: list[list[Tensor | None]] = []
    for options, indices in zip(optimizer.param_groups, optimizer._group_to_param_list, strict=True):
        options["params"] = [parameters[i] for i in indices]
        grouped.append([gradients[i] for i in indices])
    optimizer._update(grouped)
    updated = list(parameters)
    for options, indices in zip(optimizer.param_groups, optimizer._group_to_param_list, strict=True):
        for index, parameter in zip(indices, options["params"], strict=True):
            updated[index] = parameter
    return updated


def commit_state(optimizer: torch.optim.Optimizer, twin: DifferentiableOptimizer) -> None:
    """Write the twin's state (moments, step counts) back into the optimiser it was made from, as if it had stepped."""
    for options, states in zip(optimizer.param_groups, twin.state, strict=True):
        for position, parameter in enumerate(options["params"]):
            new = states.get(position)
            if not new:
                continue
            optimizer.state[parameter] = {
                key: value.detach() if isinstance(value, Tensor) else value for key, value in new.items()
            }
    # What `Optimizer.step` tells learning-rate schedulers, which warn if they are stepped before it.
    optimizer._opt_called = True  # type: ignore[attr-defined]
