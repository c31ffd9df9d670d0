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

Buffers = dict[str, Tensor]


class FunctionalModel:
    """A `higher` monkeypatched twin of ``model``, reused from step to step.

    Parameters
    ----------
    model : torch.nn.Module
        The model itself; it is read (weights, buffers, flags) by `refresh` and written only by `commit`.

    Notes
    -----
    Forward hooks do not survive patching (`metasynth.bilevel.preflight` refuses models that have any).
    A submodule used in several places keeps one set of buffers, as in the original.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._patched: Any = higher.monkeypatch(model, copy_initial_weights=True, track_higher_grads=False)
        self._pairs = _module_pairs(model, self._patched)
        self._owners = {
            f"{prefix}.{key}" if prefix else key: (twin, key)
            for prefix, module, twin in self._pairs
            for key, value in module._buffers.items()
            if value is not None
        }
        for module in self._patched.modules():
            module.__dict__["as_bound"] = self.as_bound

    def refresh(self) -> list[Tensor]:
        """Take over the model's flags and buffers; return detached copies of its parameters.

        Returns
        -------
        list of tensor
            One per ``model.parameters()``, in that order, with the same ``requires_grad``.
        """
        for _, module, twin in self._pairs:
            for name, value in module.__dict__.items():
                if name not in _internal_attrs:
                    twin.__dict__[name] = value
            for key, buffer in module._buffers.items():
                twin._buffers[key] = None if buffer is None else buffer.detach().clone()
        return [p.detach().clone().requires_grad_(p.requires_grad) for p in self.model.parameters()]

    def bind(self, parameters: Sequence[Tensor]) -> nn.Module:
        """The patched model with these parameters in place of its own."""
        self._patched.update_params(list(parameters))
        # A submodule called on its own reads the parameters left by the last refill, so refill now.
        self._patched._refill_params_box(None)
        return self._patched

    def as_bound(self) -> AbstractContextManager[None]:
        """A context, for any number of entries, in which the twin has the parameters it has now.

        Every patched submodule has this method too, for whoever computes it again in a backward pass, when other
        parameters may have been bound (gradient checkpointing does).
        """
        return _Rebinding(self, self._patched.fast_params)

    def buffers(self) -> Buffers:
        """Copies of the twin's buffers as they stand (after the passes made since `refresh`)."""
        return {name: twin._buffers[key].detach().clone() for name, (twin, key) in self._owners.items()}

    def load_buffers(self, buffers: Mapping[str, Tensor]) -> None:
        """Set the twin's buffers to copies of ``buffers``."""
        for name, value in buffers.items():
            twin, key = self._owners[name]
            twin._buffers[key] = value.clone()

    def release(self) -> None:
        """Let go of every graph held through the parameters bound last."""
        self.bind([p.detach() for p in self.model.parameters()])

    def commit(self, parameters: Sequence[Tensor], buffers: Mapping[str, Tensor]) -> None:
        """Write parameters (one per ``model.parameters()``) and buffers into the model itself."""
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
        self._model.bind(self._parameters)

    def __exit__(self, *_: object) -> None:
        self._model.bind(self._present.pop())


def _module_pairs(model: nn.Module, patched: Any) -> list[tuple[str, nn.Module, Any]]:
    """Each distinct submodule with its name and its patched twin; further twins share the first one's buffers."""
    first: dict[int, Any] = {}
    pairs: list[tuple[str, nn.Module, Any]] = []

    def visit(name: str, module: nn.Module, twin: Any) -> None:
        if id(module) in first:
            twin._buffers = first[id(module)]._buffers
        else:
            first[id(module)] = twin
            pairs.append((name, module, twin))
        for key, child in module._modules.items():
            if child is not None:
                visit(f"{name}.{key}" if name else key, child, twin._modules[key])

    visit("", model, patched)
    return pairs
