"""A timed piece of every study's ``paper`` preset, and what the whole would take by it.

A study is carried out as ever, but that of each stage some steps are taken and timed, and not all. Stages that differ
in a number alone, such as the level of noise, are timed once. The cohort is nested balls of the same size, which are
made in a second. The estimate is of trainings: neither tests nor the making of the cohort are in it.
"""

import io
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest import mock

from common.gpu.results import Deadline, OutOfTime, Results
from common.gpu.settings import Settings
from common.gpu.stages import Kinds, RunStage, Timed, time_stage
from common.gpu.steps import free
from common.made_cache import make_cache

from metasynth.running.manifest import make_manifest
from metasynth.running.progress import Progress
from metasynth.running.records import RunFolder
from metasynth.running.seeding import seed_everything
from metasynth.running.settings.config import apply_overrides, to_dict
from metasynth.running.study import Experiment, StudyContext, discover_experiments, load_experiment
from metasynth.training import loop
from metasynth.training.loop import Pace, Stage
from metasynth.training.trainers import Trainer

PRESET = "paper"
ITEMS, SUBJECTS = 60, 20
NO_TRAINING = ("atlas",)
"""Methods of studies that are fitted on the CPU."""
IMAGES, MAPS, OTHER = "images.h5", "maps.h5", "other.h5"


class Piece:
    """What was timed of one study.

    Parameters
    ----------
    study : str
    deadline : Deadline
    results : Results
        Where each kind of stage has a row.
    """

    def __init__(self, study: str, deadline: Deadline, results: Results) -> None:
        self._study, self._deadline, self._results = study, deadline, results
        self._timed: dict[str, Timed] = {}
        self.stages, self.steps_s, self.data_s, self.whole_s = 0, 0.0, 0.0, 0.0

    def run_stage(self, stage: Stage, trainer: Trainer, pace: Pace, context: StudyContext) -> float:
        """Stands for `metasynth.training.loop.run_stage`; it ends with the last step, where checkpoints are chosen."""
        kind, kinds = re.sub(r"[^/=]+=[^/]*/", "", stage.name), Kinds.of(stage)
        first = kind not in self._timed
        if first:
            self._deadline.require()
            self._timed[kind] = time_stage(stage, kinds, trainer, context.device, self._deadline)
        timed = self._timed[kind]
        steps_s, data_s = timed.seconds(kinds, pace.workers)
        self.stages, self.steps_s, self.data_s = self.stages + 1, self.steps_s + steps_s, self.data_s + data_s
        self.whole_s += max(steps_s, data_s)
        if first:
            whole = {"steps": stage.steps, "windows": kinds.windows, "window": kinds.length}
            times = {"steps_h": steps_s / 3600, "data_h": data_s / 3600}
            self._results.add("paper", {"study": self._study, "stage": kind, **whole, **timed.row, **times})
        for record in [*timed.records, *trainer.step(stage.steps - 1, timed.batch)]:
            stage.course.add(record)
        return max(steps_s, data_s)

    def whole(self, workers: int) -> dict[str, Any]:
        """The row of all stages; ``hours`` has of each stage what takes longer, its steps or its data."""
        hours = {"hours": self.whole_s / 3600, "steps_h": self.steps_s / 3600, "data_h": self.data_s / 3600}
        return {"study": self._study, "stages": self.stages, "workers": workers, **hours}


@contextmanager
def standing_for_run_stage(other: RunStage) -> Iterator[None]:
    """A context in which every module has another function for it."""
    original = loop.run_stage
    holders = [m for m in list(sys.modules.values()) if getattr(m, "run_stage", None) is original]
    patches = [mock.patch.object(module, "run_stage", other) for module in holders]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def config_of(experiment: Experiment, smaller: tuple[str, ...], folder: Path) -> Any:
    """The preset's settings, without methods that are no training, and with the caches that a study needs besides."""
    config = experiment.presets[PRESET]
    further = {"cross_contrast": (f"labels={folder / MAPS}", f"tests=other={folder / OTHER}")}
    methods = getattr(config, "methods", ())
    if kept := [name for name in methods if name not in NO_TRAINING]:
        smaller = (*smaller, f"methods={','.join(kept)}")
    own = {field.name for field in fields(config)}
    known = [text for text in smaller if text.partition("=")[0].partition(".")[0] in own]
    return apply_overrides(config, [*known, *further.get(experiment.name, ())])


def carry_out(experiment: Experiment, config: Any, folder: Path, settings: Settings, piece: Piece) -> None:
    """The study, with pieces for its stages, in a folder of its own."""
    progress = Progress(quiet=True, stream=io.StringIO())
    cache = folder.parent / IMAGES
    prepared = experiment.prepare(config, cache, progress)
    others = {name: Path(other.path) for name, other in prepared.others.items()}
    manifest = make_manifest(experiment.name, PRESET, 0, to_dict(config), prepared.described(True))
    with RunFolder.create(folder, manifest) as run, standing_for_run_stage(piece.run_stage):
        seed_everything(0)
        experiment.run(StudyContext(config, PRESET, 0, settings.device, 1, run, cache, False, progress, others))


def measure(settings: Settings, deadline: Deadline, results: Results) -> None:
    """Every study that has the preset, in turn."""
    size = next(one.size for one in settings.images.values() if one.ndim == 2)
    studies = [one for one in map(load_experiment, discover_experiments()) if PRESET in one.presets]
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for name in (IMAGES, MAPS, OTHER):
            make_cache(folder / name, (size, size), ITEMS, SUBJECTS)
        for place, experiment in enumerate(studies):
            share = Deadline(deadline.left / (len(studies) - place))
            piece = Piece(experiment.name, share, results)
            with results.attempt("paper", f"{experiment.name}: the whole"):
                share.require()
                free(settings.device)
                config = config_of(experiment, settings.paper, folder)
                carry_out(experiment, config, folder / experiment.name, settings, piece)
                if not piece.stages:
                    raise OutOfTime("no stage was timed")
                results.add("paper", piece.whole(config.pace.workers))
