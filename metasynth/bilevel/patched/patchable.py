"""What a model may be wrapped in: compilers are taken off for its patched twin, what cannot be patched is refused."""

import inspect
import sys
from abc import ABC, ABCMeta
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.ao.nn.sparse.quantized")
# A base of the module's class -> why it cannot be patched.
_BY_BASE = {
    "FSDPModule": "its parameters are sharded; give the model as it was before",
    "FullyShardedDataParallel": "its parameters are sharded; give the model as it was before",
    "_MonkeyPatchBase": "it is patched already; give the model itself",
    "ActivationWrapper": "it is a wrapper of torch; give what it wraps, and call "
    "torch.utils.checkpoint.checkpoint(..., use_reentrant=False) in forward",
}


def uncompiled(module: nn.Module) -> nn.Module:
    """The module that `torch.compile` was given, or ``module`` itself."""
    # Where nothing was compiled the compiler has not been loaded, which takes seconds.
    compiler: Any = sys.modules.get("torch._dynamo.eval_frame")
    while compiler is not None and isinstance(module, compiler.OptimizedModule):
        module = module._orig_mod
    return module


def for_twin(value: Any, twins: Mapping[int, nn.Module]) -> Any:
    """An attribute of a module as its patched twin has it: a method of a module is the same of the module's twin.

    What `torch.compile` (or `torch.compiler.disable`) made of a method or a function is as it was before.

    Parameters
    ----------
    value : any
    twins : mapping of int to torch.nn.Module
        The twin of each module, by the module's id.
    """
    if isinstance(value, FunctionType):
        value = inspect.unwrap(value, stop=lambda given: not _is_of_the_compiler(given))
    if isinstance(value, MethodType) and id(value.__self__) in twins:
        return MethodType(value.__func__, twins[id(value.__self__)])
    return value


def _is_of_the_compiler(given: Any) -> bool:
    """Whether it is a function that the compiler puts around another; around those of torch it puts two."""
    return isinstance(given, FunctionType) and str(given.__globals__.get("__name__")).startswith("torch._dynamo.")


def is_own_forward(value: Any, module: nn.Module) -> bool:
    """Whether a method is what calling ``module`` does anyway."""
    return isinstance(value, MethodType) and value.__func__ is type(module).forward


@contextmanager
def submodules_uncompiled(model: nn.Module) -> Iterator[None]:
    """A context in which the modules that were compiled stand in the places of what `torch.compile` made of them."""
    compiled = [
        (parent, key, child)
        for parent in model.modules()
        for key, child in parent._modules.items()
        if child is not None and uncompiled(child) is not child
    ]
    try:
        for parent, key, child in compiled:
            parent._modules[key] = uncompiled(child)
        yield
    finally:
        for parent, key, child in compiled:
            parent._modules[key] = child


def refuse_unpatchable(model: nn.Module) -> None:
    """Raise ValueError, in one line, if a model cannot be patched.

    Because of its class (scripted, exported, distributed, sharded, quantised) or its parameters (without values, or
    made in inference mode).
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"the inner model must be a torch.nn.Module, got {type(model).__name__}")
    for name, module in model.named_modules():
        reason = _unpatchable(module)
        if reason is not None:
            where = f"{name} ({type(module).__name__})" if name else type(module).__name__
            raise ValueError(f"inner model: {where} cannot be patched for differentiation: {reason}")


def refuse_deep_copies(name: str, module: nn.Module, twin: nn.Module) -> None:
    """Let `copy.deepcopy` of the patched twin of a module raise ValueError, in one line.

    A copy made in a pass has parameters of its own, which no derivative reaches: a constant to the gradient, though
    the step before has moved its values, so that hypergradients through several steps would be wrong without a word.
    (`higher` keeps in a twin what cannot be copied at all, which ends in a TypeError about a generator.)
    """
    where = f"{name} ({type(module).__name__})" if name else type(module).__name__

    def refuse(memo: dict[int, Any]) -> NoReturn:
        raise ValueError(
            f"inner model: {where} is copied by copy.deepcopy where it is differentiated, but derivatives do not reach "
            "the parameters of a copy; copy it when the model is made, or compute with its parameters, detached"
        )

    if not hasattr(type(module), "__deepcopy__"):
        twin.__dict__["__deepcopy__"] = refuse


def _unpatchable(module: nn.Module) -> str | None:
    kind = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        return "it was made by torch.jit; give the module that it was made of"
    if isinstance(module, nn.parallel.DistributedDataParallel):
        return "give its .module, and the processes as InnerUpdate(optimizer, processes=Processes.current())"
    if isinstance(module, nn.DataParallel) and module.device_ids:
        return "give its .module"
    if kind.__module__.startswith(_QUANTISED):
        return "its weights are quantised; give the model before its quantisation"
    made_by = next((how for base, how in _BY_BASE.items() if base in {b.__name__ for b in kind.__mro__}), None)
    if made_by is not None:
        return made_by
    if type(kind) not in (type, ABCMeta):
        return f"its class has a metaclass, {type(kind).__name__} (as if exported); give the module that it was made of"
    if ABC in kind.__mro__ and kind.__mro__.index(nn.Module) < kind.__mro__.index(ABC):
        return "its class derives from (nn.Module, ABC); let it derive from (ABC, nn.Module)"
    for name, parameter in module.named_parameters(recurse=False):
        reason = _without_values(parameter)
        if reason is not None:
            return f"{name} {reason}"
    return None


def _without_values(parameter: Tensor) -> str | None:
    if is_lazy(parameter):
        return "is not initialised yet; pass a batch through the model once, before its optimiser is made"
    if parameter.is_meta:
        return "is on the meta device, without values; give it some"
    if parameter.is_inference():
        return "was made under torch.inference_mode(); make the model outside of it"
    return None
