"""The mixed second derivative by central differences, without a second derivative being taken."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metasynth.bilevel.derivatives import Gradients, difference_of, gradient_of, norm_of, sum_of
from metasynth.bilevel.functional import FunctionalModel
from metasynth.bilevel.hypergradient import HypergradientStrategy, InnerStep
from metasynth.bilevel.kinks import Kinks
from metasynth.bilevel.problem import BilevelProblem, Outer, named_outer_parameters, scalar_loss
from metasynth.bilevel.replay import Replay, irreproducible
from metasynth.bilevel.updates import update_of

ROUNDING_UNITS = 32
"""How many units of rounding a gradient in θ is taken to be off; for trained U-Nets in float32 it was 8 in the mean
square and at most 17."""


@dataclass(frozen=True)
class FiniteDifference(HypergradientStrategy):
    """One inner step; the mixed derivative as a difference of gradients in θ.

    With w = (∂U/∂g)ᵀ v and L_inner evaluated with the same random draws, buffers and (see ``hold_kinks``) sides,

        h ≈ [∂L_inner/∂θ(φ + ε w) - ∂L_inner/∂θ(φ - ε w)] / 2ε,      ε = relative_step |φ| / |w|.

    Every derivative is a first one in θ alone: any operation and kernel with a backward pass will do, and peak memory
    is that of plain training but for the sides held. Costs, in passes of all convolutions: 3 for g, then 4 (8 with
    ``estimate_error``; twice that where ``limit`` sets entries apart).

    The error is about T ε² + R/ε: truncation, and rounding of gradients that nearly cancel. R is in proportion to the
    rounding unit u, so the best ε is in proportion to u^(1/3) and the error then to u^(2/3).

    Reported as diagnostics: ``step`` (ε), ``rounding`` = 32 u |∂L_inner/∂θ| / ε, and with ``estimate_error`` also
    ``error`` = |h(2ε) - h(ε)| + ``rounding``, from a second pair of passes. The first term is about three times the
    truncation error. It bounds the Euclidean norm of h's error, unless ε is so large that higher orders dominate or
    ∂L_inner/∂θ is itself almost zero by cancellation. Where h is small because its terms cancel, its relative error is
    large.

    Parameters
    ----------
    relative_step : float or None
        |ε w| / |φ|. None: 2e-3 u^(1/3), that is 1e-5 in float32 and 1.2e-8 in float64. The factor was found on trained
        U-Nets under Adam, whose w lies along strongly curved directions.
    estimate_error : bool
        Make the second pair of passes.
    hold_kinks : bool
        Hold ReLUs and max-pools on the side they are on at φ (see `metasynth.bilevel.kinks`). Without it the
        difference of a trained U-Net is typically 1 to 50 % off whatever the step and precision, as units change side
        between the two passes.
    limit : float or None
        Entries of w beyond ``limit`` times the median of the |w| that are not zero are set apart. A second moment of
        Adam near zero gives such entries (up to lr / eps times v); as ε is in proportion to 1 / |w| they
        raise the rounding error of all others. None: all entries are treated alike.
    drop_excess : bool
        What becomes of w's excess over the limit. False: it has a difference, and a step, of its own, and the
        result stays exact up to the errors above. True: it is left out, as if the preconditioner were bounded; h
        then lacks (∂g/∂θ)ᵀ excess, which is small where ∂g/∂θ is nearly zero, as for units that are nearly dead; in
        general it is a bias.

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

    def __post_init__(self) -> None:
        if self.relative_step is not None and not self.relative_step > 0:
            raise ValueError(f"relative_step must be above 0 or None, got {self.relative_step!r}")
        if self.limit is not None and not self.limit >= 1:
            raise ValueError(f"limit must be at least 1 (times the median) or None, got {self.limit!r}")

    @property
    def inner_steps(self) -> int:
        """Always one."""
        return 1

    def inner_step(
        self,
        problem: BilevelProblem,
        model: FunctionalModel,
        optimizer: torch.optim.Optimizer,
        outer: Outer,
        batches: Sequence[Any],
    ) -> InnerStep:
        """See `HypergradientStrategy.inner_step`."""
        parameters = model.refresh()
        replay, kinks = Replay(model, outer, parameters), Kinks()
        with kinks.recorded() if self.hold_kinks else nullcontext():
            loss = scalar_loss(problem.inner_loss, "inner_loss", model.bind(parameters), outer, batches[0])
        update = update_of(optimizer, model, parameters, gradient_of(loss, parameters))
        learned = list(named_outer_parameters(outer).values())
        start = [p.detach() for p in parameters]
        diagnostics: dict[str, float] = {}

        def evaluate(shift: float, direction: Gradients) -> tuple[float, Gradients]:
            moved = [p if w is None else p.add(w, alpha=shift) for p, w in zip(start, direction, strict=True)]
            held: AbstractContextManager[None] = kinks.held() if self.hold_kinks else nullcontext()
            with replay.again(), held:
                there = scalar_loss(problem.inner_loss, "inner_loss", model.bind(moved), outer, batches[0])
                return there.detach().double().item(), gradient_of(there, learned)

        def pullback(cotangents: Sequence[Tensor | None]) -> Gradients:
            differences = _Differences(evaluate, loss.detach(), update.gradients, start, learned, self)
            found: Gradients = [None] * len(learned)
            for part in self._parts(update.pull(cotangents)):
                found = [sum_of(a, b) for a, b in zip(found, differences.along(part), strict=True)]
            model.release()
            diagnostics.update(differences.diagnostics)
            return found

        return InnerStep(
            parameters=[p.detach() for p in update.parameters],
            buffers=model.buffers(),
            optimizer=update.optimizer,
            losses=(loss.detach(),),
            pullback=pullback,
            diagnostics=diagnostics,
        )

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


class _Differences:
    """Differences along directions from one point, and what they report together."""

    def __init__(
        self,
        evaluate: Callable[[float, Gradients], tuple[float, Gradients]],
        first: Tensor,
        gradients: Sequence[Tensor | None],
        start: Sequence[Tensor],
        learned: Sequence[Tensor],
        options: FiniteDifference,
    ) -> None:
        self._evaluate = evaluate
        self._loss = first.double().item()
        self._unit = max(torch.finfo(first.dtype).eps, *(torch.finfo(p.dtype).eps for p in start))
        self._gradients = gradients
        self._learned = learned
        self._slope_bound = norm_of(gradients)
        self._size = norm_of(start) or 1.0
        self._relative = options.relative_step or 2e-3 * self._unit ** (1 / 3)
        self._estimate = options.estimate_error
        self.diagnostics = {"rounding": 0.0}
        if self._estimate:
            self.diagnostics["error"] = 0.0

    def along(self, direction: Gradients) -> Gradients:
        """(∂g/∂θ)ᵀ direction; zeros for a direction of zeros."""
        length = norm_of(direction)
        if length == 0:
            return [torch.zeros_like(t) for t in self._learned]
        step = self._relative * self._size / length
        found, rounding = self._central(direction, step, length)
        self.diagnostics.setdefault("step", step)
        self.diagnostics["rounding"] += rounding
        if self._estimate:
            wider, _ = self._central(direction, 2 * step, length)
            change = norm_of([difference_of(a, b) for a, b in zip(wider, found, strict=True)])
            self.diagnostics["error"] += change + rounding
        return found

    def _central(self, direction: Gradients, step: float, length: float) -> tuple[Gradients, float]:
        above_loss, above = self._evaluate(step, direction)
        below_loss, below = self._evaluate(-step, direction)
        self._require_replayed(above_loss, below_loss, direction, step, length)
        found = [difference_of(a, b) for a, b in zip(above, below, strict=True)]
        rounding = ROUNDING_UNITS * self._unit * (norm_of(above) + norm_of(below)) / (2 * step)
        return [None if d is None else d / (2 * step) for d in found], rounding

    def _require_replayed(self, above: float, below: float, w: Gradients, step: float, length: float) -> None:
        """(L(+) - L(-)) / 2 is ε gᵀw but for rounding and third order; other draws would move it by more."""
        pairs = [(g, d) for g, d in zip(self._gradients, w, strict=True) if g is not None and d is not None]
        slope = torch.stack([(g.detach() * d).sum() for g, d in pairs]).sum().item()
        allowed = 256 * self._unit * max(abs(above), abs(below)) + step * length * self._slope_bound
        if abs((above - below) / 2 - step * slope) > allowed:
            raise irreproducible(self._loss, (above + below) / 2, "FiniteDifference")
