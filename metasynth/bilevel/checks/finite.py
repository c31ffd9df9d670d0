"""What must be finite for a step to be taken."""

import math
from collections.abc import Sequence

from torch import Tensor

from metasynth.bilevel.derivatives import total_norm
from metasynth.bilevel.hypergradient import Hypergradient
from metasynth.bilevel.step_report import NonFiniteError


def require_finite(term: str, value: Tensor, step: int) -> float:
    """The value of a scalar that is called ``term``; NonFiniteError, for inner step ``step``, if it is not finite."""
    number = value.item()
    if not math.isfinite(number):
        raise NonFiniteError(step, term, number)
    return number


def require_finite_step(result: Hypergradient, moved: Sequence[Tensor], before: int) -> float:
    """Norm of a hypergradient, after insisting that it, the losses and φ* (``moved``) are finite.

    ``before`` counts the inner steps committed so far.
    """
    last = before + len(result.inner_losses)
    for step, loss in enumerate(result.inner_losses, start=before + 1):
        require_finite("inner loss", loss, step)
    require_finite("outer loss", result.outer_loss, last)
    if result.reference_loss is not None:
        require_finite("reference loss", result.reference_loss, last)
    norms = [
        require_finite(f"hypergradient of {name}", gradient.norm(), last)
        for name, gradient in result.gradients.items()
        if gradient is not None
    ]
    require_finite("norm of the updated inner parameters", total_norm(moved), last)
    return math.sqrt(sum(norm**2 for norm in norms))
