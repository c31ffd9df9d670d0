"""What takes the steps of a stage: plain training of a segmenter, and the bilevel training of Learn2Synth."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from metasynth.bilevel.checks.finite import require_finite
from metasynth.bilevel.derivatives import total_norm
from metasynth.bilevel.patched.buffers import copies_of, restore
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.processes.processes import Processes
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.step_report import StepReport
from metasynth.training.reach import constrained_in, within_reach
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.settings import OuterSettings
from metasynth.training.sources import Example
from metasynth.training.streams import StepBatch


class Trainer(Protocol):
    """Takes steps and can be saved, wherever the steps that it was given are taken."""

    def step(self, index: int, batch: StepBatch) -> list[dict[str, Any]]:
        """Take step ``index`` (from 0) and return what to record; NonFiniteError or ValueError if none can be taken.

        A trainer may take several steps as one. Then it keeps what it is given for all but the last, returning nothing;
        with the last it returns a record of each of them, in order.
        """

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""


class Supervised:
    """Plain training of a segmenter on finished images (the baselines)."""

    def __init__(self, segmenter: nn.Module, settings: SegmenterSettings, processes: Processes | None = None) -> None:
        self.segmenter = segmenter
        self._processes = processes or Processes()
        self._optimizer = settings.optimizer(segmenter)
        self._settings = settings
        _, loss = bilevel_losses(settings, processes=self._processes)  # that on images as they are
        self._problem = BilevelProblem(loss, loss, settings.autocast_dtype)

    def step(self, index: int, batch: StepBatch) -> list[dict[str, Any]]:
        """One step of Adam on the loss of the inner examples; if it cannot be taken, all is as it was."""
        buffers = copies_of(self.segmenter)
        try:
            loss = self._problem.inner_value(self.segmenter, None, batch.inner)
            mean = differentiate(loss, self._optimizer, index + 1, self._processes)
        except BaseException:
            restore(self.segmenter, buffers)
            raise
        _set_rate(self._optimizer, [self._settings.lr], self._settings.rate_at(index))
        self._optimizer.step()
        self._processes.average_buffers(self.segmenter, buffers)
        return [{"inner_loss": mean.item()}]

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimiser."""
        return {"model": self.segmenter.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        self.segmenter.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])


class Window:
    """The inner examples of a hypergradient's window, kept until its last step comes.

    Parameters
    ----------
    outer : OuterSettings
        Says which steps wait for others.
    steps : int
        Of the whole training.
    """

    def __init__(self, outer: OuterSettings, steps: int) -> None:
        self._outer, self._steps = outer, steps
        self._kept: list[Example] = []

    def add(self, index: int, inner: Example) -> list[Example]:
        """Those of all steps that are now to be taken, of step ``index`` (from 0) last; none while it waits."""
        self._kept.append(inner)
        if self._outer.waits(index, self._steps):
            return []
        due, self._kept = self._kept, []
        return due


def records_of(report: StepReport) -> list[dict[str, Any]]:
    """A record of each inner step of a call, with its loss; the last has the other losses and the norm, if any."""
    records: list[dict[str, Any]] = [{"inner_loss": loss} for loss in report.inner_losses]
    for name in ("outer_loss", "reference_loss", "hypergradient_norm"):
        value = getattr(report, name)
        if value is not None:
            records[-1][name] = value
    return records


class Bilevel:
    """Training of a segmenter whose augmenter learns from real examples (Learn2Synth).

    Parameters
    ----------
    solver : BilevelSolver
    inner : SegmenterSettings
        Learning rate of the inner level over time. Within the window of a hypergradient it is held at that of the
        window's first step, as the steps of a window are one call of the solver.
    outer : OuterSettings
        That of the outer level.
    observe : callable
        Gives the outer parameters to record, by name.
    """

    def __init__(
        self,
        solver: BilevelSolver,
        inner: SegmenterSettings,
        outer: OuterSettings,
        observe: Callable[[], dict[str, float]],
    ) -> None:
        self.solver = solver
        self._inner = inner
        self._outer = outer
        self._observe = observe
        self._window = Window(outer, inner.steps)
        self._rates = [group["lr"] for group in solver.outer_optimizer.param_groups]
        self._constrained = constrained_in(solver.outer) if isinstance(solver.outer, nn.Module) else {}
        self._device = str(next(solver.model.parameters()).device)

    def check(self, data: Dataset[StepBatch]) -> None:
        """Require, on the data of the first step that takes a hypergradient, that one can be taken; nothing changes."""
        batch = data[self._outer.first_due].to(self._device)
        self.solver.preflight(batch.inner, batch.outer)

    def step(self, index: int, batch: StepBatch) -> list[dict[str, Any]]:
        """A plain inner step, or those of a window with a hypergradient where the batch brings real examples."""
        inner = self._window.add(index, batch.inner)
        if not inner:
            return []
        _set_rate(self.solver.optimizer, [self._inner.lr], self._inner.rate_at(index + 1 - len(inner)))
        if batch.outer is None:
            return records_of(self.solver.inner_step(*inner))
        _set_rate(self.solver.outer_optimizer, self._rates, self._outer.rate_at(index))
        with within_reach(self._constrained, "outer.lr"):
            report = self.solver.step(inner, batch.outer, batch.reference)
        records = records_of(report)
        if report.outer_stepped:
            records[-1] |= {"outer_step": report.outer_steps, **self._observe()}
        return records

    def state_dict(self) -> dict[str, Any]:
        """The solver's."""
        return self.solver.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self.solver.load_state_dict(state)


def differentiate(loss: Tensor, optimizer: Optimizer, step: int, processes: Processes | None = None) -> Tensor:
    """Give what an optimiser holds the gradient of a loss, by which a plain step can be taken; none is left otherwise.

    Parameters
    ----------
    loss : Tensor
        A scalar.
    optimizer : torch.optim.Optimizer
        Gradients of an earlier step are dropped.
    step : int
        The number of the step, from 1, to be named.
    processes : Processes or None
        Those over which loss and gradient are averaged.

    Returns
    -------
    Tensor ()
        The loss, detached.

    Raises
    ------
    NonFiniteError
        If the loss or its gradient is not finite.
    ValueError
        If the loss depends on nothing that the optimiser holds.
    """
    optimizer.zero_grad(set_to_none=True)
    processes = processes or Processes()
    (mean,) = processes.means([], [loss.detach()])[1]
    require_finite("loss", mean, step)  # in all processes, before any waits for the others' gradients
    try:
        if loss.requires_grad:
            loss.backward()
        held = [p for group in optimizer.param_groups for p in group["params"]]
        for parameter, gradient in zip(held, processes.mean([p.grad for p in held]), strict=True):
            parameter.grad = gradient
        gradients = [p.grad for p in held if p.grad is not None]
        if not gradients:
            raise ValueError(
                f"the loss depends on no parameter that the {type(optimizer).__name__} holds, so the step would move "
                "nothing; it may be detached, or evaluated under torch.no_grad"
            )
        require_finite("gradient", total_norm(gradients), step)
    except BaseException:
        optimizer.zero_grad(set_to_none=True)
        raise
    return mean


def _set_rate(optimizer: Optimizer, rates: Sequence[float], factor: float) -> None:
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor


def bilevel_losses(
    settings: SegmenterSettings, real: SegmenterSettings | None = None, processes: Processes | None = None
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The two losses of Learn2Synth (Eqs 1 and 3) for examples and any augmenter ``augmenter(given, draws)``.

    ``real`` says what the loss of real examples is, where it is another. The mean over the ``processes`` that share a
    batch is its loss.
    """
    over = {"total": processes.total} if processes is not None and processes.count > 1 else {}

    def inner_loss(segmenter: nn.Module, augmenter: nn.Module, example: Example) -> Any:
        return settings.loss_of(segmenter(augmenter(example.given, example.draws)), example.labels, **over)

    def outer_loss(segmenter: nn.Module, augmenter: nn.Module, example: Example) -> Any:
        return (real or settings).loss_of(segmenter(example.images), example.labels, **over)

    return inner_loss, outer_loss
