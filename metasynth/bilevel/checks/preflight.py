"""Checks, made once on real batches, that a bilevel problem can be differentiated as it is stated.

Each failure of these is silent or obscure when met in the middle of a training: hooks that patching drops,
outer parameters that never reach the inner loss, operations without a second derivative.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from metasynth.bilevel.checks.connection import Case, require_connection
from metasynth.bilevel.checks.flawed_operations import Mode
from metasynth.bilevel.checks.gradient_differences import HookWatch, require_right_second_derivative
from metasynth.bilevel.checks.second_derivative import refuse_flawed, refuse_flawed_modules
from metasynth.bilevel.derivatives import Gradients, gradient_of
from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.patched.buffers import BufferPolicy
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem, Outer, named_outer_parameters
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.update.inner_update import InnerUpdate


def preflight(
    problem: BilevelProblem,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | InnerUpdate,
    outer: Outer,
    inner_batch: Any,
    outer_batch: Any,
    strategy: HypergradientStrategy | None = None,
    buffers: BufferPolicy = "commit",
) -> None:
    """Raise with one clear line if the hypergradient cannot be what the user expects.

    Model, optimiser and ``outer`` are left as they were; the global random states are restored. A second derivative
    is asked for only of a strategy that needs it (None: one that does).

    Raises
    ------
    ValueError
        If the model has hooks (patching drops them) or behaves otherwise when patched, the optimiser cannot be
        differentiated, has hooks or holds foreign parameters, a loss does not depend on the model, an operation of the
        inner loss has no second derivative or a wrong one (see `metasynth.bilevel.checks.flawed_operations`), a
        Function or a hook of the user's own makes it wrong, or a learned outer parameter has no hypergradient. The
        line then says which loss cuts its graph, where and by what operation, as far as that can be found.
    """
    update = InnerUpdate.of(optimizer)
    _refuse_hooks(model)
    update.start(list(model.parameters()))
    _refuse_shared(model, named_outer_parameters(outer))
    mode: Mode = "double backward" if strategy is None else strategy.mode
    needs_double_backward = mode == "double backward"
    needs_hessian = strategy is not None and strategy.needs_hessian
    refuse_flawed_modules(model, needs_hessian)
    # Seeding seeds every device.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        inputs = StepInputs(problem, FunctionalModel(model, buffers), update, outer, [inner_batch])
        case = Case(inputs, outer_batch, strategy)
        try:
            loss = case.inner_loss()
            refuse_flawed(loss, case.parameters, list(case.learned.values()), mode, needs_hessian)
            gradients = _gradient_elsewhere(case, loss, create_graph=needs_double_backward)
            hooks = HookWatch()
            _compare_with_original(case, loss.detach(), gradients, hooks)
            require_connection(case, loss, gradients, needs_double_backward, needs_hessian)
            require_right_second_derivative(case, loss, hooks.places, mode, needs_hessian)
        except RuntimeError as error:
            if "backward through the graph a second time" not in str(error):
                raise
            raise ValueError(
                "a loss uses a tensor with a graph that was made outside of it, such as a function of an outer "
                "parameter computed beforehand; compute it inside of the loss, from the parameter"
            ) from error
        if strategy is not None:
            with case.replay.again():
                strategy.check(inputs)
    inputs.model.release()


def _refuse_hooks(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
            raise ValueError(
                f"inner model: {name or type(model).__name__} has forward or backward hooks, which a patched model "
                "drops (weight_norm and spectral_norm of torch.nn.utils are hooks); remove them"
            )
    for name, parameter in model.named_parameters():
        if parameter._post_accumulate_grad_hooks:
            raise ValueError(
                f"inner model: {name} has hooks for when its gradient was accumulated, which a step that is "
                "differentiated does not call; remove them"
            )


def _refuse_shared(model: nn.Module, learned: dict[str, Tensor]) -> None:
    own = {id(p): name for name, p in model.named_parameters()}
    for name, tensor in learned.items():
        if id(tensor) in own:
            raise ValueError(
                f"outer parameter {name} is also the inner model's {own[id(tensor)]}; the two levels must not share"
            )


_RECOMPUTES = (
    "inner model: its backward pass computes a part again with the parameters that the model has by then, and those "
    "are others; recompute by torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
)


def _gradient_elsewhere(case: Case, loss: Tensor, create_graph: bool) -> Gradients:
    """The loss's gradient, taken when the model has been bound to other parameters: it must not notice."""
    case.inputs.model.bind([(0.5 * p.detach()).requires_grad_(p.requires_grad) for p in case.parameters])
    try:
        return gradient_of(loss, case.parameters, create_graph=create_graph)
    except CheckpointError as error:
        raise ValueError(_RECOMPUTES) from error


def _compare_with_original(case: Case, patched_loss: Tensor, patched_gradients: Gradients, hooks: HookWatch) -> None:
    """The patched model must give the original's loss and gradient, wherever the loss is reproducible at all."""
    with hooks:
        first, _ = case.original()
    loss, gradients = case.original()
    if not torch.equal(first, loss):
        return
    if not torch.allclose(loss, patched_loss, rtol=1e-3, atol=1e-6):
        raise ValueError(
            f"inner model: patched for differentiation it gives a loss of {patched_loss.item():.6g} where the model "
            f"itself gives {loss.item():.6g}; it probably keeps parameters outside of its registered ones"
        )
    different = _different(case, gradients, patched_gradients)
    if any(different):
        if not any(_different(case, gradients, gradient_of(case.inner_loss(), case.parameters))):
            raise ValueError(_RECOMPUTES)
        name = case.names[different.index(True)]
        raise ValueError(
            f"inner model: patched for differentiation it gives another gradient for {name} than the model itself; "
            "it probably keeps a second reference to parameters or submodules (such as a plain list), an overridden "
            "forward or a hook"
        )


def _different(case: Case, own: Gradients, patched: Gradients) -> list[bool]:
    # Gradients that vanish but for rounding (a bias before a normalisation) are compared with the largest. Kernels that
    # can be differentiated again round otherwise: under autocast by about a unit of the largest.
    autocast = case.inputs.problem.autocast
    unit = 0.0 if autocast is None else torch.finfo(autocast).eps
    floor = max(1e-4, 2 * unit) * max((g.norm().item() for g in own if g is not None), default=0.0)
    return [not _agree(a, b, max(1e-2, 4 * unit), floor) for a, b in zip(own, patched, strict=True)]


def _agree(own: Tensor | None, patched: Tensor | None, relative: float, floor: float) -> bool:
    if own is None or patched is None:
        return own is patched
    return (own - patched.detach()).norm().item() <= relative * own.norm().item() + floor
