"""What inner steps are taken from: handed to every strategy, and to whatever checks one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.problem import BilevelProblem, Outer, named_outer_parameters
from metasynth.bilevel.update.inner_update import InnerUpdate


@dataclass(frozen=True)
class StepInputs:
    """What inner steps are taken from.

    Attributes
    ----------
    problem : BilevelProblem
        Its inner loss is what the steps lower.
    model : FunctionalModel
        Its own model has the parameters φ and buffers that the steps start from, and is not changed by them.
    update : InnerUpdate
        The inner optimiser, with what is around it. An optimiser alone is ``InnerUpdate(optimizer)``.
    outer : torch.nn.Module, tensor, or sequence or mapping of tensors
        Holds the outer parameters θ; handed to the losses as it is.
    batches : sequence
        One inner batch for each step, in order; whatever the inner loss takes.

    Raises
    ------
    ValueError
        If ``model`` or ``update`` is of another type, such as the user's own model or optimiser.
    """

    problem: BilevelProblem
    model: FunctionalModel
    update: InnerUpdate
    outer: Outer
    batches: Sequence[Any]

    def __post_init__(self) -> None:
        for name, kind, said in (
            ("model", FunctionalModel, "a FunctionalModel, as FunctionalModel(model) makes it"),
            ("update", InnerUpdate, "an InnerUpdate, as InnerUpdate(optimizer) makes it"),
        ):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise ValueError(f"{name} must be {said}, got {type(value).__name__}")

    @property
    def learned(self) -> dict[str, Tensor]:
        """The learned outer parameters, by name; see `named_outer_parameters` for what is raised."""
        return named_outer_parameters(self.outer)

    def inner_loss(self, parameters: Sequence[Tensor], batch: Any) -> Tensor:
        """L_inner(φ, θ) on a batch, with its graph.

        Parameters
        ----------
        parameters : sequence of tensor
            φ, one per parameter of ``model.model``, in their order and shapes.
        batch : any
            Handed to the inner loss.

        Returns
        -------
        tensor ()

        Raises
        ------
        ValueError
            If the loss is no scalar.
        """
        return self.problem.inner_value(self.model.bind(parameters), self.outer, batch)
