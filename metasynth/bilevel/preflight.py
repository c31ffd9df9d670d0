"""Checks, made once on real batches, that a bilevel problem can be differentiated as it is stated.

Each failure of these is silent or obscure when met in the middle of a training: hooks that patching drops,
outer parameters that never reach the inner loss, operations without a second derivative.
"""

from typing import Any

import torch
from torch import Tensor, nn

from metasynth.bilevel.derivatives import Gradients, gradient_of
from metasynth.bilevel.functional import FunctionalModel
from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.inner_update import InnerUpdate
from metasynth.bilevel.problem import BilevelProblem, Outer, named_outer_parameters


def preflight(
    problem: BilevelProblem,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | InnerUpdate,
    outer: Outer,
    inner_batch: Any,
    outer_batch: Any,
    strategy: HypergradientStrategy | None = None,
) -> None:
    """Raise with one clear line if the hypergradient cannot be what the user expects.

    Model, optimiser and outer parameters are left as they were; the global random states are restored.

    Raises
    ------
    ValueError
        If the model has hooks (patching drops them) or behaves otherwise when patched, the optimiser cannot be
        differentiated or holds foreign parameters, a loss does not depend on the model, an operation of the inner
        loss has no second derivative, or a learned outer parameter reaches neither loss.
    """
    _refuse_hooks(model)
    update = optimizer if isinstance(optimizer, InnerUpdate) else InnerUpdate(optimizer)
    update.start(list(model.parameters()))
    learned = named_outer_parameters(outer)
    _refuse_shared(model, learned)
    functional = FunctionalModel(model)
    parameters = functional.refresh()
    # Seeding seeds every device.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        seed = torch.initial_seed()
        loss = _seeded(seed, problem, functional.bind(parameters), outer, inner_batch)
        gradients = gradient_of(loss, parameters, create_graph=True)
        _compare_with_original(seed, problem, model, outer, inner_batch, loss.detach(), gradients)
        _check_outer_connection(problem, functional, learned, outer, parameters, gradients, outer_batch)
        if strategy is not None:
            strategy.check(problem, functional, outer, inner_batch)
    functional.release()


def _seeded(seed: int, problem: BilevelProblem, model: nn.Module, outer: Outer, batch: Any) -> Tensor:
    torch.manual_seed(seed)
    return problem.inner_value(model, outer, batch)


def _refuse_hooks(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
            raise ValueError(
                f"inner model: {name or type(model).__name__} has forward or backward hooks, which a patched model "
                "drops (weight_norm and spectral_norm of torch.nn.utils are hooks); remove them"
            )


def _refuse_shared(model: nn.Module, learned: dict[str, Tensor]) -> None:
    own = {id(p): name for name, p in model.named_parameters()}
    for name, tensor in learned.items():
        if id(tensor) in own:
            raise ValueError(
                f"outer parameter {name} is also the inner model's {own[id(tensor)]}; the two levels must not share"
            )


def _compare_with_original(
    seed: int,
    problem: BilevelProblem,
    model: nn.Module,
    outer: Outer,
    batch: Any,
    patched_loss: Tensor,
    patched_gradients: Gradients,
) -> None:
    """The patched model must give the original's loss and gradient, wherever the loss is reproducible at all."""
    buffers = {name: value.detach().clone() for name, value in model.named_buffers()}
    named = dict(model.named_parameters())
    values = []
    for _ in range(2):
        loss = _seeded(seed, problem, model, outer, batch)
        values.append(loss.detach())
        for name, value in model.named_buffers():
            value.data.copy_(buffers[name])
    if not torch.equal(values[0], values[1]):
        return
    if not torch.allclose(values[0], patched_loss, rtol=1e-3, atol=1e-6):
        raise ValueError(
            f"inner model: patched for differentiation it gives a loss of {patched_loss.item():.6g} where the model "
            f"itself gives {values[0].item():.6g}; it probably keeps parameters outside of its registered ones"
        )
    gradients = gradient_of(loss, list(named.values()))
    # Gradients that vanish but for rounding (a bias before a normalisation) are compared with the largest.
    floor = 1e-4 * max((g.norm().item() for g in gradients if g is not None), default=0.0)
    for name, own, patched in zip(named, gradients, patched_gradients, strict=True):
        if not _agree(own, patched, floor):
            raise ValueError(
                f"inner model: patched for differentiation it gives another gradient for {name} than the model itself; "
                "it probably keeps a second reference to parameters or submodules (such as a plain list), an "
                "overridden forward or a hook"
            )


def _agree(own: Tensor | None, patched: Tensor | None, floor: float) -> bool:
    if own is None or patched is None:
        return own is patched
    return (own - patched.detach()).norm().item() <= 1e-2 * own.norm().item() + floor


def _check_outer_connection(
    problem: BilevelProblem,
    functional: FunctionalModel,
    learned: dict[str, Tensor],
    outer: Outer,
    parameters: list[Tensor],
    gradients: Gradients,
    outer_batch: Any,
) -> None:
    present = [g for g in gradients if g is not None]
    if not present:
        raise ValueError("inner_loss does not depend on any trainable parameter of the inner model")
    _refuse_once_differentiable(present)
    try:
        # A sum of squares reaches every gradient with a weight that is zero only where the gradient is.
        probe = torch.stack([g.square().sum() for g in present]).sum()
        through_inner = gradient_of(probe, list(learned.values()))
    except RuntimeError as error:
        if "not implemented" not in str(error) and "derivative" not in str(error):
            raise
        first_line = str(error).splitlines()[0]
        raise ValueError(f"inner_loss cannot be differentiated twice: {first_line}") from error

    functional.load_buffers(functional.buffers())
    outer_loss = problem.outer_value(functional.bind(parameters), outer, outer_batch)
    joint = gradient_of(outer_loss, [*parameters, *learned.values()])
    if all(g is None for g in joint[: len(parameters)]):
        raise ValueError("outer_loss does not depend on any trainable parameter of the inner model")
    direct = joint[len(parameters) :]
    lost = [name for name, a, b in zip(learned, through_inner, direct, strict=True) if a is None and b is None]
    if lost:
        raise ValueError(
            f"outer parameter {', '.join(lost)} reaches neither the gradient of inner_loss nor outer_loss, so it "
            "cannot be learned; is it used under torch.no_grad(), detached, or not passed to the loss?"
        )


def _refuse_once_differentiable(gradients: list[Tensor]) -> None:
    """Such an operation raises only when differentiated itself: on the way to θ it cuts the graph in silence."""
    pending = [g.grad_fn for g in gradients if g.grad_fn is not None]
    seen = set(pending)
    while pending:
        node = pending.pop()
        if node.name() == "torch::autograd::Error":
            raise ValueError(
                "inner_loss cannot be differentiated twice: it uses a torch.autograd.Function whose backward is "
                "marked once_differentiable"
            )
        following = {n for n, _ in node.next_functions if n is not None} - seen
        seen |= following
        pending.extend(following)
