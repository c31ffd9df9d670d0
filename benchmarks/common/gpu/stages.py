"""A stage of a study in a few of its steps: what each kind of step takes, and the whole of it by that.

Data are made for an eighth of a batch, which is then repeated: making them takes in proportion, and longer than a step.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from common.gpu.results import Deadline
from common.gpu.steps import seconds_of

from metasynth.bilevel.batches import take_samples
from metasynth.running.study import StudyContext
from metasynth.training.loop import Pace, Stage
from metasynth.training.selection import PeakMemory
from metasynth.training.sources import Example
from metasynth.training.streams import StepBatch
from metasynth.training.trainers import Trainer

MADE = 8
"""Of so many examples of a batch one is made."""
HYPERGRADIENTS_COST = 5
"""Plain steps that a step of a window is certain to be worth where it is asked whether there is time for one."""


@dataclass(frozen=True)
class Kinds:
    """How many steps of each kind a stage has: plain ones, and windows of some steps that end in a hypergradient.

    Attributes
    ----------
    plain, windows, length : int
        Plain steps; windows; the steps of a window.
    due : int or None
        The last step (from 0) of the first window; None: there is none.
    """

    plain: int
    windows: int
    length: int
    due: int | None

    @classmethod
    def of(cls, stage: Stage) -> "Kinds":
        """Those of a stage, by its data."""
        is_due, window_end = getattr(stage.data, "is_due", None), getattr(stage.data, "window_end", None)
        due = [step for step in range(stage.steps) if is_due and is_due(step)]
        if not due:
            return cls(stage.steps, 0, 0, None)
        length = 1 if window_end is None else sum(window_end(step) == due[0] for step in range(due[0] + 1))
        return cls(stage.steps - length * len(due), len(due), length, due[0])


@dataclass(frozen=True)
class Timed:
    """What was measured of a stage, and what another of its kind goes on with.

    Attributes
    ----------
    row : dict
        ``plain_s``, ``window_s``: a step, a window, without their data; ``plain_data_s``, ``due_data_s``: the data of a
        plain step and of one with a hypergradient, by one process on one core; ``peak_mib`` on the device.
    batch : StepBatch
        Of a plain step, on the device.
    records : list of dict
        Of the window.
    """

    row: dict[str, Any]
    batch: StepBatch
    records: list[dict[str, Any]]

    def seconds(self, kinds: Kinds, workers: int) -> tuple[float, float]:
        """Of a whole stage: what its steps take, and what its data take where ``workers`` processes make them."""
        row, others = self.row, kinds.windows * max(0, kinds.length - 1)
        steps = kinds.plain * row["plain_s"] + kinds.windows * (row["window_s"] or 0.0)
        data = (kinds.plain + others) * row["plain_data_s"] + kinds.windows * (row["due_data_s"] or 0.0)
        return steps, data / max(1, workers)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _data(stage: Stage, step: int) -> tuple[StepBatch, float]:
    """The data of a step, and the seconds that one core takes to make them."""
    data: Any = stage.data
    inner, outer = data.batch_size, data.outer_batch_size
    few = replace(data, batch_size=max(1, inner // MADE), outer_batch_size=max(1, outer // MADE))
    with _one_thread():
        start = time.perf_counter()
        made = few[step]
        seconds = (time.perf_counter() - start) * inner / few.batch_size
    sizes = ((made.inner, inner), (made.outer, outer), (made.reference, outer))
    return StepBatch(*(None if part is None else _repeated(part, size) for part, size in sizes)), seconds


def _repeated(part: Example, size: int) -> Example:
    """Its examples again and again, until there are so many."""
    repeated: Example = take_samples(part, torch.arange(size) % len(part.labels))
    return repeated


def time_stage(stage: Stage, kinds: Kinds, trainer: Trainer, device: str, deadline: Deadline) -> Timed:
    """Two plain steps, and two windows (one, of several steps), of which the last ones count.

    Raises
    ------
    OutOfTime
        There is no time for what is to come.
    """
    memory = PeakMemory(device)
    made, plain_data = _data(stage, 0)
    batch = made._replace(outer=None, reference=None).to(device)
    trainer.step(0, batch)
    plain = seconds_of(lambda: trainer.step(0, batch), device)
    window, due_data, records = None, None, []
    if kinds.due is not None:
        made, due_data = _data(stage, kinds.due)
        given = made.to(device)
        deadline.require(HYPERGRADIENTS_COST * kinds.length * plain, "a window")
        for _ in range(2 if kinds.length == 1 else 1):
            window = seconds_of(lambda: records.extend(_window(trainer, kinds, given)), device)
    row = {
        "plain_s": plain,
        "window_s": window,
        "plain_data_s": plain_data,
        "due_data_s": due_data,
        "peak_mib": memory.mib(),
    }
    return Timed(row, batch, records)


def _window(trainer: Trainer, kinds: Kinds, given: StepBatch) -> list[dict[str, Any]]:
    """All steps of the first window, each on the same inner examples."""
    assert kinds.due is not None
    for step in range(kinds.due - kinds.length + 1, kinds.due):
        trainer.step(step, given._replace(outer=None, reference=None))
    return trainer.step(kinds.due, given)


RunStage = Callable[[Stage, Trainer, Pace, StudyContext], float]
"""As `metasynth.training.loop.run_stage`."""
