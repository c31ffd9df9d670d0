"""A model as a function of its parameters, by one reusable `higher` monkeypatch.

`higher.monkeypatch` copies a module into a stateless twin whose parameters are handed in. Made anew for every
step it costs a class per submodule and leaves reference cycles that hold weights until the garbage collector
comes by; kept while tracking, its history of fast weights grows without end. Here it is made once, does not track
(graphs live in the tensors themselves), and is brought up to date before each step.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import higher
from higher.patch import _internal_attrs
from torch import Tensor, nn

from metasynth.bilevel.patched.buffers import BufferPolicy, check_policy, keep_evaluating, tracks_statistics
from metasynth.bilevel.patched.elementary import write_out
from metasynth.bilevel.patched.patchable import (
    for_twin,
    is_own_forward,
    refuse_deep_copies,
    refuse_unpatchable,
    submodules_uncompiled,
    uncompiled,
)

Buffers = dict[str, Tensor]

# `Module.compile` leaves a call of the module itself.
_NOT_COPIED = {*_internal_attrs, "_compiled_call_impl"}


class FunctionalModel:
    """A `higher` monkeypatched twin of ``model``, reused from step to step.

    Parameters
    ----------
    model : torch.nn.Module
        The model itself; it is read (weights, buffers, flags) by `refresh` and written only by `commit`.
    buffers : BufferPolicy
        See there. Other than under ``"commit"``, every pass starts from the buffers that `refresh` took over.

    Raises
    ------
    ValueError
        If there is no such policy, or the model cannot be patched (see `metasynth.bilevel.patched.patchable`).

    Notes
    -----
    Forward hooks do not survive patching (`metasynth.bilevel.checks.preflight` refuses models that have any).
    A submodule used in several places keeps one set of buffers, as in the original. What `torch.compile` made of a
    model, a submodule or a method is left to the model's own passes; the twin runs what was compiled.
    """

    def __init__(self, model: nn.Module, buffers: BufferPolicy = "commit") -> None:
        check_policy(buffers)
        refuse_unpatchable(model)
        self.model = uncompiled(model)
        self.policy = buffers
        with submodules_uncompiled(self.model):
            self._patched: Any = higher.monkeypatch(self.model, copy_initial_weights=True, track_higher_grads=False)
        self._pairs = _module_pairs(self.model, self._patched)
        self._twins = {id(module): twin for _, module, twin in self._pairs}
        self._first = _without_repetition(self._pairs)
        self._owners = {
            f"{prefix}.{key}" if prefix else key: (twin, key)
            for prefix, module, twin in self._first
            for key, value in module._buffers.items()
            if value is not None
        }
        # Recurrent layers keep a list of their parameters besides.
        self._recurrent = [twin for _, _, twin in self._pairs if isinstance(twin, nn.RNNBase)]
        self._kept: Buffers = {}
        self._modes = [twin.training for _, _, twin in self._pairs]
        self._patched.__dict__["as_bound"] = self.as_bound
        for name, module, twin in self._pairs:
            refuse_deep_copies(name, module, twin)
        for module in self._patched.modules():
            module.__dict__.pop("_compiled_call_impl", None)
            write_out(module)

    def __getstate__(self) -> dict[str, Any]:
        # The twin has classes of its own: a copy makes one of its model.
        return {"model": self.model, "buffers": self.policy}

    def __setstate__(self, state: dict[str, Any]) -> None:
        FunctionalModel.__init__(self, **state)

    def refresh(self) -> list[Tensor]:
        """Take over the model's flags and buffers; return detached copies of its parameters.

        Returns
        -------
        list of tensor
            One per ``model.parameters()``, in that order, with the same ``requires_grad``.
        """
        for _, module, twin in self._pairs:
            for name, value in module.__dict__.items():
                if name not in _NOT_COPIED:
                    twin.__dict__[name] = for_twin(value, self._twins)
            if is_own_forward(twin.__dict__.get("forward"), module):
                del twin.__dict__["forward"]  # the twin's class has one that knows where its parameters are
        for _, module, twin in self._first:
            for key, buffer in module._buffers.items():
                twin._buffers[key] = None if buffer is None else buffer.detach().clone()
        for _, _, twin in self._pairs:
            if self.policy == "freeze" and tracks_statistics(twin):
                keep_evaluating(twin)
        self._modes = [twin.training for _, _, twin in self._pairs]
        if self.policy != "commit":
            self._kept = {name: value.clone() for name, value in self._present().items()}
        return [p.detach().clone().requires_grad_(p.requires_grad) for p in self.model.parameters()]

    def bind(self, parameters: Sequence[Tensor]) -> nn.Module:
        """The patched model with these parameters in place of its own, ready for a pass in the model's own modes."""
        # An outer loss may have called `eval`, which is not for the passes after it.
        for (_, _, twin), mode in zip(self._pairs, self._modes, strict=True):
            twin.__dict__["training"] = mode
        # Buffers of its own for each pass: graphs of earlier ones may hold theirs, and layers move them in place.
        self.load_buffers(self._start())
        self._place(parameters)
        return self._patched

    def _place(self, parameters: Sequence[Tensor]) -> None:
        self._patched.update_params(list(parameters))
        # A submodule called on its own reads the parameters left by the last refill, so refill now.
        self._patched._refill_params_box(None)
        for twin in self._recurrent:
            twin._flat_weights = [twin._parameters[name] for name in twin._flat_weights_names]

    def as_bound(self) -> AbstractContextManager[None]:
        """A context, for any number of entries, in which the twin has the parameters it has now.

        The twin has this method too, for what is computed again in a backward pass, when other parameters may have
        been bound (`metasynth.bilevel.patched.recomputation`).
        """
        return _Rebinding(self, self._patched.fast_params)

    def buffers(self) -> Buffers:
        """Copies of the buffers to go on from: after the passes made since `refresh`, or (see the policy) before."""
        return {name: value.clone() for name, value in self._start().items()}

    def _start(self) -> Buffers:
        return self._present() if self.policy == "commit" else self._kept

    def _present(self) -> Buffers:
        return {name: twin._buffers[key].detach() for name, (twin, key) in self._owners.items()}

    def load_buffers(self, buffers: Mapping[str, Tensor]) -> None:
        """Set the twin's buffers to copies of ``buffers``."""
        for name, value in buffers.items():
            twin, key = self._owners[name]
            twin._buffers[key] = value.clone()

    def release(self) -> None:
        """Let go of every graph held through the parameters bound last."""
        self.bind([p.detach() for p in self.model.parameters()])

    def commit(self, parameters: Sequence[Tensor], buffers: Mapping[str, Tensor]) -> None:
        """Write parameters (one per ``model.parameters()``) and buffers, as `buffers` gave them, into the model."""
        for target, value in zip(self.model.parameters(), parameters, strict=True):
            target.data.copy_(value.detach())
        owned = dict(self.model.named_buffers(remove_duplicate=False))
        for name, value in buffers.items():
            owned[name].data.copy_(value)


class _Rebinding(AbstractContextManager[None]):
    def __init__(self, model: FunctionalModel, parameters: Sequence[Tensor]) -> None:
        self._model = model
        self._parameters = list(parameters)
        self._present: list[Sequence[Tensor]] = []

    def __enter__(self) -> None:
        self._present.append(self._model._patched.fast_params)
        self._model._place(self._parameters)

    def __exit__(self, *_: object) -> None:
        self._model._place(self._present.pop())


def _module_pairs(model: nn.Module, patched: Any) -> list[tuple[str, nn.Module, Any]]:
    """Each submodule with its name and its patched twin; those of one and the same submodule share their buffers."""
    first: dict[int, Any] = {}
    pairs: list[tuple[str, nn.Module, Any]] = []

    def visit(name: str, module: nn.Module, twin: Any) -> None:
        twin._buffers = first.setdefault(id(module), twin)._buffers
        pairs.append((name, module, twin))
        for key, child in module._modules.items():
            if child is not None:
                below = f"{name}.{key}" if name else key
                visit(below + "._orig_mod" * (uncompiled(child) is not child), uncompiled(child), twin._modules[key])

    visit("", model, patched)
    return pairs


def _without_repetition(pairs: list[tuple[str, nn.Module, Any]]) -> list[tuple[str, nn.Module, Any]]:
    """The first of the pairs of each submodule."""
    return list({id(module): (name, module, twin) for name, module, twin in reversed(pairs)}.values())[::-1]
