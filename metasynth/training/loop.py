"""A stage of a run: one training from its first step to its last, through kills and resumptions.

The loop composes: data come from a counter-based stream, a trainer takes the steps, records and checkpoints go to
the run's folder. A stage that is resumed continues from its latest checkpoint and gives, bit for bit, what it would
have given uninterrupted; a stage that was finished is only loaded.
"""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from metasynth.errors import RunError
from metasynth.files import first_line
from metasynth.interrupts import check
from metasynth.lines import logger
from metasynth.running.checkpoint import (
    capture_random_states,
    load_checkpoint,
    restore_random_states,
    save_checkpoint,
)
from metasynth.running.integrity.checks import FINAL, LATEST, check_stage
from metasynth.running.records import RunFolder
from metasynth.running.settings.bounds import require_at_least
from metasynth.running.study import StudyContext
from metasynth.training.courses import Course
from metasynth.training.stopping import stopped_in_one_line
from metasynth.training.streams import Part, StepBatch, stream
from metasynth.training.trainers import Trainer

_LOG = logger(__name__)


@dataclass(frozen=True)
class Stage:
    """One training.

    Attributes
    ----------
    name : str
        Unique in the run, such as 'sigma=0.1/learn'; in the records and the checkpoints' folder.
    steps : int
        Its length.
    data : Dataset of StepBatch
        What it is fed: step t's data as item t, such as `metasynth.training.streams.StepData`.
    note : callable
        From a record, the few words shown beside the progress.
    check : callable
        Called with the data before the first step that is taken: ValueError where the steps cannot be taken as they are
        meant. It changes nothing; random states are put back.
    course : Course
        Filled with the values of its outer steps, those of earlier sessions among them.
    """

    name: str
    steps: int
    data: Dataset[StepBatch]
    note: Callable[[dict[str, Any]], str] = lambda record: f"loss {record['inner_loss']:.3f}"
    check: Callable[[Dataset[StepBatch]], None] = lambda data: None
    course: Course = field(default_factory=Course)


@dataclass(frozen=True)
class Pace:
    """How a stage goes on; no result depends on it.

    Attributes
    ----------
    checkpoint_every : int
        Steps from one checkpoint to the next; what falls between steps that are taken as one comes after the last.
    workers : int
        Processes that make the data; 0: the process that trains.
    """

    checkpoint_every: int = 100
    workers: int = 2

    def __post_init__(self) -> None:
        require_at_least(1, checkpoint_every=self.checkpoint_every)
        require_at_least(0, workers=self.workers)


def run_stage(stage: Stage, trainer: Trainer, pace: Pace, context: StudyContext) -> float:
    """Carry a stage out, from where the run's folder says it stands; return the seconds it took in all.

    Raises
    ------
    RunError
        If a loss or gradient is not finite, or a step cannot be taken: with the stage, what was wrong and the last good
        checkpoint. If a checkpoint is damaged or of another stage.
    DataError
        If another program has changed the records meanwhile.
    Interrupted
        Between two steps, if the process was asked to end.
    """
    folder, ranks = context.folder, context.ranks
    alone = ranks.count == 1
    place = folder.checkpoints / stage.name.replace("/", "-")
    finished, latest = place / FINAL, place / LATEST
    if context.resume and finished.is_file():
        seconds = float(_take_up(finished, stage, trainer, folder)["seconds"])  # the next stage goes on from its draws
        stage.course.take_up(folder, stage.name)
        return seconds

    start, seconds = _begin(latest, stage, trainer, folder) if context.resume else (0, 0.0)
    _LOG.info("%s: stage %s from step %d of %d", folder.path, stage.name, start, stage.steps)
    begin = time.perf_counter()

    def save(path: Path, step: int) -> float:
        taken = seconds + time.perf_counter() - begin
        save_checkpoint(
            path,
            {
                "stage": stage.name,
                "step": step,
                "steps": stage.steps,
                "seconds": taken,
                "position": folder.sync(),
                "bound": folder.bound(),
                "trainer": trainer.state_dict(),
                "random": capture_random_states(),
            },
        )
        return taken

    saved: tuple[Path, int] | None = (latest, start) if start else None
    where = f"{folder.path}: stage {stage.name}"
    with stopped_in_one_line(where, _last_good(saved)):
        random = capture_random_states()
        # The same samples in all processes, so that each finds the same and no other waits for it.
        stage.check(stage.data if alone else Part(stage.data, 0, ranks.count))
        restore_random_states(random)
    data = stage.data if alone else Part(stage.data, ranks.rank, ranks.count)
    batches = stream(data, start, stage.steps, pace.workers)
    with context.progress.task(stage.name, stage.steps, done=start) as task, closing(batches):
        for index, batch in enumerate(batches, start=start):
            check()
            with stopped_in_one_line(where, _last_good(saved)):
                records = trainer.step(index, batch.to(context.device))
            before = index + 1 - len(records)
            for step, record in enumerate(records, start=before + 1):
                folder.append({"stage": stage.name, "step": step, **record})
                stage.course.add(record)
                task.advance(note=stage.note(record))
            if (index + 1) // pace.checkpoint_every > before // pace.checkpoint_every and index + 1 < stage.steps:
                save(latest, index + 1)
                saved = (latest, index + 1)
    taken = save(finished, stage.steps)
    latest.unlink(missing_ok=True)
    folder.check_records()
    return taken


def _begin(latest: Path, stage: Stage, trainer: Trainer, folder: RunFolder) -> tuple[int, float]:
    """Steps and seconds of the stage that an earlier session did; records of later steps are cut off."""
    if not latest.is_file():
        folder.truncate(_end_of_finished(folder))
        return 0, 0.0
    state = _take_up(latest, stage, trainer, folder)
    folder.truncate(int(state["position"]))
    stage.course.take_up(folder, stage.name)
    return int(state["step"]), float(state["seconds"])


def _take_up(path: Path, stage: Stage, trainer: Trainer, folder: RunFolder) -> dict[str, Any]:
    """Put trainer and random states back to where a checkpoint of the stage, which is returned, was saved."""
    state = load_checkpoint(path, sealed=folder.sealed)
    check_stage(path, state, stage.name, stage.steps)
    try:
        trainer.load_state_dict(state["trainer"])
        restore_random_states(state["random"])
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(f"{path}: the checkpoint does not fit stage {stage.name} ({first_line(error)})") from error
    return state


def _end_of_finished(folder: RunFolder) -> int:
    """Where the records of the finished stages end."""
    ends = [int(load_checkpoint(path)["position"]) for path in folder.checkpoints.glob(f"*/{FINAL}")]
    return max(ends, default=0)


def _last_good(saved: tuple[Path, int] | None) -> str:
    if saved is None:
        return "no checkpoint of this stage yet"
    return f"last good checkpoint: {saved[0]} (step {saved[1]})"
