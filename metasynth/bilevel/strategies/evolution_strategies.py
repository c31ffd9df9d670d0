"""Hypergradients from values of the outer loss at outer parameters on either side."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from metasynth.bilevel.checks.flawed_operations import Mode
from metasynth.bilevel.derivatives import Gradients
from metasynth.bilevel.hypergradient import HypergradientStrategy, InnerStep
from metasynth.bilevel.outer_values import OuterValues
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.strategies.trials import (
    MeanOfEstimates,
    Trials,
    WithTrials,
    note_error,
    own_stream,
    plain_step,
    require_replayed,
)


@dataclass(frozen=True)
class EvolutionStrategies(WithTrials):
    """Antithetic evolution strategies for outer parameters that nothing differentiates through; others as ever.

    With F(θ) the outer loss after the inner steps that are taken with θ,

        h = 1/n Σ_k ε_k [F(θ + σ ε_k) - F(θ - σ ε_k)] / 2σ,      ε_k ~ N(0, I),  k = 1..n

    (Rechenberg 1973; Salimans et al. 2017). It needs no derivative in θ, and is an unbiased estimate of the derivative
    of E F(θ + σ ε): of F smoothed over σ, which exists where F is a staircase. All steps and outer passes of a call
    have the same random draws and batches (common random numbers), so that what differs is θ.

    Over many steps, with ``strategy=Unrolled(K, mean_of=n)``, it is what a hypergradient by derivatives is to be
    compared with: it follows the whole effect of θ, at the price of noise.

    Reported as a diagnostic: ``standard_error`` of h, in the Euclidean norm over the parameters served so, from the
    spread of the n terms. It is the error that comes from the choice of ε; batches are as they are. For d parameters it
    is at least about |h| √(d / n), whatever F.

    Costs 2 n times the K inner steps and outer passes of a call; memory is that of a plain step. For a single process.

    Parameters
    ----------
    pairs : int
        n >= 2.
    sigma : float
        σ > 0, in units of the outer parameters: as wide as the stairs of F are, or narrow against where F curves.
    names : tuple of str or None
        The outer parameters that are served so, by name (`metasynth.bilevel.problem.named_outer_parameters`) or, for
        all those of a module within ``outer``, by its name; None: all.
    strategy : HypergradientStrategy
        Serves the others. It says how many inner steps there are, and where the outer loss is taken; if it serves no
        parameter, nothing else of it is used.

    Raises
    ------
    ValueError
        From a step, if ``names`` has a name that no learned outer parameter has; from `check`, if the inner loss draws
        random numbers that cannot be replayed.
    """

    pairs: int = 8
    sigma: float = 0.1
    names: tuple[str, ...] | None = None
    strategy: HypergradientStrategy = field(default_factory=Mixed)

    def __post_init__(self) -> None:
        if not isinstance(self.pairs, int) or self.pairs < 2:
            raise ValueError(f"pairs must be an integer of at least 2, got {self.pairs!r}")
        if not (self.sigma > 0 and math.isfinite(self.sigma)):
            raise ValueError(f"sigma must be a finite number above 0, got {self.sigma!r}")
        if self.names is not None and (isinstance(self.names, str) or not self.names):
            raise ValueError(f"names must be a tuple of at least one name, or None for all, got {self.names!r}")

    @property
    def mode(self) -> Mode:
        """As of the other strategy, if it serves any parameter."""
        return "differences" if self.names is None else self.strategy.mode

    @property
    def needs_hessian(self) -> bool:
        """As of the other strategy, if it serves any parameter."""
        return self.names is not None and self.strategy.needs_hessian

    @property
    def takes_scores(self) -> bool:
        """Whether the other strategy does."""
        return self.names is not None and self.strategy.takes_scores

    def differentiated(self, names: Sequence[str]) -> list[str]:
        """Those that are served by the other strategy, and by derivatives there."""
        served = self._served(names)
        return [name for name in self.strategy.differentiated(names) if name not in served]

    def check(self, inputs: StepInputs) -> None:
        """Refuse an unknown name, and an inner loss that does not repeat itself."""
        self._served(list(inputs.learned))
        require_replayed(inputs, "EvolutionStrategies")
        if self.names is not None:
            self.strategy.check(inputs)

    def inner_step(self, inputs: StepInputs) -> InnerStep:
        """See `HypergradientStrategy.inner_step`."""
        learned = inputs.learned
        served = self._served(list(learned))
        trials = Trials(inputs, self.mean_of, "EvolutionStrategies")
        step = plain_step(inputs, self.mean_of) if self.names is None else self.strategy.inner_step(inputs)

        def by_values(value: OuterValues, found: Gradients) -> Gradients:
            if step.by_values is not None:
                found = step.by_values(value, found)
            estimates = self._estimates(trials, value, [learned[name] for name in served])
            note_error(step, estimates)
            by_name = dict(zip(served, estimates.mean, strict=True))
            return [by_name.get(name, other) for name, other in zip(learned, found, strict=True)]

        return replace(step, by_values=by_values)

    def _served(self, learned: Sequence[str]) -> list[str]:
        if self.names is None:
            return list(learned)
        found = {name: [n for n in learned if n == name or n.startswith(f"{name}.")] for name in self.names}
        for name, its in found.items():
            if not its:
                raise ValueError(
                    f"names of EvolutionStrategies must be of learned outer parameters ({', '.join(learned)}), "
                    f"got {name!r}"
                )
        return [name for name in learned if any(name in its for its in found.values())]

    def _estimates(self, trials: Trials, value: OuterValues, tensors: Sequence[Tensor]) -> MeanOfEstimates:
        estimates = MeanOfEstimates(tensors)
        generator = own_stream()
        for _ in range(self.pairs):
            directions = directions_of(tensors, generator)
            above, below = (self._value(trials, value, tensors, directions, side) for side in (1, -1))
            slope = ((above - below) / (2 * self.sigma)).item()
            estimates.add([slope * direction for direction in directions])
        return estimates

    def _value(
        self, trials: Trials, value: OuterValues, tensors: Sequence[Tensor], directions: Sequence[Tensor], side: int
    ) -> Tensor:
        """F(θ ± σ ε)."""
        with _moved(tensors, directions, side * self.sigma):
            parameters, buffers = trials.take()
        return value(parameters, buffers, lambda: _moved(tensors, directions, side * self.sigma))


def directions_of(tensors: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Standard normal tensors like these, from a generator on the CPU."""
    return [torch.randn(t.shape, dtype=t.dtype, generator=generator).to(t.device) for t in tensors]


@contextmanager
def _moved(tensors: Sequence[Tensor], directions: Sequence[Tensor], by: float) -> Iterator[None]:
    """A context in which the tensors are others, in place, whoever holds them."""
    before = [t.detach().clone() for t in tensors]
    try:
        for tensor, direction in zip(tensors, directions, strict=True):
            tensor.data.add_(direction, alpha=by)
        yield
    finally:
        for tensor, value in zip(tensors, before, strict=True):
            tensor.data.copy_(value)
