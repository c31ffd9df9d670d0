"""The mixed second derivative by reverse mode over forward mode."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd import forward_ad

from metasynth.bilevel.checks.flawed_operations import Mode
from metasynth.bilevel.derivatives import Gradients, gradient_of
from metasynth.bilevel.patched.elementary import ElementaryOperations
from metasynth.bilevel.patched.replay import require_equal_losses
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.product import Point, ProductStrategy


@dataclass(frozen=True)
class Forward(ProductStrategy):
    """One inner step; the mixed derivative as the gradient in θ of the loss' slope along w.

    With w = (∂U/∂g)ᵀ v,

        h = (∂g/∂θ)ᵀ w = ∂/∂θ  d/dε L_inner(φ + ε w, θ) |ε=0

    where the slope comes with the loss in one pass on dual numbers φ + ε w. Exact. No graph outlives the inner pass,
    so inner, outer and second-order pass follow each other in memory; the last holds values and slopes, twice
    the activations of a plain pass.

    Costs, in passes of all convolutions: 3 for g (as a plain training step) and, in the pullback, 3 forward (value,
    slope by the inputs, slope by the weights) and 3 backward, with no gradients of weights.

    Torch's forward-mode rules were not all made to be differentiated again. Softmax, its relatives and the
    normalisations are taken care of (`metasynth.bilevel.patched.elementary`); convolutions, pooling and the usual
    activations are right, recurrent cells too where torch has a rule for them (not for a float32 LSTM on CPUs);
    attention and GLU are refused by torch 2.13; what is wrong in silence, such as `linalg.solve`, by `preflight`
    (`metasynth.bilevel.checks.flawed_operations`). Compare once with `Mixed` where a loss uses an unusual operation.

    The pass is made twice: see `metasynth.bilevel.patched.replay.Replay` for what is repeated exactly.

    Raises
    ------
    ValueError
        From the pullback, if the second pass does not repeat the loss of the first, or an operation of the inner loss
        has no forward-mode derivative.
    """

    @property
    def mode(self) -> Mode:
        """Forward mode, then reverse."""
        return "forward mode"

    def check(self, inputs: StepInputs) -> None:
        """Take the derivative along the gradient once, so that an operation it cannot pass is named at the start."""
        first = self.inner_pass(Point.of(inputs))
        first.product(first.gradients)

    def mixed_derivative(self, point: Point, direction: Gradients) -> Gradients:
        """See `ProductStrategy.mixed_derivative`."""
        learned = point.learned
        with point.replay.again(), _in_one_line():
            with forward_ad.dual_level(), ElementaryOperations():
                duals = _duals([p.detach() for p in point.parameters], direction)
                loss = point.inner_loss(duals)
                value, slope = forward_ad.unpack_dual(loss)
            if point.loss is not None:
                require_equal_losses(point.loss, value, "Forward")
            # Inside the level the backward pass would carry slopes of its own, for nothing.
            return [None] * len(learned) if slope is None else gradient_of(slope, learned)


def _duals(values: Sequence[Tensor], tangents: Sequence[Tensor | None]) -> list[Tensor]:
    with warnings.catch_warnings():
        # The first dual number of a process makes torch 2.13 load a module that uses its own deprecated jit.
        warnings.filterwarnings("ignore", message=".*torch.jit.*deprecated", category=DeprecationWarning)
        return [x if t is None else forward_ad.make_dual(x, t) for x, t in zip(values, tangents, strict=True)]


_MISSING = ("forward AD", "forward mode AD", "forward gradient", "derivative", "inplace operation")


class _in_one_line:
    """Turns torch's errors about missing derivatives into one line that names the cause."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, RuntimeError):
            return
        first_line = str(error).splitlines()[0]
        if any(sign in first_line for sign in _MISSING):
            raise ValueError(
                "inner_loss cannot be differentiated by Forward (forward mode, then reverse); choose Mixed or "
                f"FiniteDifference, or write the operation out: {first_line}"
            ) from error
