"""First derivatives of a loss, and vector-Jacobian products, over lists in which entries may be missing."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

Gradients = list[Tensor | None]
"""One entry per tensor differentiated with respect to; None where there is no dependence."""


def gradient_of(loss: Tensor, inputs: Sequence[Tensor], create_graph: bool = False) -> Gradients:
    """∂loss/∂inputs; None for inputs that are frozen or not used."""
    wanted = [x for x in inputs if x.requires_grad]
    if not loss.requires_grad or not wanted:
        return [None] * len(inputs)
    found = iter(torch.autograd.grad(loss, wanted, create_graph=create_graph, allow_unused=True))
    return [next(found) if x.requires_grad else None for x in inputs]


def pull(
    outputs: Sequence[Tensor | None],
    cotangents: Sequence[Tensor | None],
    inputs: Sequence[Tensor | None],
    retain_graph: bool = False,
) -> Gradients:
    """Vector-Jacobian product (∂outputs/∂inputs)ᵀ cotangents, skipping entries that are None or constant."""
    pairs = [
        (y, v) for y, v in zip(outputs, cotangents, strict=True) if y is not None and v is not None and y.requires_grad
    ]
    wanted = [x for x in inputs if x is not None]
    if not pairs or not wanted:
        return [None] * len(inputs)
    ys, vs = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(ys, wanted, grad_outputs=vs, allow_unused=True, retain_graph=retain_graph))
    return [None if x is None else next(found) for x in inputs]


def sum_of(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The sum a + b, where None counts as zero."""
    if a is None or b is None:
        return a if b is None else b
    return a + b


def difference_of(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The difference a - b, where None counts as zero."""
    return sum_of(a, None if b is None else -b)


def norm_of(tensors: Sequence[Tensor | None]) -> float:
    """Euclidean norm over all entries of all tensors; 0 if there is none."""
    norms = [t.detach().norm() for t in tensors if t is not None]
    return torch.stack(norms).norm().item() if norms else 0.0


def total_norm(tensors: Sequence[Tensor | None]) -> Tensor:
    """The same as a tensor, in few kernels however many there are; not finite where an entry is not."""
    present = [t.detach() for t in tensors if t is not None]
    return get_total_norm([t.coalesce().values() if t.is_sparse else t for t in present])
