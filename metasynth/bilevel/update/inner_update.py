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
from metasynth.bilevel.update.hyperparameters import Hyperparameters, checked, is_per_parameter
from metasynth.bilevel.update.optimizers import apply_update, check_inner, commit_state, differentiable
from metasynth.bilevel.update.rules.arithmetic import value_of

Preconditioner = Callable[[Any, Gradients], Sequence[Tensor | None]]
"""``(outer, gradients) -> directions``: one for each parameter of the model, None where that has no gradient."""


@dataclass(frozen=True)
class InnerUpdate:
    """φ* = U(φ, P(clip(g), θ), θ; state), with U an optimiser's step and g the gradient averaged over processes.

    Attributes
    ----------
    optimizer : torch.optim.Optimizer
        Of a type registered with `higher`; made on parameters of the inner model.
    processes : Processes
        The gradient g is averaged over them before anything else.
    hyperparameters : callable or None
        Any numbers of a group (learning rate, weight decay, momentum, betas, epsilon) as functions of the outer
        parameters, for a group, a parameter or a weight, differentiated through (Bengio 2000; Maclaurin et al. 2015).
        Called for every parameter group at every step, as ``f(outer, group)``: see `Hyperparameters` in
        `metasynth.bilevel.update.hyperparameters`. The optimiser's own groups keep their values, so that schedulers act
        on those; with ``lambda outer, group: {"lr": group["lr"] * outer["log_factor"].exp()}`` a learned factor
        multiplies the schedule. The rule of a type that a user registered must take tensors for what is so given.
    clip_norm : float or None
        c > 0: g becomes g min(1, c / (|g| + 1e-6)), as by `torch.nn.utils.clip_grad_norm_`, with the Euclidean norm
        over all parameters of the inner model that have a gradient; differentiated through.
    preconditioner : callable or None
        P, as ``f(outer, gradients)`` on the clipped gradients: what the optimiser is given in their place, each of its
        gradient's shape, differentiated through. With SGD at a rate of one it is a learned optimiser: a module among
        the outer parameters that maps gradients to updates (Andrychowicz et al. 2016).
    """

    optimizer: torch.optim.Optimizer
    processes: Processes = field(default_factory=Processes)
    hyperparameters: Hyperparameters | None = None
    clip_norm: float | None = None
    preconditioner: Preconditioner | None = None

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
            If ``hyperparameters`` or ``preconditioner`` give what they may not, or no parameter that the optimiser
            holds has a gradient.
        """
        self._require_gradient(gradients[i] for indices in twin._group_to_param_list for i in indices)
        return self._applied(twin, parameters, self.directions(gradients, outer), self.given(outer))

    @staticmethod
    def _applied(
        twin: Any, parameters: Sequence[Tensor], directions: Gradients, given: Sequence[Mapping[str, Any]]
    ) -> list[Tensor]:
        for options, values in zip(twin.param_groups, given, strict=True):
            options.update(values)
        return apply_update(twin, parameters, directions)

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
            given = self.given(outer)
            directions = self.directions(gradients, outer)
            if any(is_per_parameter(value) for values in given for value in values.values()):
                # The optimiser itself takes one number for a whole group.
                twin = self.start(parameters)
                moved = self._applied(twin, [p.detach() for p in parameters], directions, given)
                for parameter, value in zip(parameters, moved, strict=True):
                    parameter.copy_(value)
                return self.commit(twin)
        self._step_natively(parameters, directions, given)

    def _step_natively(
        self, parameters: Sequence[Tensor], directions: Gradients, given: Sequence[Mapping[str, Any]]
    ) -> None:
        given = [{name: value_of(value) for name, value in values.items()} for values in given]
        groups = self.optimizer.param_groups
        own = [{name: group[name] for name in values} for group, values in zip(groups, given, strict=True)]
        try:
            for parameter, gradient in zip(parameters, directions, strict=True):
                parameter.grad = gradient
            for group, values in zip(groups, given, strict=True):
                group.update(values)
            self.optimizer.step()
        finally:
            for group, values in zip(groups, own, strict=True):
                group.update(values)
            for parameter in parameters:
                parameter.grad = None

    def given(self, outer: Outer) -> list[dict[str, Any]]:
        """What ``hyperparameters`` gives for each parameter group, checked; empty where there is none."""
        groups = self.optimizer.param_groups
        if self.hyperparameters is None:
            return [{} for _ in groups]
        found = []
        for group in groups:
            seen = MappingProxyType({name: value for name, value in group.items() if name != "params"})
            values = self.hyperparameters(outer, seen)
            found.append({name: checked(name, value, group) for name, value in values.items()})
        return found

    def directions(self, gradients: Sequence[Tensor | None], outer: Outer) -> Gradients:
        """What the optimiser is given: the gradients, clipped and preconditioned; differentiable in them and in θ.

        Raises
        ------
        ValueError
            If the preconditioner gives anything but a tensor for each gradient, like it.
        """
        limited = clipped(gradients, self.clip_norm)
        if self.preconditioner is None:
            return limited
        found = list(self.preconditioner(outer, limited))
        if len(found) != len(limited):
            raise ValueError(
                f"preconditioner must give one direction for each of {len(limited)} gradients, got {len(found)}"
            )
        for index, (direction, gradient) in enumerate(zip(found, limited, strict=True)):
            if _kind_of(direction) != _kind_of(gradient):
                raise ValueError(
                    f"preconditioner must give {_kind_of(gradient)} for gradient {index}, got {_kind_of(direction)}"
                )
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

    def average_in_graph(self, gradients: Sequence[Tensor | None], anchor: Tensor) -> Gradients:
        """The same, to be differentiated through: derivatives in the result are averaged on their way back.

        Every process has to come to that exchange, whatever its own batch reaches. It does where the ``anchor``, a leaf
        that stands beside the gradients, is among what is differentiated with respect to.
        """
        return self.processes.averaged([*gradients, anchor])[:-1]

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


def _kind_of(given: Any) -> str:
    if isinstance(given, Tensor):
        return f"a tensor of shape {tuple(given.shape)} and {given.dtype}"
    return "None" if given is None else type(given).__name__
