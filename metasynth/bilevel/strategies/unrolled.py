"""Reverse mode through the last T of K differentiable updates of a `higher` monkeypatched model."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from metasynth.bilevel.derivatives import Gradients, gradient_of, pull
from metasynth.bilevel.hypergradient import HypergradientStrategy, InnerStep
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.segments import Segments
from metasynth.bilevel.update.updates import undifferentiated_steps


@dataclass(frozen=True)
class Unrolled(HypergradientStrategy):
    """K inner steps, of which the last T are differentiated in reverse from the last to the first.

    With T = K general and exact: the parameters and the optimiser's moments are followed through every step. Memory
    grows with T, as the graphs of T steps are kept until the pullback.

    With T < K the parameters and moments before the last T steps are taken for constants (truncated
    back-propagation: Shaban et al. 2019). What is left out falls geometrically with T where the
    inner problem is strongly convex; elsewhere it is a bias towards the short term. A step that is not differentiated
    costs a plain training step.

    With ``remat`` the T steps are taken twice: once as ordinary steps, and again, about √T at a time and with their
    graph, from the last to the first (`metasynth.bilevel.strategies.segments`). The hypergradient is the same; memory
    is that of the graphs of about √T steps and as many copies of weights and moments, for one more plain step a step.

    For a single process: the graph of a step would have to pass through the averaging of g over processes.

    Parameters
    ----------
    steps : int
        K >= 1.
    last : int or None
        T in 1..K; None: all.
    remat : bool
        Recompute ("rematerialise") the graphs of steps in the pullback instead of keeping them.
    """

    steps: int = 1
    last: int | None = None
    remat: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps must be an integer of at least 1, got {self.steps!r}")
        if self.last is not None and not (isinstance(self.last, int) and 1 <= self.last <= self.steps):
            raise ValueError(f"last must be an integer from 1 to steps={self.steps} or None, got {self.last!r}")

    @property
    def inner_steps(self) -> int:
        """K."""
        return self.steps

    @property
    def needs_hessian(self) -> bool:
        """Only if more than one step is differentiated."""
        return (self.steps if self.last is None else self.last) > 1

    def inner_step(self, inputs: StepInputs) -> InnerStep:
        """See `HypergradientStrategy.inner_step`; ValueError with more than one process."""
        model, update = inputs.model, inputs.update
        if update.processes.count > 1:
            raise ValueError(
                f"Unrolled cannot be used with {update.processes.count} processes, as it would differentiate through "
                "what they exchange; use Mixed (the same as Unrolled(1)), Forward, FiniteDifference, Implicit or one "
                "process"
            )
        twin = update.start(list(model.model.parameters()))
        skipped = 0 if self.last is None else self.steps - self.last
        parameters, losses = undifferentiated_steps(inputs, twin, model.refresh(), inputs.batches[:skipped])
        if self.remat:
            segments = Segments(inputs, twin, parameters, inputs.batches[skipped:])
            return InnerStep(
                parameters=[p.detach() for p in segments.parameters],
                buffers=model.buffers(),
                optimizer=twin,
                losses=(*losses, *segments.losses),
                pullback=segments.pullback,
            )
        for batch in inputs.batches[skipped:]:
            loss = inputs.inner_loss(parameters, batch)
            gradients = gradient_of(loss, parameters, create_graph=True)
            parameters = update.apply(twin, parameters, gradients, inputs.outer)
            losses.append(loss.detach())
        learned = list(inputs.learned.values())

        def pullback(cotangents: Sequence[Tensor | None]) -> Gradients:
            return pull(parameters, cotangents, learned)

        return InnerStep(
            parameters=[p.detach() for p in parameters],
            buffers=model.buffers(),
            optimizer=twin,
            losses=tuple(losses),
            pullback=pullback,
        )
