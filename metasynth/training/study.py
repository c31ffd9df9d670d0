"""What an experiment is, how it is found, and how one is carried out from settings to results.

An experiment is one module with an ``Experiment`` and one entry point in the group ``metasynth.experiments``;
another package may register its own.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from metasynth.errors import MetasynthError, RunError, UsageError
from metasynth.schema import Schema
from metasynth.training.config import apply_overrides, field_types, nearest, to_dict
from metasynth.training.device import configure_torch
from metasynth.training.environment import describe_environment
from metasynth.training.grid_folder import GridFolder
from metasynth.training.lock import is_claimed_only
from metasynth.training.manifest import PACE, make_manifest
from metasynth.training.prepared import PreparedData
from metasynth.training.progress import Progress
from metasynth.training.records import CONFIG, RESULTS, RunFolder, refuse_taken
from metasynth.training.request import Request, settings_of
from metasynth.training.run_files import check_files
from metasynth.training.seeding import seed_everything
from metasynth.training.stopping import stopped_in_one_line

_LOG = logging.getLogger(__name__)

GROUP = "metasynth.experiments"


def built_in(path: Path, data: Path | None) -> PreparedData:
    """For the ``prepare`` of a study that needs no cache.

    Args:
        path: the file that its data are in, or the module that draws them.
        data: what the user named.

    Raises:
        UsageError: the user named a cache.

    """
    if data is not None:
        raise UsageError(f"--data {data}: this experiment has its own data; leave --data out")
    return PreparedData(path, hashlib.sha256(path.read_bytes()).hexdigest())


@dataclass(frozen=True)
class StudyContext:
    """Everything a run is given.

    Attributes:
        config: the settings, a frozen dataclass of the experiment.
        preset: the name of the preset they started from.
        seed: the seed of every random draw.
        device: 'cpu', 'cuda' or 'cuda:N'.
        threads: CPU threads of torch.
        folder: where records go; open for writing.
        data: the cache.
        resume: whether the folder may hold checkpoints and metrics of an earlier session.
        progress: where to say how far the work is.
        others: the further caches, as in ``PreparedData``.

    """

    config: Any
    preset: str
    seed: int
    device: str
    threads: int
    folder: RunFolder
    data: Path
    resume: bool
    progress: Progress
    others: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A study: its question and how it is answered.

    Attributes:
        name: as in ``metasynth run NAME``.
        question: one line.
        presets: settings by the name of the preset; all of one frozen dataclass.
        prepare: (config, cache named by the user or None, progress) -> the cache to use; called before the
            folder is made.
        run: does the work and returns ``{"rows": [{...}], "reference": {...}}``.
        report: reads a finished folder and returns a ``metasynth.report.html.ReportContent``.
        grid_report: the same of a grid of runs; without it, every number of the rows is summarised over seeds.
        contents: what the reports read of a run's files beyond what all runs have, by the files' names.
        check_sizes: (config, what ``prepare`` gave, folder); raises a UsageError if the machine cannot hold the run.
        check: (config, what ``prepare`` gave, seed) -> raises, before the folder is made, if that seed will not do.

    """

    name: str
    question: str
    presets: Mapping[str, Any]
    prepare: Callable[[Any, Path | None, Progress], PreparedData]
    run: Callable[[StudyContext], dict[str, Any]]
    report: Callable[[RunFolder], Any]
    grid_report: Callable[[GridFolder], Any] | None = None
    contents: Mapping[str, Schema] = field(default_factory=dict)
    check_sizes: Callable[[Any, PreparedData, Path], None] = lambda config, prepared, out: None
    check: Callable[[Any, PreparedData, int], object] | None = None


def discover_experiments() -> dict[str, EntryPoint]:
    """The registered experiments by name, sorted; none is imported."""
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


def load_experiment(name: str) -> Experiment:
    """Import an experiment.

    Raises:
        UsageError: no experiment has that name (the nearest and the list are given).
        RunError: its module cannot be imported, or gives something else than an ``Experiment``.

    """
    found = discover_experiments()
    if name not in found:
        hint = nearest(name, found)
        every = f" (experiments: {', '.join(found)})" if hint.startswith("did") else ""
        raise UsageError(f"unknown experiment {name!r}: {hint}{every}")
    try:
        experiment = found[name].load()
    except (MetasynthError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit too: a module that ends its process must not end this one
        reason = f"{type(error).__name__}: {error}"
        raise RunError(f"experiment {name!r} ({found[name].value}) cannot be loaded: {reason}") from error
    if not isinstance(experiment, Experiment):
        raise RunError(f"experiment {name!r} ({found[name].value}) is a {type(experiment).__name__}, no Experiment")
    return experiment


def execute(
    experiment: Experiment,
    out: Path | str,
    *,
    preset: str | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    data: Path | None = None,
    labels: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    threads: int | None = None,
    quiet: bool = False,
) -> RunFolder:
    """Carry out an experiment in the folder ``out`` and write its results and report.

    Without ``preset`` and ``seed`` a new run takes 'quick' and 0, and a resumed one what it was started with
    (its overrides and its caches too, when none are given but of its pace). A run that has finished is only reported
    again.
    ``labels`` is the setting of that name, for experiments that take label maps from a cache of their own.

    Raises:
        UsageError: a setting, the folder or the device cannot be used.
        DataError: the cache cannot be used.
        RunError: the work could not go on.

    """
    earlier = RunFolder.open(out) if resume and not is_claimed_only(Path(out)) else None
    if earlier is not None and earlier.manifest["experiment"] != experiment.name:
        raise UsageError(f"{out}: holds a run of {earlier.manifest['experiment']!r}, not of {experiment.name!r}")
    asked = Request(preset, seed, data, device, threads)
    if not resume:
        refuse_taken(Path(out))  # before the data are prepared, which may take minutes
    elif earlier is None and asked.is_open and not overrides and labels is None:
        raise UsageError(f"{out}: holds no run ({CONFIG} is missing); leave --resume out to begin one")
    settled = asked if earlier is None else asked.completed_by(earlier)
    preset = "quick" if settled.preset is None else settled.preset
    start = preset_settings(experiment, preset)
    if earlier is not None and asked.preset is None and all(text.startswith(PACE) for text in overrides):
        start = settings_of(earlier, type(start))
    config = apply_overrides(start, overrides)
    if labels is not None:
        config = apply_overrides(config, [labels_override(experiment, preset, labels)])
    device, threads = configure_torch(settled.device, settled.threads)
    progress = Progress(quiet)
    prepared = experiment.prepare(config, settled.data, progress)
    experiment.check_sizes(config, prepared, Path(out))
    seed = settled.seed or 0
    if experiment.check:
        experiment.check(config, prepared, seed)
    place = Path(prepared.path).resolve()
    others = {name: Path(other.path).resolve() for name, other in prepared.others.items()}
    manifest = make_manifest(experiment.name, preset, seed, to_dict(config), prepared.described(bool(settled.data)))
    make = RunFolder.resume if resume else RunFolder.create
    with make(out, manifest, describe_environment(device, threads)) as folder:
        if folder.finished:
            progress.say(f"{folder.path}: the run has finished; its report is written again")
        else:
            _LOG.info("%s: %s, preset %s, seed %d", folder.path, experiment.name, preset, seed)
            _LOG.info("%s: on %s with %d threads, data %s", folder.path, device, threads, place)
            context = StudyContext(config, preset, seed, device, threads, folder, place, resume, progress, others)
            _run(experiment, context)
        write_run_report(experiment, folder)
    return folder


def _run(experiment: Experiment, context: StudyContext) -> None:
    start = time.perf_counter()
    seed_everything(context.seed)
    with stopped_in_one_line(f"{context.folder.path}: {experiment.name}"):
        outcome = experiment.run(context)
    results = {
        "experiment": experiment.name,
        "preset": context.preset,
        "seed": context.seed,
        "device": context.device,
        "wall_s": round(context.folder.earlier_wall_s() + time.perf_counter() - start, 3),
        "rows": outcome["rows"],
        "reference": outcome.get("reference", {}),
    }
    context.folder.sync()
    context.folder.write_json(RESULTS, results)


def write_run_report(experiment: Experiment, folder: RunFolder) -> None:
    """Write the tables, figures and page of a finished run.

    Raises:
        UsageError: it has no results.
        DataError: a file of it is damaged or of another run.

    """
    from metasynth.report.html import write_report  # matplotlib is needed here only

    folder.check_finished()
    check_files(folder, experiment.contents)
    content = experiment.report(folder)
    folder.check()  # last, as the others can say more of a damaged file
    write_report(folder, content)


def labels_override(experiment: Experiment, preset: str, labels: Path) -> str:
    """The override that ``--label-cache`` stands for; UsageError if the experiment takes no such cache."""
    if "labels" not in field_types(type(preset_settings(experiment, preset))):
        raise UsageError(f"--label-cache {labels}: experiment {experiment.name!r} takes no label maps of their own")
    return f"labels={labels.resolve()}"


def preset_settings(experiment: Experiment, name: str) -> Any:
    """The settings of a preset; UsageError if there is none of that name."""
    if name not in experiment.presets:
        hint = nearest(name, experiment.presets)
        every = f" (presets: {', '.join(experiment.presets)})" if hint.startswith("did") else ""
        raise UsageError(f"experiment {experiment.name!r} has no preset {name!r}: {hint}{every}")
    return experiment.presets[name]
