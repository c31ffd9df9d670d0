"""How the inner parameters move, given their gradient: the optimiser and what is done around it."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from metasynth.bilevel.derivatives import Gradients
from metasynth.bilevel.problem import Outer
from metasynth.bilevel.processes.processes import Processes
from metasynth.bilevel.update.optimizers import apply_update, check_inner, commit_state, differentiable
from metasynth.bilevel.update.rules.arithmetic import value_of

Hyperparameters = Callable[[Any, Mapping[str, Any]], Mapping[str, Tensor | float]]
"""``(outer, group) -> {"lr": ..., "weight_decay": ...}``, either or both, each a 0-d tensor or a number.

``group`` is a parameter group of the optimiser without its parameters: its values as schedulers have left them, and
whatever else the group was made with, by which groups can be told apart.
"""


@dataclass(frozen=True)
class InnerUpdate:
    """φ* = U(φ, clip(g), θ; state), with U an optimiser's step and g the gradient averaged over processes.

    Attributes
    ----------
    optimizer : torch.optim.Optimizer
        Of a type registered with `higher`; made on parameters of the inner model.
    processes : Processes
        The gradient g is averaged over them before anything else.
    hyperparameters : callable or None
        Learning rate and weight decay as functions of the outer parameters, differentiated through (Bengio 2000;
        Maclaurin et al. 2015). Called for every parameter group at every step, as ``f(outer, group)``: see
        `Hyperparameters`. The optimiser's own groups keep their values, so that schedulers act on those; with
        ``lambda outer, group: {"lr": group["lr"] * outer["log_factor"].exp()}`` a learned factor multiplies the
        schedule. The rule of a type that a user registered must take 0-d tensors for what is so given.
    clip_norm : float or None
        c > 0: g becomes g min(1, c / (|g| + 1e-6)), as by `torch.nn.utils.clip_grad_norm_`, with the Euclidean norm
        over all parameters of the inner model that have a gradient; differentiated through.
    """

    optimizer: torch.optim.Optimizer
    processes: Processes = field(default_factory=Processes)
    hyperparameters: Hyperparameters | None = None
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        if self.clip_norm is not None and not (self.clip_norm > 0 and math.isfinite(self.clip_norm)):
            raise ValueError(f"clip_norm must be a finite number above 0 or None, got {self.clip_norm!r}")

    @classmethod
    def of(cls, optimizer: "torch.optim.Optimizer | InnerUpdate") -> "InnerUpdate":
        """An update as it is, or that of an optimiser with nothing done around it."""
        return optimizer if isinstance(optimizer, InnerUpdate) else cls(optimizer)

    def check(self, parameters: Sequence[Tensor]) -> None:
        """Raise ValueError, in one line, if the optimiser cannot be differentiated as it is now.

        See `metasynth.bilevel.update.optimizers.check_inner`; ``parameters`` are the model's own, all of them.
        """
        check_inner(self.optimizer, parameters)

    def start(self, parameters: Sequence[Tensor]) -> Any:
        """A differentiable twin of the optimiser, with a copy of its state.

        Parameters
        ----------
        parameters : sequence of tensor
            The model's own, all of them, in order.

        Raises
        ------
        ValueError
            As `check`.
        """
        return differentiable(self.optimizer, parameters)

    def apply(
        self, twin: Any, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None], outer: Outer
    ) -> list[Tensor]:
        """φ* from φ and g (already averaged); differentiable in both and in θ. The twin's state moves on.

        Raises
        ------
        ValueError
            If ``hyperparameters`` gives anything but finite learning rates and weight decays of at least 0, or no
            parameter that the optimiser holds has a gradient.
        """
        self._require_gradient(gradients[i] for indices in twin._group_to_param_list for i in indices)
        for options, given in zip(twin.param_groups, self.given(outer), strict=True):
            options.update(given)
        return apply_update(twin, parameters, clipped(gradients, self.clip_norm))

    def step(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None], outer: Outer) -> None:
        """Move the model's own ``parameters`` by g (already averaged) with the optimiser itself, undifferentiated.

        Raises
        ------
        ValueError
            As `apply`; nothing has moved then.
        """
        gradient_at = {id(p): g for p, g in zip(parameters, gradients, strict=True)}
        self._require_gradient(gradient_at.get(id(p)) for group in self.optimizer.param_groups for p in group["params"])
        with torch.no_grad():
            given = [{name: value_of(value) for name, value in values.items()} for values in self.given(outer)]
            limited = clipped(gradients, self.clip_norm)
        groups = self.optimizer.param_groups
        own = [{name: group[name] for name in values} for group, values in zip(groups, given, strict=True)]
        try:
            for parameter, gradient in zip(parameters, limited, strict=True):
                parameter.grad = gradient
            for group, values in zip(groups, given, strict=True):
                group.update(values)
            self.optimizer.step()
        finally:
            for group, values in zip(groups, own, strict=True):
                group.update(values)
            for parameter in parameters:
                parameter.grad = None

    def given(self, outer: Outer) -> list[dict[str, Tensor | float]]:
        """What ``hyperparameters`` gives for each parameter group, checked; empty where there is none."""
        groups = self.optimizer.param_groups
        if self.hyperparameters is None:
            return [{} for _ in groups]
        found = []
        for group in groups:
            seen = MappingProxyType({name: value for name, value in group.items() if name != "params"})
            values = dict(self.hyperparameters(outer, seen))
            for name, value in values.items():
                _check(name, value, group)
            found.append(values)
        return found

    def _require_gradient(self, held: Iterable[Tensor | None]) -> None:
        """ValueError unless one of the gradients, of what the optimiser holds, is there: a step must move something."""
        if all(gradient is None for gradient in held):
            raise ValueError(
                f"inner_loss depends on no parameter that the inner {type(self.optimizer).__name__} holds, so the step "
                "would move nothing; it may be detached, or evaluated under torch.no_grad"
            )

    def average(self, gradients: Sequence[Tensor | None]) -> Gradients:
        """The gradient over all processes."""
        return self.processes.mean(gradients)

    def commit(self, twin: Any) -> None:
        """Write the twin's state into the optimiser, as if it had stepped."""
        commit_state(self.optimizer, twin)


def clipped(gradients: Sequence[Tensor | None], limit: float | None) -> Gradients:
    """The gradients times min(1, limit / (norm of all + 1e-6)), differentiable; as they are for no limit."""
    present = [g for g in gradients if g is not None]
    if limit is None or not present:
        return list(gradients)
    # The operations of `torch.nn.utils.clip_grad_norm_`, which does not let itself be differentiated.
    norms = [torch.linalg.vector_norm(g).to(present[0].device) for g in present]
    factor = (limit / (torch.linalg.vector_norm(torch.stack(norms)) + 1e-6)).clamp(max=1.0)
    return [None if g is None else g * factor.to(g.device) for g in gradients]


def _check(name: str, value: Tensor | float, group: Mapping[str, Any]) -> None:
    if name not in ("lr", "weight_decay"):
        raise ValueError(f"hyperparameters may give 'lr' and 'weight_decay', got {name!r}")
    if name not in group:
        raise ValueError(f"hyperparameters gave {name!r}, which the inner optimiser does not have")
    if not isinstance(value, int | float | Tensor) or (isinstance(value, Tensor) and value.dim() != 0):
        got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"hyperparameters must give {name} as a number or a 0-d tensor, got {got}")
    number = value_of(value)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"hyperparameters must give {name} as a finite number of at least 0, got {number!r}")
