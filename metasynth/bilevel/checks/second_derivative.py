"""Operations whose second derivative is wrong or missing, named for their users."""

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from metasynth.bilevel.checks.flawed_operations import (
    COMPILED,
    FLAWED,
    STRATEGIES,
    Flaw,
    Mode,
    key_of,
    takes_vectors_for_constants,
)
from metasynth.bilevel.checks.graph_ends import dependent_operations, once_differentiable

_IN_PLACE = "modified by an inplace operation"
_HOW: dict[Mode, str] = {
    "double backward": "twice",
    "forward mode": "by Forward (forward mode, then reverse)",
    "differences": "by FiniteDifference",
}


def refuse_flawed(
    loss: Tensor, parameters: Sequence[Tensor], learned: Sequence[Tensor], mode: Mode, needs_hessian: bool
) -> None:
    """Raise ValueError if an operation of the loss has a second derivative that is wrong, or missing, in this mode.

    Parameters
    ----------
    loss : tensor
        The inner loss, with its graph.
    parameters, learned : sequence of tensor
        φ and θ, leaves of it.
    mode : Mode
        How the second derivative is taken.
    needs_hessian : bool
        Whether ∂g/∂φ is taken too. Otherwise an operation that depends on φ alone is differentiated but once.
    """
    for operation in dependent_operations(loss, parameters, learned):
        flaw = FLAWED.get(key_of(operation.node.name()))
        if (
            flaw is not None
            and mode in flaw.wrong + flaw.missing
            and operation.on_first
            and (needs_hessian or operation.on_second or flaw.when_linear)
            and flaw.output in (None, *operation.used_outputs)
            and flaw.applies(operation.node)
        ):
            raise _because_of(flaw, mode)


def refuse_flawed_modules(model: nn.Module, needs_hessian: bool) -> None:
    """Raise ValueError if ∂g/∂φ is wrong in silence for one of the model's modules, as they are set."""
    for name, module in model.named_modules():
        if needs_hessian and takes_vectors_for_constants(module):
            raise ValueError(
                f"inner model: {name} (spectral_norm) finds its singular vectors anew in each pass but takes them for "
                "constants, so its second derivative is wrong; put it in eval mode (they are then kept), or choose "
                "Mixed or FiniteDifference"
            )


def refusal(error: RuntimeError) -> ValueError | None:
    """One line for an error of torch's that says a second derivative is missing; None for any other error."""
    said = str(error)
    if _IN_PLACE in said:
        return _refused(
            "an operation in place changed a tensor that the second derivative needs; let it give a new one"
        )
    if "selective activation checkpoint" in said:
        return _refused(
            "selective activation checkpointing allows one backward pass; call torch.utils.checkpoint without a policy"
        )
    if "torch.compile" in said and "double backward" in said:
        return _because_of(FLAWED[COMPILED], "double backward")
    if "not implemented" not in said and "derivative" not in said:
        return None
    named = re.search(r"derivative for '?(?:aten::)?(\w+)'? is not implemented", said)
    if not named:
        return _refused(said.splitlines()[0])
    operation = named[1].removesuffix("_backward").lstrip("_")
    node = "".join(part.capitalize() for part in operation.split("_"))
    flaw = FLAWED.get(node, Flaw(operation, "write it out of other operations", missing=("double backward",)))
    return _because_of(flaw, "double backward")


def refuse_once_differentiable(loss: Tensor, gradients: list[Tensor]) -> None:
    """Raise ValueError if the gradients' graph is cut by an operation marked once_differentiable.

    It raises only when differentiated itself: on the way to θ it cuts the graph in silence.
    """
    pending: list[Any] = [g.grad_fn for g in gradients if g.grad_fn is not None]
    seen = set(pending)
    while pending:
        node = pending.pop()
        if node.name() == "torch::autograd::Error":
            name = ", ".join(once_differentiable(loss)) or "a torch.autograd.Function"
            raise _refused(f"the backward of {name} is marked once_differentiable; write one that is not")
        following = {n for n, _ in node.next_functions if n is not None} - seen
        seen |= following
        pending.extend(following)


def _because_of(flaw: Flaw, mode: Mode) -> ValueError:
    what = "has no second derivative" if mode in flaw.missing else "has a wrong second derivative in torch"
    others = [
        name
        for other, name in STRATEGIES.items()
        # Forward mode has fewer rules: it is no way out of a rule that is missing.
        if other not in (mode, *flaw.wrong, *flaw.missing) and other != "forward mode"
    ]
    ways = [*([flaw.instead] if flaw.instead else []), *([f"choose {' or '.join(others)}"] if others else [])]
    return ValueError(f"inner_loss cannot be differentiated {_HOW[mode]}: {flaw.subject} {what}; {', or '.join(ways)}")


def _refused(cause: str) -> ValueError:
    return ValueError(f"inner_loss cannot be differentiated twice: {cause}, or choose FiniteDifference")
