"""What the calls of a solver move: saved and restored as one, and put back as one by an error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from metasynth.bilevel.outer_step import Accumulator, CotangentMean, OuterStep
from metasynth.bilevel.patched.buffers import restore
from metasynth.bilevel.patched.outer_state import load_outer_state, outer_buffers, outer_state, restore_outer_buffers
from metasynth.bilevel.problem import Outer, named_outer_parameters


class SolverState:
    """Both levels, both optimisers, and what is remembered from call to call.

    Parameters
    ----------
    model, optimizer, outer, outer_optimizer :
        Those of `BilevelSolver`, held and not copied.
    outer_step : OuterStep
        Says what is averaged.

    Attributes
    ----------
    inner_steps, outer_steps : int
        How many have been committed, from 0.
    cotangents : CotangentMean
        The running mean of v.
    accumulator : Accumulator
        The hypergradients since the last outer step, and the running scale of their norms.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        outer: Outer,
        outer_optimizer: torch.optim.Optimizer,
        outer_step: OuterStep,
    ) -> None:
        self._model, self._optimizer = model, optimizer
        self._outer, self._outer_optimizer = outer, outer_optimizer
        self.inner_steps = 0
        self.outer_steps = 0
        self.cotangents = CotangentMean(outer_step.memory)
        self.accumulator = Accumulator(outer_step, list(named_outer_parameters(outer)))

    @contextmanager
    def unmoved_by_errors(self, buffers: dict[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Within it an error, or an interrupt, puts back what passes move; gives the buffers there were, of both.

        ``buffers`` are copies of the model's, by name, or none where the passes do not run the model itself.
        """
        outers = outer_buffers(self._outer)
        cotangents, accumulated = self.cotangents.state_dict(), self.accumulator.state_dict()
        try:
            yield buffers, outers
        except BaseException:
            if buffers:
                restore(self._model, buffers)
            restore_outer_buffers(self._outer, outers)
            self.cotangents.load_state_dict(cotangents)
            self.accumulator.load_state_dict(accumulated)
            raise

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly, by name."""
        return {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "outer": outer_state(self._outer),
            "outer_optimizer": self._outer_optimizer.state_dict(),
            "accumulator": self.accumulator.state_dict(),
            "cotangents": self.cotangents.state_dict(),
            "inner_steps": self.inner_steps,
            "outer_steps": self.outer_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, in place."""
        self._model.load_state_dict(state["model"])
        _load_optimizer(self._optimizer, state["optimizer"])
        load_outer_state(self._outer, state["outer"])
        _load_optimizer(self._outer_optimizer, state["outer_optimizer"])
        self.accumulator.load_state_dict(state["accumulator"])
        self.cotangents.load_state_dict(state["cotangents"])
        self.inner_steps = int(state["inner_steps"])
        self.outer_steps = int(state["outer_steps"])


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Restore an optimiser's state, with the precision of single numbers in it (NAdam, ASGD), which torch changes."""
    optimizer.load_state_dict(state)
    saved = [state["state"].get(index, {}) for group in state["param_groups"] for index in group["params"]]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter, values in zip(parameters, saved, strict=True):
        for name, value in values.items():
            if isinstance(value, Tensor) and value.dim() == 0:
                held = optimizer.state[parameter][name]
                optimizer.state[parameter][name] = value.detach().clone().to(held.device)
