"""Activation checkpointing in anybody's model: what a backward pass computes again is what was computed the first time.

`torch.utils.checkpoint` (Chen et al. 2016) forgets what a part of a model computes and calls the part again when a
backward pass needs it. The call then reads whatever parameters, buffers and modes the model has *by then*. In ordinary
training these are still those of the first time. In a bilevel step they are not: the patched model has been bound to
other parameters since, its buffers have moved, and an outer loss may have called ``model.eval()``.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import has_torch_function
from torch.utils import checkpoint as torch_checkpoint

_GENERATOR, _REENTRANT = "_checkpoint_without_reentrant_generator", "CheckpointFunction"
_OWN = {name: getattr(torch_checkpoint, name, None) for name in (_GENERATOR, _REENTRANT)}  # torch's
_LOCK, _THREAD = threading.Lock(), threading.local()
_passes: list[int] = [0]  # that are under way, over all threads
_PROBE = torch.empty(0)

REENTRANT = (
    "torch.utils.checkpoint with use_reentrant=True makes a backward pass of its own, which no hypergradient passes "
    "through; call it with use_reentrant=False"
)
"""What the refusal of the older kind of checkpointing says."""


@contextmanager
def as_first_computed(model: nn.Module, outer: Any) -> Iterator[None]:
    """A context for a pass of ``model``, whose checkpointed parts are recomputed as they were computed in it.

    That is with its parameters, buffers, modes (train or eval) and random draws (with ``preserve_rng_state=False``
    too), in any later backward pass and for a second derivative too. Buffers (running statistics) are moved by the
    first time alone, in a patched model and in one that is trained as it is.

    Where a `torch.overrides.TorchFunctionMode` is active, as in the passes of some strategies, nothing is forgotten,
    and so nothing recomputed: the mode would not be there then, or see everything twice.

    Parameters
    ----------
    model : torch.nn.Module
        One that `metasynth.bilevel.patched.functional.FunctionalModel.bind` gave, or any other.
    outer : any
        What the loss is given besides; if it is a module its buffers and modes are kept too.

    Raises
    ------
    ValueError
        Within it, if the model calls `torch.utils.checkpoint` with ``use_reentrant=True``.
    """
    owners = [owner for owner in (model, outer) if isinstance(owner, nn.Module)]
    with _followed(_Pass(owners, getattr(model, "as_bound", nullcontext))):
        yield


class _Pass:
    """A pass of a model: what is run in it, and how its twin gets back the parameters it is bound to now."""

    def __init__(self, owners: list[nn.Module], as_bound: Callable[[], AbstractContextManager[None]]) -> None:
        self._owners = owners
        self._as_bound = as_bound

    def repeated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, to be called later with everything it reads as it is now."""
        owners = _owner_of(function) or self._owners
        bound, state = self._as_bound(), _State([module for owner in owners for module in owner.modules()])

        def again(*args: Any, **kwargs: Any) -> Any:
            with bound, state.restored(), _followed(self):  # followed: parts within parts are checkpointed too
                return function(*args, **kwargs)

        return again


class _State:
    """Modes and copies of the buffers of modules."""

    def __init__(self, modules: list[nn.Module]) -> None:
        self._modes = [(m, m.training) for m in modules]
        self._buffers = [(m, _copied(m._buffers)) for m in modules if m._buffers]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """A context in which the modules have their modes, and copies of the buffers for their own."""
        modes = [(m, m.training) for m, _ in self._modes]
        buffers = [(m, dict(m._buffers)) for m, _ in self._buffers]
        for module, mode in self._modes:
            module.training = mode
        for module, kept in self._buffers:
            module._buffers.update(_copied(kept))
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for module, present in buffers:
                module._buffers.update(present)


def _copied(buffers: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
    return {key: None if b is None else b.detach().clone() for key, b in buffers.items()}


def _owner_of(function: Callable[..., Any]) -> list[nn.Module]:
    """The module that a function runs, where it is one or a method of one; none where that cannot be told."""
    while isinstance(function, functools.partial):
        function = function.func
    owner = getattr(function, "__self__", function)
    return [owner] if isinstance(owner, nn.Module) else []


@contextmanager
def _followed(followed: _Pass) -> Iterator[None]:
    """A context in which checkpointing in this thread goes by a pass."""
    outer_pass = getattr(_THREAD, "followed", None)
    with _stand_ins():
        _THREAD.followed = followed
        try:
            yield
        finally:
            _THREAD.followed = outer_pass


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Put stand-ins before two names of `torch.utils.checkpoint`, which its `checkpoint` looks up at every call.

    However a model came by `checkpoint`, it goes through them; in threads without a pass they do what torch does. If a
    release of torch has other names, the checks before a training (`preflight`) refuse the models that would have
    needed this.
    """
    _count(1)
    try:
        yield
    finally:
        _count(-1)


def _count(more: int) -> None:
    with _LOCK:
        _passes[0] += more
        if not all(_OWN.values()):
            return
        if more > 0 and _passes[0] == 1:
            setattr(torch_checkpoint, _GENERATOR, _checkpointed)
            setattr(torch_checkpoint, _REENTRANT, _Reentrant)
        elif _passes[0] == 0:
            for name, own in _OWN.items():
                setattr(torch_checkpoint, name, own)


def _here() -> _Pass | None:
    """The pass that checkpointing in this thread goes by; None where nothing is to be differentiated.

    Nor within a compiler of a model's own pass, which makes one graph of both computations.
    """
    is_followed = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return getattr(_THREAD, "followed", None) if is_followed else None


def _checkpointed(function: Callable[..., Any], *options: Any, **arguments: Any) -> Iterator[None]:
    """In place of the generator that goes around the first call of a part and keeps what recomputes it."""
    followed, own = _here(), _OWN[_GENERATOR]
    assert own is not None
    if followed is None:
        return own(function, *options, **arguments)
    if has_torch_function((_PROBE,)):
        return _nothing_forgotten()
    # With ``preserve_rng_state``, the first option, whatever was asked for; and without ``debug``, the fourth: what it
    # traces can be recomputed once, not for a second derivative too.
    return own(followed.repeated(function), True, *options[1:3], False, *options[4:], **arguments)


def _nothing_forgotten() -> Iterator[None]:
    yield


class _Reentrant:
    """In place of the function of the older kind."""

    @staticmethod
    def apply(*arguments: Any) -> Any:
        if _here() is not None:
            raise ValueError(REENTRANT)
        own = _OWN[_REENTRANT]
        assert own is not None
        return own.apply(*arguments)
