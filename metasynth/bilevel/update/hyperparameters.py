"""Hyperparameters of the inner update that are functions of the outer parameters: what may be given, and its checks."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from metasynth.bilevel.update.rules.arithmetic import value_of

Hyperparameters = Callable[[Any, Mapping[str, Any]], Mapping[str, Any]]
"""``(outer, group) -> {"lr": ..., "betas": (..., ...)}``: any numbers of the group, by their names.

``group`` is a parameter group of the optimiser without its parameters: its values as schedulers have left them, and
whatever else the group was made with, by which groups can be told apart. Each value is a number or a 0-d tensor, for
the whole group; or a list of such for each parameter of the group, in which a tensor may have the parameter's shape and
so a value for each weight (Meta-SGD, Li et al. 2017). What is a pair in the group is given as a pair of these.
"""


class PerParameter(tuple[Any, ...]):
    """Values of a hyperparameter, one for each parameter of a group."""


def of_parameter(value: Any, position: int) -> Any:
    """What a hyperparameter is for one parameter of its group."""
    if isinstance(value, PerParameter):
        return value[position]
    return tuple(of_parameter(part, position) for part in value) if isinstance(value, tuple | list) else value


def is_per_parameter(value: Any) -> bool:
    """Whether `torch.optim` could not take it, not even as numbers."""
    return isinstance(value, PerParameter) or (isinstance(value, tuple) and any(map(is_per_parameter, value)))


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors of a hyperparameter."""
    if isinstance(value, tuple):
        return [tensor for part in value for tensor in tensors_of(part)]
    return [value] if isinstance(value, Tensor) else []


def checked(name: str, value: Any, group: Mapping[str, Any]) -> Any:
    """A value as given for a group, with lists as `PerParameter`.

    Raises
    ------
    ValueError
        If the group has no such number or it is none to be learned, or if it is not finite, out of its range, or not of
        the shapes that `Hyperparameters` names.
    """
    own = group.get(name)
    if name not in group or name == "params":
        raise ValueError(f"hyperparameters gave {name!r}, which the inner optimiser does not have")
    if name in _FIXED or isinstance(own, bool) or not isinstance(own, int | float | tuple | list):
        raise ValueError(f"hyperparameters gave {name!r}, which is no number of the inner update that can be learned")
    if not isinstance(own, tuple | list):
        return _checked_part(name, value, group["params"])
    if not isinstance(value, tuple | list) or len(value) != len(own):
        raise ValueError(f"hyperparameters must give {name} as {len(own)} values, got {_described(value)}")
    return tuple(
        part if part is None and before is None else _checked_part(name, part, group["params"])
        for part, before in zip(value, own, strict=True)
    )


_FIXED = ("initial_accumulator_value", "t0", "step_sizes", "ns_coefficients", "ns_steps", "beta2_decay", "d")
"""What enters an update only where it starts or is cut off, or is a count."""

_BELOW_ONE = ("betas", "rho")


def _checked_part(name: str, value: Any, parameters: Sequence[Tensor]) -> Any:
    if not isinstance(value, tuple | list):
        _check(name, value, ())
        return value
    if len(value) != len(parameters):
        raise ValueError(
            f"hyperparameters must give {name} as a list of one value for each of the group's {len(parameters)} "
            f"parameters, got {len(value)}"
        )
    for part, parameter in zip(value, parameters, strict=True):
        _check(name, part, tuple(parameter.shape))
    return PerParameter(value)


def _check(name: str, value: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(value, int | float | Tensor) or (isinstance(value, Tensor) and value.shape not in ((), shape)):
        expected = f" or of the parameter's shape {shape}" if shape else ""
        raise ValueError(
            f"hyperparameters must give {name} as a number or a 0-d tensor{expected}, got {_described(value)}"
        )
    found = value_of(value)
    least, most = (found.amin().item(), found.amax().item()) if isinstance(found, Tensor) else (found, found)
    bound = 1 if name in _BELOW_ONE else math.inf
    if not (math.isfinite(least) and least >= 0 and most < bound):
        limits = "at least 0" + (" and below 1" if bound == 1 else "")
        worst = least if not least >= 0 else most
        raise ValueError(f"hyperparameters must give {name} as a finite number of {limits}, got {worst!r}")
    if name == "momentum" and least == 0 and isinstance(value, Tensor) and value.requires_grad:
        raise ValueError("hyperparameters must give a learned momentum above 0, where the optimiser keeps it, got 0")


def _described(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
