"""The mixed second derivative by central differences, without a second derivative being taken."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metasynth.bilevel.checks.flawed_operations import Mode
from metasynth.bilevel.derivatives import Gradients, difference_of, gradient_of, norm_of, sum_of
from metasynth.bilevel.patched.kinks import Kinks
from metasynth.bilevel.patched.replay import irreproducible
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.product import InnerPass, Point, ProductStrategy
from metasynth.bilevel.update.updates import loss_and_gradient

ROUNDING_UNITS = 32
"""How many units of rounding a gradient in θ is taken to be off; for trained U-Nets in float32 it was 8 in the mean
square and at most 17."""

WIDENED, WIDENINGS = 4, 2
"""How many times as large the step is that is tried where rounding might spoil the result, and how often."""


@dataclass(frozen=True)
class FiniteDifference(ProductStrategy):
    """One inner step; the mixed derivative as a difference of gradients in θ.

    With w = (∂U/∂g)ᵀ v and L_inner evaluated with the same random draws, buffers and (see ``hold_kinks``) sides,

        h ≈ [∂L_inner/∂θ(φ + ε w) - ∂L_inner/∂θ(φ - ε w)] / 2ε,      ε = relative_step |φ| / |w|.

    Every derivative is a first one in θ alone: any operation and kernel with a backward pass will do. Costs, in passes
    of all convolutions: 3 for g, then 4 (8 with ``estimate_error``; twice that where ``limit`` sets entries apart).
    What tells the sides, the outputs of the ReLUs, is kept through the outer pass;
    `metasynth.bilevel.strategies.parts.InParts` keeps it for one chunk of the batch at a time, and peak memory is then
    that of plain training.

    The error is about T ε² + R/ε: truncation, and rounding of gradients that nearly cancel. R is in proportion to the
    rounding unit u, so the best ε is in proportion to u^(1/3) and the error then to u^(2/3).

    Reported as diagnostics: ``step`` (ε), ``rounding`` = 32 u (|∂L_inner/∂θ| / ε + |h|), and with ``estimate_error``
    also ``error`` = |h(2ε) - h(ε)| + ``rounding``, from a second pair of passes. The first term is about three times
    the truncation error. It bounds the Euclidean norm of h's error (h without the outer loss's direct part), unless ε
    is so large that higher orders dominate or ∂L_inner/∂θ is itself almost zero by cancellation.

    ``rounding`` is a bound, typically twenty times what is there. Where h is small because its terms cancel, rounding
    weighs the more: while it exceeds ``tolerance`` |h|, a pair of passes is made at a step four times as large, and
    taken if that moves h by no more than ``rounding`` / 8, that is if truncation there is still small. This happens at
    most twice, and in about one draw of ten of a trained U-Net; ``step`` tells.

    Parameters
    ----------
    relative_step : float or None
        |ε w| / |φ|. None: 3e-3 u^(1/3), 1.5e-5 in float32 and 1.8e-8 in float64. The factor was found on trained U-Nets
        under Adam, whose w lies along strongly curved directions.
    estimate_error : bool
        Make the second pair of passes.
    hold_kinks : bool
        Hold ReLUs and max-pools on the side they are on at φ (see `metasynth.bilevel.patched.kinks`). Without it the
        difference of a trained U-Net can be off by several times its value, at any step and in any precision, as units
        change side between the two passes (docs/measurements/hypergradients.md).
    limit : float or None
        Entries of w beyond ``limit`` times the median of the |w| that are not zero are set apart. A second moment of
        Adam near zero gives such entries (up to lr / eps times v); as ε is in proportion to 1 / |w| they
        raise the rounding error of all others. None: all entries are treated alike.
    drop_excess : bool
        What becomes of w's excess over the limit. False: it has a difference, and a step, of its own, and the
        result stays exact up to the errors above. True: it is left out, as if the preconditioner were bounded; h
        then lacks (∂g/∂θ)ᵀ excess, which is small where ∂g/∂θ is nearly zero, as for units that are nearly dead; in
        general it is a bias.
    tolerance : float or None
        Where to try a larger step, as above. None: nowhere.

    Raises
    ------
    ValueError
        From the pullback, if the losses of the passes do not fit together.
    """

    relative_step: float | None = None
    estimate_error: bool = False
    hold_kinks: bool = True
    limit: float | None = None
    drop_excess: bool = False
    tolerance: float | None = 0.15

    def __post_init__(self) -> None:
        if self.relative_step is not None and not self.relative_step > 0:
            raise ValueError(f"relative_step must be above 0 or None, got {self.relative_step!r}")
        if self.limit is not None and not self.limit >= 1:
            raise ValueError(f"limit must be at least 1 (times the median) or None, got {self.limit!r}")
        if self.tolerance is not None and not self.tolerance > 0:
            raise ValueError(f"tolerance must be above 0 or None, got {self.tolerance!r}")

    @property
    def mode(self) -> Mode:
        """First derivatives alone."""
        return "differences"

    def check(self, inputs: StepInputs) -> None:
        """Refuse a problem under autocast: nothing is left of a difference of gradients rounded that far."""
        autocast = inputs.problem.autocast
        if autocast is not None:
            raise ValueError(
                f"FiniteDifference cannot be used with autocast={autocast}: the gradients it subtracts are "
                "rounded too far; use Mixed"
            )

    def inner_pass(self, point: Point) -> InnerPass:
        """Loss and gradient at φ, with the sides recorded."""
        kinks = Kinks()
        with kinks.recorded() if self.hold_kinks else nullcontext():
            loss, gradients = loss_and_gradient(point.inputs, point.parameters, point.batch)
        known = replace(point, loss=loss, gradients=gradients)
        return InnerPass(loss, gradients, lambda direction: self._derivative(known, direction, kinks))

    def mixed_derivative(self, point: Point, direction: Gradients) -> Gradients:
        """See `ProductStrategy.mixed_derivative`; the sides are recorded in one forward pass more."""
        kinks = Kinks()
        if self.hold_kinks:
            with torch.no_grad(), point.replay.again(), kinks.recorded():
                point.inner_loss(point.parameters)
        return self._derivative(point, direction, kinks)

    def _derivative(self, point: Point, direction: Gradients, kinks: Kinks) -> Gradients:
        differences = _Differences(point, self, kinks)
        found: Gradients = [None] * len(differences.learned)
        for part in self._parts(direction):
            found = [sum_of(a, b) for a, b in zip(found, differences.along(part), strict=True)]
        point.diagnostics.update(differences.diagnostics)
        return found

    def _parts(self, direction: Gradients) -> list[Gradients]:
        """The direction w whole, or as the bounded part and (unless dropped) the excess."""
        present = [w for w in direction if w is not None]
        if self.limit is None or not present:
            return [direction] if present else []
        sizes = torch.cat([w.abs().flatten() for w in present])
        sizes = sizes[sizes > 0]
        if sizes.numel() == 0:
            return [direction]
        bound = self.limit * sizes.median()
        if sizes.max() <= bound:
            return [direction]
        bounded = [None if w is None else w.clamp(-bound, bound) for w in direction]
        excess = [difference_of(w, b) for w, b in zip(direction, bounded, strict=True)]
        return [bounded] if self.drop_excess else [bounded, excess]


@dataclass(frozen=True)
class _Pair:
    """What a pass on either side gives: the quotient, its rounding error, both losses and their rounding unit."""

    difference: Gradients
    rounding: float
    losses: tuple[float, float]
    unit: float

    def distance(self, other: "_Pair") -> float:
        return norm_of([difference_of(a, b) for a, b in zip(self.difference, other.difference, strict=True)])


class _Differences:
    """Differences along directions from one point, and what they report together."""

    def __init__(self, point: Point, options: FiniteDifference, kinks: Kinks) -> None:
        self._point = point
        self._options = options
        self._kinks = kinks
        self._start = [p.detach() for p in point.parameters]
        self._size = norm_of(self._start) or 1.0
        self.learned = point.learned
        self.diagnostics = {"rounding": 0.0}
        if options.estimate_error:
            self.diagnostics["error"] = 0.0

    def along(self, direction: Gradients) -> Gradients:
        """(∂g/∂θ)ᵀ direction; zeros for a direction of zeros."""
        length = norm_of(direction)
        if length == 0:
            return [torch.zeros_like(t) for t in self.learned]
        unit = max(torch.finfo(p.dtype).eps for p in self._start)
        step = (self._options.relative_step or 3e-3 * unit ** (1 / 3)) * self._size / length
        pair = self._central(direction, step)
        self._require_replayed(pair, direction, step, length)
        for _ in range(WIDENINGS):
            tolerance = self._options.tolerance
            if tolerance is None or pair.rounding <= tolerance * norm_of(pair.difference):
                break
            wider = self._central(direction, WIDENED * step)
            if not pair.distance(wider) <= pair.rounding / 8:  # also where it is not finite
                break
            pair, step = wider, WIDENED * step
        # w is rounded as well, and h with it, which matters where the step is so large that the differences are exact.
        rounding = pair.rounding + ROUNDING_UNITS * pair.unit * norm_of(pair.difference)
        self.diagnostics.setdefault("step", step)
        self.diagnostics["rounding"] += rounding
        if self._options.estimate_error:
            self.diagnostics["error"] += pair.distance(self._central(direction, 2 * step)) + rounding
        return pair.difference

    def _central(self, direction: Gradients, step: float) -> _Pair:
        above_loss, above = self._evaluate(step, direction)
        below_loss, below = self._evaluate(-step, direction)
        unit = max(torch.finfo(above_loss.dtype).eps, *(torch.finfo(p.dtype).eps for p in self._start))
        found = [difference_of(a, b) for a, b in zip(above, below, strict=True)]
        return _Pair(
            difference=[None if d is None else d / (2 * step) for d in found],
            rounding=ROUNDING_UNITS * unit * (norm_of(above) + norm_of(below)) / (2 * step),
            losses=(above_loss.double().item(), below_loss.double().item()),
            unit=unit,
        )

    def _evaluate(self, shift: float, direction: Gradients) -> tuple[Tensor, Gradients]:
        """Loss and gradient in θ at φ + shift w."""
        point = self._point
        moved = [p if w is None else p.add(w, alpha=shift) for p, w in zip(self._start, direction, strict=True)]
        sides: AbstractContextManager[None] = self._kinks.held() if self._options.hold_kinks else nullcontext()
        with point.replay.again(), sides:
            loss = point.inner_loss(moved)
            return loss.detach(), gradient_of(loss, self.learned)

    def _require_replayed(self, pair: _Pair, w: Gradients, step: float, length: float) -> None:
        """(L(+) - L(-)) / 2 is ε gᵀw but for rounding and third order; other draws would move it by more."""
        gradients = self._point.gradients
        if gradients is None or self._point.loss is None:
            return
        above, below = pair.losses
        pairs = [(g, d) for g, d in zip(gradients, w, strict=True) if g is not None and d is not None]
        slope = torch.stack([(g.detach() * d).sum() for g, d in pairs]).sum().item() if pairs else 0.0
        allowed = 256 * pair.unit * max(abs(above), abs(below)) + step * length * norm_of(gradients)
        if abs((above - below) / 2 - step * slope) > allowed:
            raise irreproducible(self._point.loss.item(), (above + below) / 2, "FiniteDifference")
