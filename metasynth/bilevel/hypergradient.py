"""Hypergradients: the gradient of the outer loss through the update of the inner model.

With g = ∂L_inner/∂φ, φ* = U(φ, g; state) and h = dL_outer(φ*, θ)/dθ (Learn2Synth, Eq. 4),

    v = ∂L_outer/∂φ*                   a plain backward pass on detached weights
    w = (∂U/∂g)ᵀ v                     a vector-Jacobian product of the optimiser's update alone
    h = (∂g/∂θ)ᵀ w + ∂L_outer/∂θ       the mixed second derivative, never formed

A strategy takes the inner step and returns, with φ*, the map v -> h (its *pullback*); the outer pass is the same
for all. So the graph of the outer pass is gone before the second-order part runs. With several processes g (by the
strategy), v and h are averaged over them in between: see `metasynth.bilevel.processes.processes`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from metasynth.bilevel.checks.flawed_operations import Mode
from metasynth.bilevel.checks.reached import reached_by, require_reached
from metasynth.bilevel.derivatives import Gradients, difference_of, gradient_of, sum_of
from metasynth.bilevel.outer_values import OuterValues, tilt_of
from metasynth.bilevel.patched.functional import Buffers
from metasynth.bilevel.patched.replay import Replay
from metasynth.bilevel.step_inputs import StepInputs

Pullback = Callable[[Sequence[Tensor | None]], Gradients]
ByValues = Callable[[OuterValues, Gradients], Gradients]


@dataclass(frozen=True)
class InnerStep:
    """An inner step that was taken but not committed, and its derivative.

    Attributes
    ----------
    parameters : list of tensor
        φ*, detached, one per ``model.parameters()``.
    buffers : dict
        The model's buffers after the inner passes (before any outer pass).
    optimizer : higher.optim.DifferentiableOptimizer
        Holds the optimiser's state after the step.
    losses : tuple of tensor
        The inner losses, detached, one per unrolled step.
    pullback : callable
        Maps `v = ∂L/∂φ*` (one entry per parameter, None for zero) to `(dφ*/dθ)ᵀ v`, one entry per learned outer
        parameter (None where `φ*` does not depend on it). May be called once.
    diagnostics : dict
        What the strategy reports of its own accuracy (see there), filled by the pullback and by ``by_values``; empty
        for exact ones.
    judged : list of tensor or None
        Where the outer loss is taken if not at φ*, such as a mean of iterates; ``pullback`` is then of these.
    by_values : callable or None
        Maps the hypergradient that derivatives gave, one entry per learned outer parameter, to the whole one, where
        values of the outer loss after other steps take part in it. Called once, after the pullback.
    """

    parameters: list[Tensor]
    buffers: Buffers
    optimizer: Any
    losses: tuple[Tensor, ...]
    pullback: Pullback
    diagnostics: dict[str, float] = field(default_factory=dict)
    judged: list[Tensor] | None = None
    by_values: ByValues | None = None


class HypergradientStrategy(ABC):
    """How the inner step is taken and differentiated with respect to the outer parameters."""

    @property
    @abstractmethod
    def inner_steps(self) -> int:
        """How many inner batches one hypergradient consumes (K)."""

    @property
    def mean_of(self) -> int:
        """At the mean of how many of the last iterates the outer loss is taken (n); 1: at the last."""
        return 1

    def differentiated(self, names: Sequence[str]) -> list[str]:
        """Which of these outer parameters are served by derivatives; the others are by values of losses alone."""
        return list(names)

    @property
    def takes_scores(self) -> bool:
        """Whether parameters of distributions are served from which a loss draws (`metasynth.bilevel.draws`)."""
        return False

    @property
    def needs_double_backward(self) -> bool:
        """Whether operations of the inner loss are differentiated twice in reverse mode."""
        return self.mode == "double backward"

    @property
    def mode(self) -> Mode:
        """How second derivatives of the inner loss are taken."""
        return "double backward"

    @property
    def needs_hessian(self) -> bool:
        """Whether ∂g/∂φ is taken besides ∂g/∂θ, as by all that follow φ through several steps or to an optimum."""
        return True

    @abstractmethod
    def inner_step(self, inputs: StepInputs) -> InnerStep:
        """Take ``inner_steps`` inner steps, a batch of the inputs each, without committing them."""

    def check(self, inputs: StepInputs) -> None:
        """Raise ValueError, in one line, where the strategy does not fit the problem; made once, by `preflight`.

        ``inputs`` has a single batch, whatever ``inner_steps``. Its model is left with changed buffers; random states
        are the caller's to restore.
        """
        return None


@dataclass(frozen=True)
class Hypergradient:
    """A hypergradient and the losses met on the way.

    Attributes
    ----------
    gradients : dict of str to (tensor or None)
        dL_outer/dθ for each learned outer parameter, by name; None where there is no dependence.
    inner_losses : tuple of tensor
        One per inner step, at the parameters before each.
    outer_loss : tensor
        At φ*.
    reference_loss : tensor or None
        The inner loss at φ* on the reference batch, if one was given.
    diagnostics : dict of str to float
        What the strategy reports of its own accuracy, such as an estimated error or whether a solver converged.
    """

    gradients: dict[str, Tensor | None]
    inner_losses: tuple[Tensor, ...]
    outer_loss: Tensor
    reference_loss: Tensor | None
    diagnostics: dict[str, float] = field(default_factory=dict)


def check_batches(strategy: HypergradientStrategy, batches: Sequence[Any]) -> None:
    """Raise ValueError unless there are as many inner batches as the strategy takes steps."""
    if len(batches) != strategy.inner_steps:
        raise ValueError(f"inner_batches must hold {strategy.inner_steps} batches for {strategy}, got {len(batches)}")


def hypergradient(
    inputs: StepInputs,
    outer_batch: Any,
    strategy: HypergradientStrategy,
    reference_batch: Any = None,
    combine: Callable[[Gradients], Gradients] | None = None,
) -> tuple[Hypergradient, InnerStep]:
    """Take the strategy's inner steps (uncommitted) from ``inputs`` and differentiate the outer loss through them.

    With a ``reference_batch`` (a fresh inner batch, independent of those of the step), v is corrected to
    `v = ∂L_outer/∂φ* - ∂L_inner(φ*, θ; reference)/∂φ*` with θ held fixed. While the inner model is still learning, both
    losses share the pull towards "more training"; their difference is what separates the two domains, so the
    corrected hypergradient vanishes in the mean where the domains agree, converged or not. At an inner optimum the
    second term has mean zero and both forms coincide.

    With several processes (`InnerUpdate.processes`) each gives its own part of every batch, and v, the gradients,
    losses, diagnostics and changes of buffers that come back are means over all of them.

    Parameters
    ----------
    inputs : StepInputs
        What the inner steps are taken from, with as many batches as the strategy takes steps.
    outer_batch : any
        Handed to the outer loss.
    strategy : HypergradientStrategy
        How the steps are taken and differentiated.
    reference_batch : any, optional
        Handed to the inner loss for the correction above; None: no correction.
    combine : callable, optional
        Maps the (corrected) v to what is pulled back in its place, such as a running mean over calls.

    Returns
    -------
    tuple of Hypergradient and InnerStep
        The hypergradient, and the steps, which `FunctionalModel.commit` and `InnerUpdate.commit` can make the model's.

    Raises
    ------
    ValueError
        If the number of inner batches is not the strategy's, or a loss depends on no learned parameter, or the
        hypergradient on no outer parameter.
    """
    check_batches(strategy, inputs.batches)
    model, learned = inputs.model, inputs.learned
    processes = inputs.update.processes
    step = strategy.inner_step(inputs)
    before = dict(model.model.named_buffers(remove_duplicate=False))
    step = replace(step, buffers=processes.mean_of_changes(before, step.buffers))

    leaves = [
        p.detach().requires_grad_(own.requires_grad)
        for p, own in zip(step.judged or step.parameters, model.model.parameters(), strict=True)
    ]
    model.load_buffers(step.buffers)
    replays = [Replay(model, inputs.outer, leaves)] if step.by_values else []
    outer_loss = inputs.problem.outer_value(model.bind(leaves), inputs.outer, outer_batch)
    joint = gradient_of(outer_loss, [*leaves, *learned.values()])
    cotangents, direct = joint[: len(leaves)], joint[len(leaves) :]

    losses = [*step.losses, outer_loss.detach()]
    reached = {"outer_loss": reached_by(outer_loss, joint)}
    if reference_batch is not None:
        model.load_buffers(step.buffers)
        replays += [Replay(model, inputs.outer, leaves)] if step.by_values else []
        reference = inputs.inner_loss(leaves, reference_batch)
        correction = gradient_of(reference, leaves)
        reached["inner_loss of the reference batch"] = reached_by(reference, correction)
        cotangents = [difference_of(v, r) for v, r in zip(cotangents, correction, strict=True)]
        losses.append(reference.detach())
    model.release()
    cotangents, values = processes.means(cotangents, [*losses, *reached.values()])
    require_reached(dict(zip(reached, values[len(losses) :], strict=True)))
    losses = values[: len(losses)]
    inner_losses, (outer_loss, *reference_losses) = tuple(losses[: len(step.losses)]), losses[len(step.losses) :]
    combined = cotangents if combine is None else combine(cotangents)

    through_inner = step.pullback(combined)
    total = [sum_of(a, b) for a, b in zip(through_inner, direct, strict=True)]
    if step.by_values is not None:
        tilt = tilt_of(combined, cotangents)
        total = step.by_values(OuterValues(inputs, outer_batch, reference_batch, replays, leaves, tilt), total)
    numbers = torch.tensor(list(step.diagnostics.values()), dtype=torch.float64, device=processes.device)
    total, (numbers,) = processes.means(total, [numbers])
    if all(g is None for g in total):
        raise ValueError(
            "no outer parameter has a hypergradient: neither the gradient of inner_loss nor outer_loss depends on one; "
            "it may be detached, or used under torch.no_grad"
        )
    result = Hypergradient(
        gradients=dict(zip(learned, total, strict=True)),
        inner_losses=inner_losses,
        outer_loss=outer_loss,
        reference_loss=reference_losses[0] if reference_losses else None,
        diagnostics=dict(zip(step.diagnostics, numbers.tolist(), strict=True)),
    )
    return result, step
