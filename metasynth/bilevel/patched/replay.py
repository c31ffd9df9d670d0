"""Evaluating a loss again exactly as it was: the same random draws, starting buffers and modes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.patched.outer_state import outer_buffers, outer_modes, restore_outer_buffers, restore_outer_modes
from metasynth.bilevel.problem import Outer


class Replay:
    """What a pass starts from, noted before it, so that further passes can start from the same.

    Torch's global random states (of the CPU and of the CUDA devices that hold parameters), the buffers of the model,
    and buffers and modes (train or eval) of ``outer`` if it is a module; the model's modes are the same at the start of
    any pass. So dropout drops the same units in every pass, and running statistics move once: those of the first pass
    are the ones to commit.

    Draws from a generator of the user's own, from numpy or from Python's `random` are not replayed; a loss that
    takes its draws from the batch needs none of this.

    Parameters
    ----------
    model : FunctionalModel
        Refreshed, and not run since.
    outer : torch.nn.Module, tensor, or sequence or mapping of tensors
        As handed to the losses.
    parameters : sequence of tensor
        The model's; they tell the devices.
    """

    def __init__(self, model: FunctionalModel, outer: Outer, parameters: Sequence[Tensor]) -> None:
        self._model = model
        self._outer = outer
        self._devices = sorted({p.get_device() for p in parameters if p.is_cuda})
        self._buffers = model.buffers()
        self._outer_modes = outer_modes(outer)
        self._outer_buffers = outer_buffers(outer)
        self._cpu_state = torch.get_rng_state()
        self._cuda_states = [torch.cuda.get_rng_state(device) for device in self._devices]

    @contextmanager
    def again(self) -> Iterator[None]:
        """A context for one more pass; random states and the buffers of ``outer`` are put back after it.

        The buffers of the patched model are left as the pass leaves them: `FunctionalModel.refresh` or
        `FunctionalModel.load_buffers` comes before their next use.
        """
        after, modes = outer_buffers(self._outer), outer_modes(self._outer)
        with torch.random.fork_rng(devices=self._devices):
            torch.set_rng_state(self._cpu_state)
            for device, state in zip(self._devices, self._cuda_states, strict=True):
                torch.cuda.set_rng_state(state, device)
            self._model.load_buffers(self._buffers)
            restore_outer_buffers(self._outer, self._outer_buffers)
            restore_outer_modes(self._outer_modes)
            try:
                yield
            finally:
                restore_outer_buffers(self._outer, after)
                restore_outer_modes(modes)


def require_equal_losses(first: Tensor, again: Tensor, strategy: str, same_start: bool = True) -> None:
    """Insist that a replayed pass gave the loss of the first pass, up to rounding.

    A loss that is not finite is left to the solver, which stops there.

    Parameters
    ----------
    first, again : tensor ()
        The two losses.
    strategy : str
        Named in the message.
    same_start : bool
        Whether both were taken at the same parameters, to the bit.

    Raises
    ------
    ValueError
        If they differ by more than 256 units of rounding, or by a tenth at parameters that are nearly the same.
    """
    a, b = first.detach().double().item(), again.detach().double().item()
    allowed = (min(256 * torch.finfo(first.dtype).eps, 1e-2) if same_start else 0.1) * max(abs(a), abs(b))
    if abs(a - b) > allowed:
        raise irreproducible(a, b, strategy)


def irreproducible(first: float, again: float, strategy: str) -> ValueError:
    """What is raised when a loss does not repeat itself."""
    return ValueError(
        f"inner_loss gave {first:.9g} and, evaluated again for {strategy} with the same random states, {again:.9g}: it "
        "draws random numbers that cannot be replayed; take the draws from the batch"
    )
