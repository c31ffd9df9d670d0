"""The training images that a finished run ended with, as its study makes them again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metasynth.errors import DataError, UsageError
from metasynth.running.manifest import differing, make_manifest, normal, renewed_manifest
from metasynth.running.progress import Progress
from metasynth.running.records import RunFolder
from metasynth.running.request import settings_of
from metasynth.running.settings.config import to_dict
from metasynth.running.study import Experiment, StudyContext, load_experiment
from metasynth.training.sources import LearnedImages


@dataclass(frozen=True)
class RunImages:
    """Training images, and where they come from.

    Attributes
    ----------
    images : LearnedImages
        Whose label maps they are of, and what makes them.
    run : str
        Name of the run's folder.
    experiment, stage : str
        The study, and the part of it.
    seed : int
        The run's.
    """

    images: LearnedImages
    run: str
    experiment: str
    stage: str
    seed: int

    @property
    def origin(self) -> str:
        """Where they come from, in words."""
        return f"experiment {self.experiment}, stage {self.stage}, seed {self.seed}"


def run_images(run: Path, stage: str | None, progress: Progress) -> RunImages:
    """The training images of a run, or of a stage of one that has several.

    Raises
    ------
    UsageError
        The folder holds no finished run or one that has no training images, or there is no such stage.
    DataError
        A file of the run or its data are damaged or were changed.
    RunError
        A checkpoint of it is.
    """
    with RunFolder.open(run) as folder:
        folder.check_finished()
        folder.check()
        experiment = load_experiment(folder.manifest["experiment"])
        if experiment.images is None:
            raise UsageError(f"{run}: a run of {experiment.name!r} has no training images")
        found = experiment.images(_context(experiment, folder, progress))
        if not found:
            raise UsageError(f"{run}: this run has learned nothing about its training images")
        name = _chosen(run, list(found), stage)
        return RunImages(found[name], run.resolve().name, experiment.name, name, folder.manifest["seed"])


def _chosen(run: Path, names: list[str], stage: str | None) -> str:
    if stage is None and len(names) == 1:
        return names[0]
    if stage is None:
        raise UsageError(
            f"{run}: holds training images of {len(names)} stages; choose one with --stage: {', '.join(names)}"
        )
    known = {name: name for name in names} | {name.replace("/", "-"): name for name in names}
    if stage not in known:
        raise UsageError(f"--stage {stage}: {run} has no training images of this stage; it has {', '.join(names)}")
    return known[stage]


def _context(experiment: Experiment, folder: RunFolder, progress: Progress) -> StudyContext:
    """What the study was given, with its data checked to be the same."""
    recorded = folder.manifest
    config: Any = settings_of(folder, type(next(iter(experiment.presets.values()))))
    given, preset, seed = recorded["data"]["given"], recorded["preset"], recorded["seed"]
    prepared = experiment.prepare(config, Path(recorded["data"]["path"]) if given else None, progress)
    manifest = make_manifest(experiment.name, preset, seed, to_dict(config), prepared.described(given))
    changed = differing(renewed_manifest(recorded, config), normal(manifest))
    if changed:
        raise DataError(f"{folder.path}: its data are not what it was made with: {'; '.join(changed)}")
    others = {name: Path(other.path).resolve() for name, other in prepared.others.items()}
    data = Path(prepared.path).resolve()
    # As if it went on: who is for what is taken from its files. Nothing is written.
    return StudyContext(config, preset, seed, "cpu", 1, folder, data, True, progress, others)
