"""Copies of a solver that go on as it would: what they would share is refused, and what cannot be pickled is named."""

import copy
import functools
import inspect
import io
import pickle
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metasynth.bilevel.patched.outer_state import tensors_of

Parts = Mapping[str, Any]
"""What a solver was made of, by the names that its user gave it under."""

_GENERATORS = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)
_BY_VALUE = ("cloudpickle", "dill")


def parts_of(solver: Any) -> Parts:
    """What a solver's user gave."""
    return {
        "inner_loss": solver.problem.inner_loss,
        "outer_loss": solver.problem.outer_loss,
        "model": solver.model,
        "optimizer": solver.optimizer,
        "hyperparameters": solver.update.hyperparameters,
        "preconditioner": solver.update.preconditioner,
        "processes": solver.update.processes,
        "outer": solver.outer,
        "outer_optimizer": solver.outer_optimizer,
        "strategy": solver.strategy,
        "outer_step": solver.outer_step,
    }


def deep_copy(solver: Any, memo: dict[int, Any]) -> Any:
    """A solver that goes on with the same numbers and shares with ``solver`` nothing that moves.

    Functions are not copied, so that they must not hold what moves.

    Raises
    ------
    ValueError
        If a function holds, beside its arguments, a parameter or buffer of either level or a random generator; or the
        outer optimiser has step hooks, which torch does not copy.
    """
    _refuse_shared(parts_of(solver))
    twin = object.__new__(type(solver))
    memo[id(solver)] = twin
    twin.__dict__.update(copy.deepcopy(solver.__dict__, memo))
    return twin


def picklable_state(solver: Any) -> dict[str, Any]:
    """The attributes of a solver, to be pickled.

    Raises
    ------
    pickle.PicklingError
        If a part cannot be, such as a lambda; the line names it.
    ValueError
        As `deep_copy`: functions are pickled by name.
    """
    if not _functions_are_written():
        parts = parts_of(solver)
        for name, part in parts.items():
            _require_picklable(name, part)
        _refuse_shared(parts)
    return dict(solver.__dict__)


class _Trial(pickle.Pickler):
    """Pickles all but tensors, to see whether that can be done."""

    def persistent_id(self, given: Any) -> Any:
        return "tensor" if isinstance(given, Tensor) else None


def _require_picklable(name: str, part: Any) -> None:
    cause = _why_not(part)
    if cause is None:
        return
    modules = part.named_modules() if isinstance(part, nn.Module) else ()
    inside = [f" ({key}, {type(module).__name__})" for key, module in modules if key and _why_not(module)]
    where = inside[-1] if inside else ""
    raise pickle.PicklingError(
        f"{name}{where} of the solver cannot be pickled: {cause}; functions must be made by def at the top level of a "
        "module, or be objects of a class with __call__ that is"
    )


def _why_not(part: Any) -> str | None:
    try:
        _Trial(io.BytesIO(), pickle.HIGHEST_PROTOCOL).dump(part)
    except (pickle.PicklingError, AttributeError, TypeError, NotImplementedError, ValueError, RuntimeError) as error:
        return str(error).partition("\n")[0]
    return None


def _functions_are_written() -> bool:
    """Whether one of the picklers is at work that write functions themselves, with all that they hold."""
    frame = sys._getframe(1)
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _BY_VALUE:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _refuse_shared(parts: Parts) -> None:
    outer_optimizer = parts["outer_optimizer"]
    if outer_optimizer._optimizer_step_pre_hooks or outer_optimizer._optimizer_step_post_hooks:
        raise ValueError(
            f"the outer {type(outer_optimizer).__name__} has step hooks, which torch does not copy; remove them"
        )
    levels = [*tensors_of(parts["model"]).values(), *tensors_of(parts["outer"]).values()]
    moving = {id(tensor) for tensor in levels}
    for name in ("inner_loss", "outer_loss", "hyperparameters", "preconditioner"):
        for key, value in _held(parts[name], set()):
            what = _what_moves(value, moving)
            if what is not None:
                raise ValueError(
                    f"{name} holds {what}, as {key}, which a copy of the solver would share; take it from the "
                    "arguments, or let an object of a class with __call__ hold it, which is copied too"
                )


def _held(function: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """What a function reads besides its arguments, by name, and so do functions of its own module that it calls."""
    while isinstance(function, functools.partial | MethodType):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    if not isinstance(function, FunctionType) or id(function) in seen:
        return
    seen.add(id(function))
    read = inspect.getclosurevars(function)
    defaults = [*enumerate(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items()]
    for key, value in [*read.globals.items(), *read.nonlocals.items(), *defaults]:
        yield str(key), value
        if getattr(value, "__module__", None) == function.__module__:
            yield from _held(value, seen)


def _what_moves(value: Any, moving: set[int]) -> str | None:
    """A phrase for a value that a step moves, or for the first such in a list, tuple or mapping; None for others."""
    if isinstance(value, _GENERATORS):
        return "a random generator"
    if isinstance(value, nn.Module):
        return _phrase(type(value).__name__, tensors_of(value).values(), moving)
    if isinstance(value, Tensor):
        return _phrase("a tensor", [value], moving)
    if isinstance(value, torch.optim.Optimizer):
        return _phrase(type(value).__name__, (p for group in value.param_groups for p in group["params"]), moving)
    entries = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return next((found for found in (_what_moves(entry, moving) for entry in entries) if found), None)


def _phrase(what: str, tensors: Iterable[Tensor], moving: set[int]) -> str | None:
    return f"{what} of the solver's own" if any(id(tensor) in moving for tensor in tensors) else None
