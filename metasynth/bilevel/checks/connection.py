"""Whether outer parameters reach the outer loss through the inner step, and why not."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from metasynth.bilevel.checks.graph_ends import meeting_points, why_disconnected
from metasynth.bilevel.checks.second_derivative import refusal, refuse_once_differentiable
from metasynth.bilevel.derivatives import Gradients, gradient_of
from metasynth.bilevel.draws import Draws
from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.patched.buffers import copies_of, plain_pass, restore
from metasynth.bilevel.patched.replay import Replay
from metasynth.bilevel.processes.processes import Processes
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.update.hyperparameters import tensors_of
from metasynth.bilevel.update.updates import update_of


class Case:
    """A step's inputs, of a single batch, and an outer batch, evaluated any number of times from the same start.

    Of the learned outer parameters it knows those that the strategy serves by derivatives.
    """

    def __init__(self, inputs: StepInputs, outer_batch: Any, strategy: HypergradientStrategy | None = None) -> None:
        self.inputs, self.outer_batch = inputs, outer_batch
        self.model = inputs.model.model
        self.parameters = inputs.model.refresh()
        self.learned = inputs.learned
        self.takes_scores = strategy is not None and strategy.takes_scores
        if strategy is not None:
            self.learned = {name: self.learned[name] for name in strategy.differentiated(list(self.learned))}
        self.replay = Replay(inputs.model, inputs.outer, self.parameters)
        held = {id(p) for group in inputs.update.optimizer.param_groups for p in group["params"]}
        self.names = [name for name, _ in self.model.named_parameters()]
        self.is_held = [id(p) in held for p in self.model.parameters()]

    def inner_loss(self, parameters: list[Tensor] | None = None) -> Tensor:
        """The inner loss of the patched model, at its own parameters unless others are given."""
        with self.replay.again():
            return self.inputs.inner_loss(parameters or self.parameters, self.inputs.batches[0])

    def outer_loss(self) -> Tensor:
        """The outer loss of the patched model at the same parameters."""
        inputs = self.inputs
        with self.replay.again():
            return inputs.problem.outer_value(inputs.model.bind(self.parameters), inputs.outer, self.outer_batch)

    def original(self) -> tuple[Tensor, Gradients]:
        """Loss and gradient of the model itself, whose buffers are put back."""
        inputs, model = self.inputs, self.model
        before = copies_of(model)
        try:
            with self.replay.again(), plain_pass(model, inputs.model.policy):
                loss = inputs.problem.inner_value(model, inputs.outer, inputs.batches[0])
                return loss.detach(), gradient_of(loss, list(model.parameters()))
        finally:
            restore(model, before)


def require_connection(
    case: Case, loss: Tensor, gradients: Gradients, needs_double_backward: bool, needs_hessian: bool
) -> None:
    """Raise ValueError, in one line, if the model is not trained or an outer parameter has no hypergradient.

    Parameters
    ----------
    case : Case
        What is checked.
    loss : tensor
        The inner loss at ``case.parameters``, with its graph if double backward is needed.
    gradients : list of (tensor or None)
        Its gradient there, likewise.
    needs_double_backward : bool
        False: only first derivatives are taken.
    needs_hessian : bool
        Whether the gradient is differentiated in the model's parameters too.
    """
    learned = list(case.learned.values())
    _require_training(case, gradients)
    if needs_double_backward:
        further = case.parameters if needs_hessian else []
        through_inner = _through_gradient(loss, [g for g in gradients if g is not None], learned, further)
    else:
        through_inner = _through_loss(case, gradients, learned)
    moves = _moves_with(case, gradients)
    if not moves:
        through_inner = [None] * len(learned)
    joint = gradient_of(case.outer_loss(), [*case.parameters, *learned])
    _require_outer_dependence(case, gradients, joint[: len(gradients)])
    direct, update = joint[len(gradients) :], _through_update(case, gradients, learned)
    ways = zip(through_inner, update, direct, _through_draws(case, learned), strict=True)
    lost = [name for name, way in zip(case.learned, ways, strict=True) if all(g is None for g in way)]
    if lost:
        others = f" (nor can {', '.join(lost[1:])})" if lost[1:] else ""
        why = _why(case, moves, case.learned[lost[0]])
        raise ValueError(f"outer parameter {lost[0]} cannot be learned: {why}{others}")


def _require_training(case: Case, gradients: Gradients) -> None:
    trainable = [p for p in case.parameters if p.requires_grad]
    if not trainable:
        raise ValueError("the inner model has no parameter with requires_grad=True, so there is nothing to train")
    present = [name for name, g in zip(case.names, gradients, strict=True) if g is not None]
    if not present:
        why = why_disconnected("inner_loss", "its trainable parameters", case.inner_loss, trainable, _leaves(case))
        raise ValueError(f"the inner model cannot be trained: {why}")
    if not any(held and g is not None for held, g in zip(case.is_held, gradients, strict=True)):
        kind = type(case.inputs.update.optimizer).__name__
        raise ValueError(f"the inner {kind} holds none of the parameters inner_loss depends on: {_some(present)}")


def _through_gradient(loss: Tensor, gradients: list[Tensor], learned: list[Tensor], further: list[Tensor]) -> Gradients:
    """Something for each outer parameter that the gradient depends on; the derivative in ``further`` must exist too."""
    refuse_once_differentiable(loss, gradients)
    try:
        # A sum of squares reaches every gradient with a weight that is zero only where the gradient is.
        squares = torch.stack([g.square().sum() for g in gradients]).sum()
        return gradient_of(squares, [*learned, *further])[: len(learned)]
    except RuntimeError as error:
        refused = refusal(error)
        if refused is None:
            raise
        raise refused from error


def _through_loss(case: Case, gradients: Gradients, learned: list[Tensor]) -> Gradients:
    """The same by first derivatives: ∂L/∂θ must depend on φ, so it must change with it."""
    here = gradient_of(case.inner_loss(), learned)
    if not any(bool(g.any()) for g in gradients if g is not None):
        return here  # a model that does not react says nothing
    generator = torch.Generator().manual_seed(0)
    moved = []
    for p in case.parameters:
        noise = torch.randn(p.shape, generator=generator).to(p)
        moved.append(p.detach() + 0.01 * max(0.1, p.detach().abs().mean().item()) * noise)
    there = gradient_of(case.inner_loss(moved), learned)
    return [
        None if a is not None and b is not None and bool(a.any()) and torch.equal(a, b) else a
        for a, b in zip(here, there, strict=True)
    ]


def _moves_with(case: Case, gradients: Gradients) -> bool:
    """Whether the step depends on the gradient otherwise than by its signs, as autograd sees it.

    Nothing is exchanged: where one process is refused, the others would wait for it.
    """
    alone = replace(case.inputs, update=replace(case.inputs.update, processes=Processes()))
    taken = update_of(alone, case.parameters, gradients)
    return any(w is not None for w in taken.pull([torch.ones_like(p) for p in taken.parameters])[0])


def _through_update(case: Case, gradients: Gradients, learned: list[Tensor]) -> Gradients:
    """Something for each outer parameter that a hyperparameter of the update or its preconditioner depends on."""
    update, outer = case.inputs.update, case.inputs.outer
    given = [v for values in update.given(outer) for value in values.values() for v in tensors_of(value)]
    if update.preconditioner is not None:
        constants = [None if g is None else g.detach() for g in gradients]
        given += [v for v in update.directions(constants, outer) if v is not None]
    return (
        gradient_of(torch.stack([v.double().sum().cpu() for v in given]).sum(), learned)
        if given
        else [None] * len(learned)
    )


def _through_draws(case: Case, learned: list[Tensor]) -> Gradients:
    """Something for each outer parameter that sets a distribution drawn from; ValueError if no scores are taken."""
    draws = Draws()
    with draws.noted():
        case.inner_loss()
        case.outer_loss()
    found: Gradients = [None] * len(learned)
    if draws.log_probability is not None:
        found = gradient_of(draws.log_probability, learned)
    drawn = [name for name, score in zip(case.learned, found, strict=True) if score is not None]
    if drawn and not case.takes_scores:
        raise ValueError(
            f"outer parameter {drawn[0]} sets a distribution that a loss draws from, and no derivative passes through "
            "what is drawn; choose ScoreFunction(strategy=...), or EvolutionStrategies"
        )
    return found


def _require_outer_dependence(case: Case, gradients: Gradients, cotangents: Gradients) -> None:
    if all(v is None for v in cotangents):
        trainable = [p for p in case.parameters if p.requires_grad]
        what = "the inner model's trainable parameters"
        why = why_disconnected("outer_loss", what, case.outer_loss, trainable, _leaves(case))
        raise ValueError(f"there is no hypergradient: {why}")
    moved = [held and g is not None for held, g in zip(case.is_held, gradients, strict=True)]
    if not any(m and v is not None for m, v in zip(moved, cotangents, strict=True)):
        used = [name for name, v in zip(case.names, cotangents, strict=True) if v is not None]
        raise ValueError(
            f"there is no hypergradient: of the inner model's parameters outer_loss depends only on {_some(used)}, "
            "which the inner step does not move"
        )


def _why(case: Case, moves: bool, theta: Tensor) -> str:
    """Why nothing reaches θ."""
    loss = case.inner_loss()
    if not moves:
        kind = type(case.inputs.update.optimizer).__name__
        inner = f"a step of {kind} depends on the gradient of inner_loss by its signs alone, or not at all"
    elif gradient_of(loss, [theta])[0] is None:
        inner = why_disconnected("inner_loss", "it", case.inner_loss, [theta], _leaves(case))
    else:
        meet = meeting_points(loss, [theta], case.parameters)
        where = f" (the graphs of both meet only in {_some(meet)})" if meet else ""
        inner = f"inner_loss depends on it, but its gradient in the model's parameters does not{where}"
    reasons = [inner, why_disconnected("outer_loss", "it", case.outer_loss, [theta], _leaves(case))]
    update = case.inputs.update
    if update.hyperparameters is not None:
        reasons.append("no hyperparameter of the update depends on it")
    if update.preconditioner is not None:
        reasons.append("the preconditioner does not depend on it")
    return "; ".join(reasons)


def _leaves(case: Case) -> list[Tensor]:
    return [*case.parameters, *case.learned.values()]


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
