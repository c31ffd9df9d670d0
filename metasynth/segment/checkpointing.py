"""Gradient checkpointing (Chen et al. 2016): what a module computes is computed again when it is needed."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def checkpointed(module: nn.Module, features: Tensor) -> Tensor:
    """What ``module(features)`` gives, without keeping what it computes on the way.

    It is computed again in the backward pass, with the buffers and random state of the first time, and once again for a
    second derivative; buffers (running statistics) are updated by the first time alone. Bilevel steps see to it that
    the parameters are those of the first time too.
    """
    if not torch.is_grad_enabled():
        return module(features)
    again = _Again(_Buffers(module).restored)
    return checkpoint(module, features, use_reentrant=False, context_fn=lambda: (nullcontext(), again))


class _Buffers:
    """Copies of a module's buffers."""

    def __init__(self, module: nn.Module) -> None:
        self._noted = [
            (m, {key: None if b is None else b.detach().clone() for key, b in m._buffers.items()})
            for m in module.modules()
        ]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """A context in which the module has copies of them for its buffers."""
        present = [(m, dict(m._buffers)) for m, _ in self._noted]
        for module, buffers in self._noted:
            module._buffers.update({key: None if b is None else b.clone() for key, b in buffers.items()})
        try:
            yield
        finally:
            for module, buffers in present:
                module._buffers.update(buffers)


class _Again(AbstractContextManager[None]):
    """A context that can be entered any number of times: torch enters one and the same at every recomputation."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make
        self._open: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        context = self._make()
        context.__enter__()
        self._open.append(context)

    def __exit__(self, *error: Any) -> None:
        self._open.pop().__exit__(*error)
