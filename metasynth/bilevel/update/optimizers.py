"""Optimisers as differentiable functions: SGD, Adam, AdamW and RMSprop, registered with `higher`.

They apply the rules of `metasynth.bilevel.update.rules`, which are those of `torch.optim` to the last bit;
`higher`'s own Adam adds epsilon elsewhere, its centred RMSprop keeps another state, and it has no AdamW.
"""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import higher
import torch
from higher.optim import DifferentiableOptimizer
from torch import Tensor

from metasynth.bilevel.update.rules import Options, State, adam_update, adamw_update, rmsprop_update, sgd_update


class _RuleOptimizer(DifferentiableOptimizer):
    """A `higher` differentiable optimiser that applies an update rule; concrete ones only name the rule."""

    @staticmethod
    @abstractmethod
    def rule(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
        """The updated parameter and state."""

    def __init__(self, other: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> None:
        check_supported(other)
        super().__init__(other, *args, **kwargs)

    def _update(self, grouped_grads: list[list[Tensor | None]], **_: Any) -> None:
        for index, (options, grads) in enumerate(zip(self.param_groups, grouped_grads, strict=True)):
            for position, (parameter, gradient) in enumerate(zip(options["params"], grads, strict=True)):
                if gradient is None:
                    continue
                options["params"][position], self.state[index][position] = self.rule(
                    parameter, gradient, self.state[index][position], options
                )


class DifferentiableSGD(_RuleOptimizer):
    """Differentiable twin of `torch.optim.SGD`."""

    rule = staticmethod(sgd_update)


class DifferentiableAdam(_RuleOptimizer):
    """Differentiable twin of `torch.optim.Adam`; finite at dead units."""

    rule = staticmethod(adam_update)


class DifferentiableAdamW(_RuleOptimizer):
    """Differentiable twin of `torch.optim.AdamW`; finite at dead units."""

    rule = staticmethod(adamw_update)


class DifferentiableRMSprop(_RuleOptimizer):
    """Differentiable twin of `torch.optim.RMSprop`; finite at dead units."""

    rule = staticmethod(rmsprop_update)


higher.register_optim(torch.optim.SGD, DifferentiableSGD)
higher.register_optim(torch.optim.Adam, DifferentiableAdam)
higher.register_optim(torch.optim.AdamW, DifferentiableAdamW)
higher.register_optim(torch.optim.RMSprop, DifferentiableRMSprop)

_UNSUPPORTED_FLAGS = ("amsgrad", "maximize", "capturable", "differentiable", "fused")
_NUMBERS = ("lr", "weight_decay", "momentum", "dampening", "alpha", "eps")


def check_supported(optimizer: torch.optim.Optimizer) -> None:
    """Refuse what the differentiable twin would not honour: some flags, tensors for options, complex numbers.

    Raises
    ------
    ValueError
        Naming it.
    """
    kind = type(optimizer).__name__
    for options in optimizer.param_groups:
        for flag in _UNSUPPORTED_FLAGS:
            if options.get(flag):
                raise ValueError(
                    f"{kind}({flag}={options[flag]}) cannot be differentiated through; expected {flag}=False"
                )
        for name in _NUMBERS:
            if isinstance(options.get(name), Tensor):
                raise ValueError(f"{kind}({name}=...) must be a number, got a tensor")
        if any(isinstance(beta, Tensor) for beta in options.get("betas", ())):
            raise ValueError(f"{kind}(betas=...) must be two numbers, got a tensor")
        if any(p.is_complex() for p in options["params"]):
            raise ValueError(f"the inner {kind} holds a complex parameter; expected real ones")


def check_inner(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> None:
    """Refuse an inner optimiser whose steps cannot be differentiated exactly as they are.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Of a type registered with `higher` (exact type, not a subclass).
    parameters : sequence of tensor
        The model's own parameters, all of them; the optimiser may hold a subset.

    Raises
    ------
    ValueError
        If it is no optimiser, of a type without a twin that keeps the same state, has step hooks, flags that its twin
        does not honour, or parameters that are not the model's.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(f"the inner optimiser must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
    kind, expected = type(optimizer).__name__, "SGD, Adam, AdamW, RMSprop or a type added with higher.register_optim"
    twin = higher.optim._opt_mapping.get(type(optimizer))
    if twin is None:
        raise ValueError(f"no differentiable twin of {kind} is registered; expected {expected}")
    if _keeps_another_state(twin):
        raise ValueError(
            f"the differentiable twin of {kind} that higher brings keeps another state than torch.optim, so that its "
            f"steps are others; expected {expected} with a twin of your own"
        )
    known = {id(p) for p in parameters}
    if any(id(p) not in known for options in optimizer.param_groups for p in options["params"]):
        raise ValueError(
            f"the inner {kind} holds a parameter that is not the inner model's; "
            "expected only parameters of the inner model"
        )
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        raise ValueError(
            f"the inner {kind} has step hooks, which a step that is differentiated does not call; "
            "remove them and do their work between the solver's steps"
        )
    if issubclass(twin, _RuleOptimizer):
        check_supported(optimizer)


def _keeps_another_state(twin: type[DifferentiableOptimizer]) -> bool:
    """Whether a twin is one of `higher`'s own, which were written for the states of a much older torch; but SGD's."""
    return twin.__module__ == higher.optim.__name__ and twin is not higher.optim.DifferentiableSGD


def differentiable(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> DifferentiableOptimizer:
    """A differentiable twin of ``optimizer``, starting from a copy of its state.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        See `check_inner`.
    parameters : sequence of tensor
        The model's own parameters, all of them, in order.

    Raises
    ------
    ValueError
        From `check_inner`.
    """
    check_inner(optimizer, parameters)
    return higher.optim.get_diff_optim(optimizer, list(parameters), track_higher_grads=True)


def apply_update(
    optimizer: DifferentiableOptimizer, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]
) -> list[Tensor]:
    """The optimiser's update alone: φ* = U(φ, g; state), differentiable in ``gradients``.

    `DifferentiableOptimizer.step` computes the gradient itself; the three-part product needs the update by itself,
    for any registered optimiser. Parameters whose gradient is None, and those the optimiser does not hold, stay.
    """
    grouped: list[list[Tensor | None]] = []
    for options, indices in zip(optimizer.param_groups, optimizer._group_to_param_list, strict=True):
        options["params"] = [parameters[i] for i in indices]
        grouped.append([gradients[i] for i in indices])
    optimizer._update(grouped)
    updated = list(parameters)
    for options, indices in zip(optimizer.param_groups, optimizer._group_to_param_list, strict=True):
        for index, parameter in zip(indices, options["params"], strict=True):
            updated[index] = parameter
    return updated


def commit_state(optimizer: torch.optim.Optimizer, twin: DifferentiableOptimizer) -> None:
    """Write the twin's state (moments, step counts) back into the optimiser it was made from, as if it had stepped."""
    for options, states in zip(optimizer.param_groups, twin.state, strict=True):
        for position, parameter in enumerate(options["params"]):
            new = states.get(position)
            if not new:
                continue
            optimizer.state[parameter] = {
                key: value.detach() if isinstance(value, Tensor) else value for key, value in new.items()
            }
    # What `Optimizer.step` tells learning-rate schedulers, which warn if they are stepped before it.
    optimizer._opt_called = True  # type: ignore[attr-defined]


States = list[dict[int, State]]
"""State of every parameter, by its position in each group."""


def states_of(twin: DifferentiableOptimizer) -> States:
    """Copies of a twin's states, detached."""
    return [
        {position: {name: _detached(value) for name, value in state.items()} for position, state in group.items()}
        for group in twin.state
    ]


def load_states(twin: DifferentiableOptimizer, states: States) -> None:
    """Let a twin go on from states of `states_of`, whose tensors it takes as they are."""
    twin.state = [defaultdict(dict, {position: dict(state) for position, state in group.items()}) for group in states]


def moments_of(states: States) -> dict[tuple[int, int, str], Tensor]:
    """What later steps depend on differentiably, by (group, position, name): all floating tensors but step counts."""
    return {
        (index, position, name): value
        for index, group in enumerate(states)
        for position, state in group.items()
        for name, value in state.items()
        if name != "step" and isinstance(value, Tensor) and value.is_floating_point()
    }


def _detached(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value
