"""Whether the second derivatives of an operation are right, wrong or missing.

What is compared with is a central difference of the first derivative that torch gives.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from bilevel.operations import Operation
from torch import Tensor
from torch.autograd import forward_ad, gradgradcheck
from torch.autograd.gradcheck import GradcheckError
from torch.utils._pytree import tree_leaves

from metasynth.bilevel.derivatives import gradient_of
from metasynth.bilevel.patched.elementary import ElementaryOperations

Verdict = Literal["right", "wrong", "missing"]


def outputs_of(operation: Operation, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What the operation gives that has a derivative."""
    found = tree_leaves(operation.function(*inputs))
    return tuple(y for y in found if isinstance(y, Tensor) and y.requires_grad)


def loss_of(operation: Operation, inputs: Sequence[Tensor]) -> Tensor:
    """A function of the outputs whose derivative in each depends on all of them."""
    generator = torch.Generator().manual_seed(4)
    outputs = outputs_of(operation, inputs)
    weights = [torch.randn(y.shape, generator=generator, dtype=y.dtype) for y in outputs]
    total = torch.stack([(c * y + 0.3 * y.square()).sum() for c, y in zip(weights, outputs, strict=True)]).sum()
    return total + torch.log1p(total.square())


def by_double_backward(operation: Operation) -> Verdict:
    """What becomes of reverse mode over reverse mode."""
    try:
        gradgradcheck(lambda *x: outputs_of(operation, x), operation.inputs, fast_mode=True, atol=1e-5, rtol=1e-3)
    except GradcheckError:
        return "wrong"
    except RuntimeError:
        return "missing"
    return "right"


def by_forward_mode(operation: Operation) -> Verdict:
    """What becomes of reverse mode over forward mode, as `Forward` takes it."""
    leaves = [x.detach().clone().requires_grad_() for x in operation.inputs]
    try:
        with forward_ad.dual_level(), ElementaryOperations():
            duals = [forward_ad.make_dual(x, w) for x, w in zip(leaves, _direction(operation, 1), strict=True)]
            slope = forward_ad.unpack_dual(loss_of(operation, duals)).tangent
        found = [None] if slope is None else gradient_of(slope, leaves)
    except RuntimeError:
        return "missing"
    return _compared(operation, found)


def by_differences(operation: Operation) -> Verdict:
    """What becomes of differences of the gradient, as `FiniteDifference` takes them."""
    return _compared(operation, _difference(operation, _direction(operation, 1)))


def _compared(operation: Operation, found: Sequence[Tensor | None]) -> Verdict:
    """Whether ``found`` is (dg/dx)ᵀ w: its product with another direction u is w · dg along u."""
    along = _difference(operation, _direction(operation, 2))
    expected = sum((w * d).sum().item() for w, d in zip(_direction(operation, 1), along, strict=True))
    pairs = zip(found, _direction(operation, 2), strict=False)
    got = sum((a * u).sum().item() for a, u in pairs if a is not None)
    return "right" if abs(got - expected) <= 1e-5 + 1e-4 * abs(expected) else "wrong"


def _direction(operation: Operation, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in operation.inputs]


def _difference(operation: Operation, direction: Sequence[Tensor], step: float = 1e-6) -> list[Tensor]:
    """dg along a direction, by central differences of g, the gradient that torch gives."""
    above, below = (_gradient(operation, direction, e) for e in (step, -step))
    return [(a - b) / (2 * step) for a, b in zip(above, below, strict=True)]


def _gradient(operation: Operation, direction: Sequence[Tensor], step: float) -> list[Tensor]:
    moved = [(x.detach() + step * w).requires_grad_() for x, w in zip(operation.inputs, direction, strict=True)]
    found = gradient_of(loss_of(operation, moved), moved)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, moved, strict=True)]
