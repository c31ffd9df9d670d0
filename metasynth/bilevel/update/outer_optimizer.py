"""The outer optimiser: which can be used, and a step of it that is taken whole or not at all."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from metasynth.bilevel.problem import Outer, named_outer_parameters
from metasynth.bilevel.step_report import NonFiniteError


def check_outer(optimizer: torch.optim.Optimizer, outer: Outer) -> None:
    """Refuse an outer optimiser that cannot step on hypergradients, or not on all of them.

    Raises
    ------
    ValueError
        If it is no optimiser, needs a closure or sparse gradients, has a flag that forbids a plain step, or does not
        hold every learned outer parameter.
    """
    kind = type(optimizer).__name__
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(f"the outer optimiser must be a torch.optim.Optimizer, got {kind}")
    if _needs_closure(optimizer):
        raise ValueError(
            f"the outer {kind} needs a closure that evaluates a loss again, which a hypergradient does not have; "
            "expected an optimiser whose step() takes no argument, such as Adam or SGD"
        )
    if isinstance(optimizer, torch.optim.SparseAdam):
        raise ValueError(f"the outer {kind} takes sparse gradients alone; hypergradients are dense: expected Adam")
    for options in optimizer.param_groups:
        if options.get("differentiable"):
            raise ValueError(
                f"the outer {kind}(differentiable=True) cannot step on parameters that require a gradient; expected "
                "differentiable=False"
            )
        if options.get("capturable") and any(p.device.type == "cpu" for p in options["params"]):
            raise ValueError(
                f"the outer {kind}(capturable=True) cannot step on parameters on a CPU; expected capturable=False"
            )
    require_held(optimizer, outer)


def require_held(optimizer: torch.optim.Optimizer, outer: Outer) -> None:
    """Raise ValueError unless the outer optimiser holds every learned outer parameter."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    lacking = [name for name, tensor in named_outer_parameters(outer).items() if id(tensor) not in held]
    if lacking:
        raise ValueError(
            f"the outer {type(optimizer).__name__} does not hold outer parameter {', '.join(lacking)}, which could "
            "then not be learned; make it on all of them, or set requires_grad=False on what is to stay"
        )


def step_outer(
    optimizer: torch.optim.Optimizer, outer: Outer, gradients: Mapping[str, Tensor | None], step: int
) -> None:
    """A step on hypergradients by name; no ``.grad`` is left, and if it fails, nothing has moved.

    Raises
    ------
    NonFiniteError
        If it would take a learned parameter beyond what its type can hold; ``step`` is the inner step that is named.
    """
    learned = named_outer_parameters(outer)
    before = _Before(optimizer)
    try:
        for name, parameter in learned.items():
            parameter.grad = gradients[name]
        optimizer.step()
        for name, parameter in learned.items():
            if not torch.isfinite(parameter).all():
                raise NonFiniteError(step, f"outer parameter {name} after its step", _first_not_finite(parameter))
    except BaseException:
        before.restore()
        raise
    finally:
        for parameter in learned.values():
            parameter.grad = None


def _first_not_finite(values: Tensor) -> float:
    return float(values.detach()[~torch.isfinite(values)][0])


class _Before:
    """Copies of all that an optimiser's step may change: what it holds, its state and its options."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._values = [[p.detach().clone() for p in group["params"]] for group in optimizer.param_groups]
        groups = optimizer.param_groups
        self._options = [{name: _copied(v) for name, v in group.items() if name != "params"} for group in groups]
        self._state = {key: _copied(state) for key, state in optimizer.state.items()}

    def restore(self) -> None:
        groups = zip(self._optimizer.param_groups, self._values, self._options, strict=True)
        for group, values, options in groups:
            for parameter, value in zip(group["params"], values, strict=True):
                parameter.data.copy_(value)
            group.update(options)
        self._optimizer.state.clear()
        self._optimizer.state.update(self._state)


def _copied(value: Any) -> Any:
    """A copy of an optimiser's state, which may be nested; tensors in it are cut from their graphs."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {name: _copied(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_copied(part) for part in value]
    return copy.deepcopy(value)


def _needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether ``step()`` cannot be called without arguments, asked of the class: schedulers replace the method."""
    _, *parameters = inspect.signature(type(optimizer).step).parameters.values()
    given = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return any(p.default is inspect.Parameter.empty and p.kind not in given for p in parameters)
