"""Hypergradients for parameters of distributions that losses draw from."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from metasynth.bilevel.derivatives import Gradients, gradient_of, sum_of
from metasynth.bilevel.draws import Draws
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
    require_replayed,
)

Baseline = Literal["others", "none"]
"""What is taken from each value of the outer loss: the mean of the other samples' values, or nothing."""


@dataclass(frozen=True)
class ScoreFunction(WithTrials):
    """The score function for what losses draw by `metasynth.bilevel.draws.draw`, besides another strategy's derivative.

    With z ~ p(z; θ) all that the losses of a call draw, and F(z, θ) the outer loss after the inner steps with z,

        h = 1/n Σ_i (F(z_i, θ) - b_i) ∂ log p(z_i; θ)/∂θ  +  ∂F(z, θ)/∂θ,      i = 1..n

    is an unbiased estimate of the derivative of E_z F(z, θ) (Williams 1992; Schulman et al. 2015). The second term is
    the hypergradient of ``strategy``, for the z of the step that the model goes on from. So every outer parameter is
    served: one that only sets a distribution by the first term, one that enters a loss by the second, one that does
    both by their sum.

    The samples have batches and all other random draws in common. Their values still share far more than z changes; a
    baseline b_i that does not depend on z_i takes that away: with ``others`` the mean of F over the other samples (Kool
    et al. 2019).

    Reported as a diagnostic: ``standard_error`` of the first term, in the Euclidean norm over all outer parameters,
    by the jackknife; on the safe side for few samples. It is the error that comes from the choice of z; batches are as
    they are.

    Costs n times the K inner steps and outer passes of a call, besides those of ``strategy``; for a loss that draws
    nothing, 1. For a single process.

    Parameters
    ----------
    samples : int
        n >= 3.
    baseline : {'others', 'none'}
        See above.
    strategy : HypergradientStrategy
        Takes the steps and gives the second term.

    Raises
    ------
    ValueError
        From `check`, if the inner loss draws random numbers that cannot be replayed.
    """

    samples: int = 8
    baseline: Baseline = "others"
    strategy: HypergradientStrategy = field(default_factory=Mixed)

    def __post_init__(self) -> None:
        if not isinstance(self.samples, int) or self.samples < 3:
            raise ValueError(f"samples must be an integer of at least 3, got {self.samples!r}")
        if self.baseline not in get_args(Baseline):
            raise ValueError(f"baseline must be one of {', '.join(get_args(Baseline))}, got {self.baseline!r}")

    @property
    def takes_scores(self) -> bool:
        """That is what it is for."""
        return True

    def differentiated(self, names: Sequence[str]) -> list[str]:
        """As of the other strategy."""
        return self.strategy.differentiated(names)

    def check(self, inputs: StepInputs) -> None:
        """Refuse an inner loss that does not repeat itself, and what the other strategy refuses."""
        require_replayed(inputs, "ScoreFunction")
        self.strategy.check(inputs)

    def inner_step(self, inputs: StepInputs) -> InnerStep:
        """See `HypergradientStrategy.inner_step`."""
        learned = inputs.learned
        served = self.differentiated(list(learned))
        trials = Trials(inputs, self.mean_of, "ScoreFunction")
        step = self.strategy.inner_step(inputs)

        def by_values(value: OuterValues, found: Gradients) -> Gradients:
            if step.by_values is not None:
                found = step.by_values(value, found)
            samples = self._samples(trials, value, [learned[name] for name in served])
            if samples is None:
                return found
            estimates, is_scored = samples
            note_error(step, estimates)
            pairs = zip(served, estimates.mean, is_scored, strict=True)
            by_name = {name: mean for name, mean, scored in pairs if scored}
            return [sum_of(other, by_name.get(name)) for name, other in zip(learned, found, strict=True)]

        return replace(step, by_values=by_values)

    def _samples(
        self, trials: Trials, value: OuterValues, tensors: Sequence[Tensor]
    ) -> tuple[MeanOfEstimates, list[bool]] | None:
        """The first term, and which tensors it is for; None where nothing is drawn whose distribution they set."""
        values, scores = [], list[Gradients]()
        generator = own_stream()
        for _ in range(self.samples):
            draws = Draws(key=int(torch.randint(2**31, (), generator=generator)))
            with draws.made():
                parameters, buffers = trials.take(draws.noting)
                values.append(value(parameters, buffers, draws.noted))
                if draws.log_probability is None:
                    return None
                scores.append(gradient_of(draws.log_probability, tensors))
        is_scored = [any(s is not None for s in column) for column in zip(*scores, strict=True)]
        if not any(is_scored):
            return None
        columns = [
            self._terms(values, [torch.zeros_like(tensor) if s is None else s for s in column])
            for tensor, column in zip(tensors, zip(*scores, strict=True), strict=True)
        ]
        estimates = MeanOfEstimates(tensors)
        for terms in zip(*columns, strict=True):
            estimates.add(terms)
        return estimates, is_scored

    def _terms(self, values: Sequence[Tensor], scores: Sequence[Tensor]) -> Tensor:
        """Terms (n, *shape) whose mean is the first term of h, and whose spread tells its standard error.

        With a baseline the summands themselves depend on each other. Then these are the jackknife's pseudo-values
        n h - (n - 1) h_i, where h_i is without sample i; their mean is h, and the error told is not too small in the
        mean (Efron & Stein 1981).
        """
        n, score = len(scores), torch.stack(list(scores))
        value = torch.stack(list(values)).to(score).view(n, *[1] * (score.dim() - 1))
        if self.baseline == "none":
            return value * score
        products = (value - value.mean(0)) * (score - score.mean(0))
        return (n * products - products.sum(0) / (n - 1)) / (n - 2)
