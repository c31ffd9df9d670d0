"""What is kept, shared and put back of whatever holds the outer parameters."""

from typing import Any

from torch import Tensor, nn

from metasynth.bilevel.patched.buffers import copies_of, restore
from metasynth.bilevel.problem import Outer, named_outer_parameters


def outer_state(outer: Outer) -> dict[str, Any]:
    """The state of a module, or copies of the learned tensors of another container, by name."""
    if isinstance(outer, nn.Module):
        return dict(outer.state_dict())
    return {name: tensor.detach().clone() for name, tensor in named_outer_parameters(outer).items()}


def load_outer_state(outer: Outer, state: dict[str, Any]) -> None:
    """Restore, in place, what `outer_state` gave; ValueError unless it names the learned tensors."""
    if isinstance(outer, nn.Module):
        outer.load_state_dict(state)
        return
    learned = named_outer_parameters(outer)
    if learned.keys() != state.keys():
        raise ValueError(f"outer state must name {sorted(learned)}, got {sorted(state)}")
    for name, tensor in learned.items():
        tensor.data.copy_(state[name])


def tensors_of(outer: Outer) -> dict[str, Tensor]:
    """All parameters and buffers of a module, or the learned tensors of another container, by name."""
    if isinstance(outer, nn.Module):
        return {**dict(outer.named_parameters()), **dict(outer.named_buffers())}
    return named_outer_parameters(outer)


def outer_buffers(outer: Outer) -> dict[str, Tensor]:
    """Copies of the buffers, by name; none where there is no module."""
    return copies_of(outer) if isinstance(outer, nn.Module) else {}


def restore_outer_buffers(outer: Outer, buffers: dict[str, Tensor]) -> None:
    """Write back what `outer_buffers` gave."""
    if isinstance(outer, nn.Module):
        restore(outer, buffers)


def outer_modes(outer: Outer) -> list[tuple[nn.Module, bool]]:
    """Every module in it and whether it is in train mode; none where there is no module."""
    return [(m, m.training) for m in outer.modules()] if isinstance(outer, nn.Module) else []


def restore_outer_modes(modes: list[tuple[nn.Module, bool]]) -> None:
    """Set what `outer_modes` gave."""
    for module, mode in modes:
        module.training = mode
