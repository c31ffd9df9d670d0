"""Rules that take a parameter as a whole, most of all a matrix: Adafactor and Muon.

`torch.optim` takes norms as numbers here, or computes in bfloat16. The value of a step is what that gives; its
derivative is that of the formula, in the parameter's own precision.
"""

import math
from functools import partial

import torch
from torch import Tensor

from metasynth.bilevel.update.rules.arithmetic import (
    Number,
    Options,
    State,
    between,
    plus,
    rounded_as_torch,
    scalar,
    shrunk,
)


@partial(rounded_as_torch, twice=True)
def adafactor_update(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
    """One step of `torch.optim.Adafactor` on one parameter; its second moment is factored from two dimensions on."""
    eps1, eps2 = options["eps"]
    eps1 = torch.finfo(parameter.dtype).eps if eps1 is None else eps1
    state = state or _second_moment(gradient)
    step = state["step"] + 1
    count = step.item()
    weight, size = count ** options["beta2_decay"], parameter.numel() ** 0.5
    scale = _larger(eps2, _norm(parameter) / size) * -_larger(-options["lr"], -1 / count**0.5)
    parameter = shrunk(parameter, options)
    if gradient.dim() > 1:
        row, column = (
            between(state[name], gradient.norm(dim=dim, keepdim=True).square() / gradient.size(dim), weight)
            for name, dim in (("row_var", -1), ("col_var", -2))
        )
        state = {"step": step, "row_var": row, "col_var": column}
        variance = row @ column / row.mean(dim=-2, keepdim=True).clamp(min=eps1)
    else:
        variance = between(state["variance"], gradient * gradient, weight)
        state = {"step": step, "variance": variance}
    update = variance.clamp(min=eps1 * eps1).rsqrt() * gradient
    return plus(parameter, update, -scale / _larger(1.0, _norm(update) / (size * options["d"]))), state


def _second_moment(gradient: Tensor) -> State:
    shape = gradient.shape
    if gradient.dim() < 2:
        return {"step": scalar(0.0), "variance": torch.zeros_like(gradient)}
    rows, columns = gradient.new_zeros((*shape[:-1], 1)), gradient.new_zeros((*shape[:-2], 1, shape[-1]))
    return {"step": scalar(0.0), "row_var": rows, "col_var": columns}


def _norm(values: Tensor) -> Number:
    """The norm over all entries, a number where it is not to be differentiated."""
    norm = values.norm(2)
    return norm if torch.is_grad_enabled() else norm.item()


def _larger(a: Number, b: Number) -> Number:
    if isinstance(a, Tensor):
        return torch.maximum(a, torch.as_tensor(b).to(a))
    return _larger(b, a) if isinstance(b, Tensor) else max(a, b)


@partial(rounded_as_torch, twice=True)
def muon_update(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
    """One step of `torch.optim.Muon` on one matrix."""
    momentum, (rows, columns) = options["momentum"], parameter.shape
    buffer = between(state.get("momentum_buffer", torch.zeros_like(gradient)), gradient, 1 - momentum)
    update = between(gradient, buffer, momentum) if options["nesterov"] else buffer
    ratio = math.sqrt(max(1, rows / columns))
    if options["adjust_lr_fn"] == "match_rms_adamw":
        ratio = 0.2 * math.sqrt(max(rows, columns))
    updated = plus(shrunk(parameter, options), _orthogonal(update, options), -(options["lr"] * ratio))
    return updated, {"momentum_buffer": buffer}


def _orthogonal(matrix: Tensor, options: Options) -> Tensor:
    """Near UVᵀ of the singular value decomposition USVᵀ, by Newton and Schulz's iteration with a quintic polynomial."""
    a, b, c = options["ns_coefficients"]
    found = matrix if torch.is_grad_enabled() else matrix.bfloat16()
    is_tall = matrix.size(0) > matrix.size(1)
    found = found.T if is_tall else found
    found = found / found.norm().clamp(min=options["eps"])
    for _ in range(options["ns_steps"]):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.T if is_tall else found
