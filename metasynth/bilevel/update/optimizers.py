"""Optimisers as differentiable functions: twins of those of `torch.optim`, registered with `higher`.

They apply the rules of `metasynth.bilevel.update.rules`, which are those of `torch.optim` to the last bit;
`higher`'s own Adam adds epsilon elsewhere, its centred RMSprop keeps another state, and of half of them it has none.
"""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import higher
import torch
from higher.optim import DifferentiableOptimizer
from torch import Tensor

from metasynth.bilevel.update.hyperparameters import of_parameter
from metasynth.bilevel.update.rules.adam import adam_update, adamax_update, adamw_update, nadam_update, radam_update
from metasynth.bilevel.update.rules.adaptive import adadelta_update, adagrad_update, rmsprop_update
from metasynth.bilevel.update.rules.arithmetic import Options, Rule, State
from metasynth.bilevel.update.rules.descent import asgd_update, rprop_update, sgd_update
from metasynth.bilevel.update.rules.matrix import adafactor_update, muon_update


class _RuleOptimizer(DifferentiableOptimizer):
    """A `higher` differentiable optimiser that applies an update rule; concrete ones only name the rule."""

    @staticmethod
    @abstractmethod
    def rule(parameter: Tensor, gradient: Tensor, state: State, options: Options) -> tuple[Tensor, State]:
        """The updated parameter and state."""

    def __init__(self, other: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> None:
        check_supported(other)
        super().__init__(other, *args, **kwargs)
        for options in self.param_groups:
            # Adagrad starts from this value of its defaults, whatever a group says.
            options.update({name: other.defaults[name] for name in options if name == "initial_accumulator_value"})

    def _update(self, grouped_grads: list[list[Tensor | None]], **_: Any) -> None:
        for index, (options, grads) in enumerate(zip(self.param_groups, grouped_grads, strict=True)):
            for position, (parameter, gradient) in enumerate(zip(options["params"], grads, strict=True)):
                if gradient is None:
                    continue
                own = {name: of_parameter(value, position) for name, value in options.items() if name != "params"}
                options["params"][position], self.state[index][position] = self.rule(
                    parameter, gradient, self.state[index][position], own
                )


RULES: dict[type[torch.optim.Optimizer], Rule] = {
    torch.optim.SGD: sgd_update,
    torch.optim.Adam: adam_update,
    torch.optim.AdamW: adamw_update,
    torch.optim.RMSprop: rmsprop_update,
    torch.optim.Adagrad: adagrad_update,
    torch.optim.Adadelta: adadelta_update,
    torch.optim.Adamax: adamax_update,
    torch.optim.NAdam: nadam_update,
    torch.optim.RAdam: radam_update,
    torch.optim.ASGD: asgd_update,
    torch.optim.Rprop: rprop_update,
    torch.optim.Adafactor: adafactor_update,
    torch.optim.Muon: muon_update,
}
"""The optimisers that have a twin, each with the rule that it applies."""

for _kind, _rule in RULES.items():
    _doc = f"Differentiable twin of `torch.optim.{_kind.__name__}`; finite at dead units."
    _members = {"rule": staticmethod(_rule), "__doc__": _doc, "__module__": __name__}
    higher.register_optim(_kind, type(f"Differentiable{_kind.__name__}", (_RuleOptimizer,), _members))

_REFUSED = {
    torch.optim.LBFGS: "it evaluates the loss again within a step, whose derivative would be that of a line search",
    torch.optim.SparseAdam: "it takes sparse gradients alone, and those that can be differentiated are dense",
}
_UNSUPPORTED_FLAGS = ("capturable", "differentiable", "fused")
_OTHER_BY_FOREACH = (torch.optim.NAdam, torch.optim.RAdam, torch.optim.ASGD, torch.optim.Adafactor)
"""Those that round otherwise with ``foreach``, which torch chooses by itself on a GPU, but for Adafactor."""


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
        if isinstance(optimizer, _OTHER_BY_FOREACH) and _is_foreach(optimizer, options):
            raise ValueError(
                f"{kind}(foreach={options['foreach']}) rounds otherwise than the step that is differentiated; expected "
                "foreach=False"
            )
        for name, value in options.items():
            if isinstance(value, Tensor):
                raise ValueError(f"{kind}({name}=...) must be a number, got a tensor")
            if name != "params" and isinstance(value, tuple | list) and any(isinstance(v, Tensor) for v in value):
                raise ValueError(f"{kind}({name}=...) must be two numbers, got a tensor")
        if any(p.is_complex() for p in options["params"]):
            raise ValueError(f"the inner {kind} holds a complex parameter; expected real ones")


def _is_foreach(optimizer: torch.optim.Optimizer, options: Options) -> bool:
    """Whether steps on a group are taken on all its parameters at once; None leaves that to where they are."""
    given = options["foreach"]
    by_itself = not isinstance(optimizer, torch.optim.Adafactor) and any(p.is_cuda for p in options["params"])
    return by_itself if given is None else given


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
        If it is no optimiser, of a type without a twin, has step hooks, flags that its twin does not honour, or
        parameters that are not the model's.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(f"the inner optimiser must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
    kind, twin = type(optimizer).__name__, higher.optim._opt_mapping.get(type(optimizer))
    if twin is None:
        known = ", ".join(one.__name__ for one in RULES)
        why = f" ({_REFUSED[type(optimizer)]})" if type(optimizer) in _REFUSED else ""
        raise ValueError(
            f"no differentiable twin of {kind} is registered{why}; expected {known} or a type added with "
            "higher.register_optim"
        )
    owned = {id(p) for p in parameters}
    if any(id(p) not in owned for options in optimizer.param_groups for p in options["params"]):
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
