"""What a call of the solver reports, and the error it stops with."""

from dataclasses import dataclass, field


class NonFiniteError(ArithmeticError):
    """A loss or a hypergradient is NaN or infinite; nothing was committed.

    Attributes
    ----------
    step : int
        The inner step (counted from 1 over the solver's life) that could not be taken: for an inner loss the one at
        which it was met; for what comes after the inner steps of a call, the last of them.
    term : str
        What is not finite.
    """

    def __init__(self, step: int, term: str, value: float) -> None:
        super().__init__(f"{term} is {value} at step {step}")
        self.step = step
        self.term = term


@dataclass(frozen=True)
class StepReport:
    """What one call of the solver did. Losses are floats; those that were not evaluated are None.

    Attributes
    ----------
    inner_steps : int
        Inner steps committed so far, over the solver's life.
    outer_steps : int
        Outer steps taken so far.
    inner_losses : tuple of float
        One an inner step of the call, in order, at the parameters before it.
    outer_loss, reference_loss : float or None
        At φ*; see `metasynth.bilevel.hypergradient.Hypergradient`.
    hypergradient_norm : float or None
        Euclidean norm over all outer parameters, before any clipping.
    outer_stepped : bool
        Whether this call moved the outer parameters.
    diagnostics : dict of str to float
        What the strategy says of its own accuracy (step, error, residual, ...); empty for the exact ones.
    """

    inner_steps: int
    outer_steps: int
    inner_losses: tuple[float, ...]
    outer_loss: float | None = None
    reference_loss: float | None = None
    hypergradient_norm: float | None = None
    outer_stepped: bool = False
    diagnostics: dict[str, float] = field(default_factory=dict)

    @property
    def inner_loss(self) -> float:
        """Loss of the last inner step."""
        return self.inner_losses[-1]
