"""Operations without a second derivative, named for their users."""

import re
from typing import Any

from torch import Tensor

from metasynth.bilevel.graph_ends import once_differentiable

# What torch's error says -> what ran, and how to have another run in its place.
_KERNELS = {
    r"scaled_dot_product|flash_attention|efficient_attention": (
        "scaled_dot_product_attention ran a fused kernel, which has no second derivative; call it under "
        "torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"
    ),
    r"cudnn_rnn|CuDNN RNN|miopen_rnn": (
        "a recurrent layer ran a cuDNN kernel, which has no second derivative; call it under "
        "torch.backends.cudnn.flags(enabled=False)"
    ),
    r"selective activation checkpoint": (
        "selective activation checkpointing allows one backward pass; call torch.utils.checkpoint without a policy"
    ),
    r"modified by an inplace operation": (
        "an operation in place changed a tensor that the second derivative needs; let it give a new one"
    ),
}


def refusal(error: RuntimeError) -> ValueError | None:
    """One line for an error of torch's that says a second derivative is missing; None for any other error."""
    said = str(error)
    for pattern, cause in _KERNELS.items():
        if re.search(pattern, said):
            return _refused(cause)
    if "not implemented" not in said and "derivative" not in said:
        return None
    named = re.search(r"derivative for '?(?:aten::)?(\w+)'? is not implemented", said)
    if named:
        operation = named[1].removesuffix("_backward").lstrip("_")
        return _refused(f"{operation} has no second derivative; write it out of other operations")
    return _refused(said.splitlines()[0])


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


def _refused(cause: str) -> ValueError:
    return ValueError(f"inner_loss cannot be differentiated twice: {cause}, or choose FiniteDifference")
