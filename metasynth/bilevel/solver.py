"""BilevelSolver: inner step, hypergradient, outer step, commit; for as long as a training lasts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from metasynth.bilevel.checks.finite import require_finite, require_finite_step
from metasynth.bilevel.checks.preflight import preflight
from metasynth.bilevel.copies import deep_copy, picklable_state
from metasynth.bilevel.derivatives import gradient_of, total_norm
from metasynth.bilevel.hypergradient import HypergradientStrategy, check_batches, hypergradient
from metasynth.bilevel.outer_step import OuterStep
from metasynth.bilevel.patched.buffers import BufferPolicy, copies_of, plain_pass
from metasynth.bilevel.patched.functional import FunctionalModel
from metasynth.bilevel.patched.outer_state import tensors_of
from metasynth.bilevel.problem import BilevelProblem, Outer
from metasynth.bilevel.solver_state import SolverState
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.step_report import NonFiniteError, StepReport
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.update.inner_update import InnerUpdate
from metasynth.bilevel.update.outer_optimizer import check_outer, require_held, step_outer

__all__ = ["BilevelSolver", "NonFiniteError"]


class BilevelSolver:
    """Alternates inner steps on a model and outer steps on whatever shapes its training.

    A step takes the inner update, evaluates the outer loss at the updated parameters, differentiates it through
    the update, commits weights, buffers and optimiser state to ``model`` and ``optimizer``, and moves the outer
    parameters. With the outer parameters frozen, N steps equal N steps of the `torch.optim` optimiser itself.

    Parameters
    ----------
    problem : BilevelProblem
    model : torch.nn.Module
        The inner model; its parameters are updated in place.
    optimizer : torch.optim.Optimizer
        The inner optimiser, made on parameters of ``model``: any of `torch.optim` but LBFGS and SparseAdam, or a type
        that you registered with `higher`. Learning-rate schedulers may act on it between steps.
    outer : torch.nn.Module, tensor, or sequence or mapping of tensors
        Holds the outer parameters; passed to both losses as it is.
    outer_optimizer : torch.optim.Optimizer
        Any optimiser that steps without a closure, made on the outer parameters: all that require a gradient.
    strategy : HypergradientStrategy
        How the hypergradient is computed; `Mixed()` by default.
    outer_step : OuterStep
        What is done between the outer pass and the outer optimiser, and when a step is due (`is_due`; the caller
        decides). Nothing by default; `metasynth.bilevel.outer_step.PERSISTENT` is for models trained on and on.
    check : bool
        Run `preflight` before the first hypergradient.
    buffers : BufferPolicy
        What becomes of the model's buffers, the running statistics of normalisations above all, in both kinds of steps.

    Raises
    ------
    ValueError
        If ``outer`` holds nothing to learn (see `named_outer_parameters`), the model cannot be patched (as one made by
        `torch.jit`; what `torch.compile` made is looked through), an optimiser cannot be used (`check_inner` in
        `metasynth.bilevel.update.optimizers`, `check_outer` in `metasynth.bilevel.update.outer_optimizer`), or the
        model or ``outer`` is built otherwise in another process.

    Notes
    -----
    With ``optimizer=InnerUpdate(optimizer, processes=Processes.current())`` several processes train as one, each on its
    own part of every batch (`metasynth.bilevel.processes`). All start from the parameters and buffers of the first,
    make the same calls, report the same means, raise the same `NonFiniteError` and end each call in the same state to
    the last bit: floating-point buffers move by the mean of their changes.

    Between steps a solver can be deep-copied and pickled; the copy goes on as it would (`metasynth.bilevel.copies`).
    """

    def __init__(
        self,
        problem: BilevelProblem,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | InnerUpdate,
        outer: Outer,
        outer_optimizer: torch.optim.Optimizer,
        strategy: HypergradientStrategy | None = None,
        outer_step: OuterStep | None = None,
        check: bool = True,
        buffers: BufferPolicy = "commit",
    ) -> None:
        self.problem = problem
        self.model = model
        self.update = InnerUpdate.of(optimizer)
        self.optimizer = self.update.optimizer
        self.outer = outer
        self.outer_optimizer = outer_optimizer
        self.strategy = strategy or Mixed()
        self.outer_step = outer_step or OuterStep()
        self._functional = FunctionalModel(model, buffers)
        self._state = SolverState(model, self.optimizer, outer, outer_optimizer, self.outer_step)
        self._unchecked = check
        with self.update.processes.together():
            self.update.check(list(model.parameters()))
            check_outer(outer_optimizer, outer)
        self._share()

    @property
    def inner_steps(self) -> int:
        """Inner steps committed so far."""
        return self._state.inner_steps

    @property
    def outer_steps(self) -> int:
        """Outer steps taken so far."""
        return self._state.outer_steps

    @property
    def is_due(self) -> bool:
        """Whether the next step is to be one with a hypergradient, by ``outer_step.warmup`` and ``every``."""
        return self.outer_step.is_due(self.inner_steps)

    def inner_step(self, batch: Any) -> StepReport:
        """A plain training step of the inner model; the outer parameters are read but not differentiated.

        Whatever is raised, model and optimiser are then as they were before the call.

        Raises
        ------
        NonFiniteError
            If the loss or its gradient is not finite.
        ValueError
            If the loss depends on nothing that the optimiser holds, or the update is given hyperparameters or flags
            that it cannot use (see `InnerUpdate.apply`).
        """
        parameters = list(self.model.parameters())
        self.update.check(parameters)
        self._agree()
        with self._state.unmoved_by_errors(copies_of(self.model)) as (buffers, outers):
            with plain_pass(self.model, self._functional.policy):
                value = self.problem.inner_value(self.model, self.outer, batch)
                own = gradient_of(value, parameters)
            gradients, (loss,) = self.update.processes.means(own, [value.detach()])
            require_finite("inner loss", loss, self.inner_steps + 1)
            require_finite("inner gradient", total_norm(gradients), self.inner_steps + 1)
            self.update.step(parameters, gradients, self.outer)
        self.update.processes.average_buffers(self.model, buffers)
        self.update.processes.average_buffers(self.outer, outers)
        self._state.inner_steps += 1
        return StepReport(self.inner_steps, self.outer_steps, (loss.item(),))

    def step(self, inner_batches: Sequence[Any], outer_batch: Any, reference_batch: Any = None) -> StepReport:
        """Take the inner steps, differentiate through them, commit; then an outer step once enough are averaged.

        Whatever is raised, the solver's state is then as it was before the call.

        Parameters
        ----------
        inner_batches : sequence
            As many batches as the strategy unrolls steps (one for `Mixed`).
        outer_batch : any
            Handed to the outer loss.
        reference_batch : any, optional
            A fresh inner batch for the correction described in `metasynth.bilevel.hypergradient.hypergradient`.

        Raises
        ------
        NonFiniteError
            If a loss, the hypergradient or an updated parameter of either level is not finite.
        ValueError
            If the number of inner batches is not the strategy's, the outer optimiser lacks an outer parameter, a loss
            depends on nothing that it should, or the problem cannot be differentiated as stated (from `preflight`, on
            the first call).
        """
        check_batches(self.strategy, inner_batches)
        require_held(self.outer_optimizer, self.outer)
        self._agree()
        self.preflight(inner_batches[0], outer_batch)
        with self._state.unmoved_by_errors({}) as (_, outers):
            inputs = StepInputs(self.problem, self._functional, self.update, self.outer, inner_batches)
            result, taken = hypergradient(
                inputs, outer_batch, self.strategy, reference_batch, self._state.cotangents.add
            )
            norm = require_finite_step(result, taken.parameters, self.inner_steps)
            self.update.processes.average_buffers(self.outer, outers)
            gradients = self._state.accumulator.add(result.gradients)
            if gradients is not None:
                step_outer(self.outer_optimizer, self.outer, gradients, self.inner_steps + len(result.inner_losses))
        # Nothing below can fail, so that both levels have moved or neither.
        self._functional.commit(taken.parameters, taken.buffers)
        self.update.commit(taken.optimizer)
        self._state.inner_steps += len(result.inner_losses)
        self._state.outer_steps += gradients is not None
        return StepReport(
            inner_steps=self.inner_steps,
            outer_steps=self.outer_steps,
            inner_losses=tuple(loss.item() for loss in result.inner_losses),
            outer_loss=result.outer_loss.item(),
            reference_loss=None if result.reference_loss is None else result.reference_loss.item(),
            hypergradient_norm=norm,
            outer_stepped=gradients is not None,
            diagnostics=result.diagnostics,
        )

    def preflight(self, inner_batch: Any, outer_batch: Any) -> None:
        """The checks of `metasynth.bilevel.checks.preflight.preflight`, unless they were made before or are not wanted.

        The first `step` makes them; called here before, on batches like those to come, they are made before anything
        else is done. Nothing changes.

        Raises
        ------
        ValueError
            If the problem cannot be differentiated as stated.
        """
        if not self._unchecked:
            return
        policy = self._functional.policy
        with self.update.processes.together():
            preflight(
                self.problem, self.model, self.update, self.outer, inner_batch, outer_batch, self.strategy, policy
            )
        self._unchecked = False

    def __deepcopy__(self, memo: dict[int, Any]) -> "BilevelSolver":
        return deep_copy(self, memo)

    def __getstate__(self) -> dict[str, Any]:
        return picklable_state(self)

    def _share(self) -> None:
        """Start all processes from the parameters and buffers of the first."""
        self._agreed = False
        self.update.processes.share("model", tensors_of(self.model))
        self.update.processes.share("outer", tensors_of(self.outer))

    def _agree(self) -> None:
        """Before the first step, insist that all processes start it from the same state."""
        if not self._agreed:
            self.update.processes.require_same_state("the state of its solver", self.state_dict)
            self._agreed = True

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly: both levels' parameters and optimisers, counters, accumulators."""
        return self._state.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; model, optimisers and outer must be built as they were.

        Of several processes each loads the same; the next step insists on it.
        """
        self._state.load_state_dict(state)
        self._agreed = False
