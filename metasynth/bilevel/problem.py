"""The statement of a bilevel problem, with no word on how it is solved.

Inner parameters φ (a model) minimise ``inner_loss``; outer parameters θ are wanted that make the φ
so obtained minimise ``outer_loss``::

    min_θ  L_outer(φ*(θ), θ)      where φ* follows from descending  L_inner(φ, θ) in φ.

In Learn2Synth (Hu et al., ICCV 2025, Eqs 1-5) φ is a segmenter, θ an augmenter of synthetic images,
L_inner the loss on augmented synthetic images and L_outer the loss on real ones.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metasynth.bilevel.patched.recomputation import as_first_computed

_TYPE_ERROR = "outer must be a torch.nn.Module, a tensor, or a sequence or mapping of tensors, got {}"

Outer = nn.Module | Tensor | Sequence[Tensor] | Mapping[str, Tensor]
"""What holds the outer parameters; handed to both losses exactly as the user gave it."""

Loss = Callable[[nn.Module, Any, Any], Tensor]
"""``loss(model, outer, batch) -> scalar tensor``.

``model`` behaves as the user's own model (it is a patched copy of it when the step is to be
differentiated), ``outer`` is the object given to the solver, ``batch`` whatever the caller passes.
A loss that draws random numbers should take its draws from the batch, so that it can be evaluated twice.
"""


@dataclass(frozen=True)
class BilevelProblem:
    """The two losses of a bilevel problem.

    Attributes
    ----------
    inner_loss : callable
        ``(model, outer, inner_batch) -> scalar``. Its gradient with respect to the model's parameters
        drives the inner step; it must depend on the outer parameters.
    outer_loss : callable
        ``(model, outer, outer_batch) -> scalar``. Evaluated at the updated inner parameters; it may
        depend on the outer parameters directly as well.
    autocast : torch.dtype or None
        Both losses are evaluated under `torch.autocast` to this type (such as `torch.bfloat16`); parameters, the
        optimisers' states and hypergradients keep theirs. Halves the memory of activations.
    """

    inner_loss: Loss
    outer_loss: Loss
    autocast: torch.dtype | None = None

    def inner_value(self, model: nn.Module, outer: Any, batch: Any) -> Tensor:
        """The inner loss, a scalar; ValueError if it is none."""
        return self._evaluate(self.inner_loss, "inner_loss", model, outer, batch)

    def outer_value(self, model: nn.Module, outer: Any, batch: Any) -> Tensor:
        """The outer loss, a scalar; ValueError if it is none."""
        return self._evaluate(self.outer_loss, "outer_loss", model, outer, batch)

    def _evaluate(self, loss: Loss, which: str, model: nn.Module, outer: Any, batch: Any) -> Tensor:
        with as_first_computed(model, outer), self._precision(model):
            return scalar_loss(loss, which, model, outer, batch)

    def _precision(self, model: nn.Module) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return nullcontext()
        device = next(iter(model.parameters())).device.type
        # Without the cache of cast weights: it knows tensors by identity, and outlives the graphs taken here.
        return torch.autocast(device, dtype=self.autocast, cache_enabled=False)


def named_outer_parameters(outer: Outer) -> dict[str, Tensor]:
    """The outer parameters that are to be learned (``requires_grad``), by name.

    Raises
    ------
    TypeError
        If ``outer`` is none of the supported containers.
    ValueError
        If it holds no parameter that requires a gradient.
    """
    if isinstance(outer, nn.Module):
        named: dict[str, Any] = dict(outer.named_parameters())
    elif isinstance(outer, Tensor):
        named = {"outer": outer}
    elif isinstance(outer, Mapping):
        named = dict(outer)
    elif isinstance(outer, Sequence) and not isinstance(outer, str):
        named = {f"outer[{i}]": tensor for i, tensor in enumerate(outer)}
    else:
        raise TypeError(_TYPE_ERROR.format(type(outer).__name__))
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{_TYPE_ERROR.format(type(outer).__name__)} with {name} a {type(tensor).__name__}")
    learned = {name: tensor for name, tensor in named.items() if tensor.requires_grad}
    for name, tensor in learned.items():
        if not tensor.is_leaf:
            raise ValueError(f"outer parameter {name} must be a leaf tensor, got the result of an operation")
    if not learned:
        raise ValueError("outer holds no parameter with requires_grad=True, so there is nothing to learn")
    return learned


def scalar_loss(loss: Loss, which: str, model: nn.Module, outer: Any, batch: Any) -> Tensor:
    """Evaluate a loss and insist on a real scalar.

    Raises
    ------
    ValueError
        If what came back is no tensor of one floating-point element.
    """
    value = loss(model, outer, batch)
    if not isinstance(value, Tensor):
        raise ValueError(f"{which} must return a scalar tensor, got {type(value).__name__}")
    if value.numel() != 1 or not torch.is_floating_point(value):
        raise ValueError(
            f"{which} must return one floating-point value, got shape {tuple(value.shape)} of {value.dtype}"
        )
    return value.reshape(())
