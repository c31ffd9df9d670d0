"""What an experiment is, how it is found, and how one is carried out from settings to results.

An experiment is one module with an ``Experiment`` and one entry point in the group ``metasynth.experiments``;
another package may register its own.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from metasynth.errors import UsageError
from metasynth.plugins import load_declared
from metasynth.running.grid_folder import GridFolder
from metasynth.running.prepared import PreparedData
from metasynth.running.progress import Progress
from metasynth.running.ranks.ranks import ALONE, Ranks
from metasynth.running.records import RunFolder
from metasynth.running.settings.config import nearest
from metasynth.schema import Schema

GROUP = "metasynth.experiments"


def built_in(path: Path, data: Path | None) -> PreparedData:
    """For the ``prepare`` of a study that needs no cache.

    Parameters
    ----------
    path : Path
        The file that its data are in, or the module that draws them.
    data : Path or None
        What the user named.

    Raises
    ------
    UsageError
        The user named a cache.
    """
    if data is not None:
        raise UsageError(f"--data {data}: this experiment has its own data; leave --data out")
    return PreparedData(path, hashlib.sha256(path.read_bytes()).hexdigest())


@dataclass(frozen=True)
class StudyContext:
    """Everything a run is given.

    Attributes
    ----------
    config : Any
        The settings, a frozen dataclass of the experiment.
    preset : str
        The name of the preset they started from.
    seed : int
        The seed of every random draw.
    device : str
        'cpu', 'cuda' or 'cuda:N'.
    threads : int
        CPU threads of torch.
    folder : RunFolder
        Where records go; open for writing.
    data : Path
        The cache.
    resume : bool
        Whether the folder may hold checkpoints and metrics of an earlier session.
    progress : Progress
        Where to say how far the work is.
    others : mapping of str to Path
        The further caches, as in ``PreparedData``.
    ranks : Ranks
        Which of the processes that carry the run out this one is.
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
    ranks: Ranks = ALONE


@dataclass(frozen=True)
class Experiment:
    """A study: its question and how it is answered.

    Attributes
    ----------
    name : str
        As in ``metasynth run NAME``.
    question : str
        One line.
    presets : mapping
        Settings by the name of the preset; all of one frozen dataclass.
    prepare : callable
        (config, cache named by the user or None, progress) -> the cache to use; called before the folder is made.
    run : callable
        Does the work and returns ``{"rows": [{...}], "reference": {...}}``.
    report : callable
        Reads a finished folder and returns a ``metasynth.report.html.ReportContent``.
    grid_report : callable or None
        The same of a grid of runs; without it, every number of the rows is summarised over seeds.
    contents : mapping of str to Schema
        What the reports read of a run's files beyond what all runs have, by the files' names.
    check_sizes : callable
        (config, what ``prepare`` gave, folder); raises a UsageError if the machine cannot hold the run.
    check : callable or None
        (config, what ``prepare`` gave, seed) -> raises, before the folder is made, if that seed will not do.
    images : callable or None
        From a finished run, whose folder is open for reading, the training images that it ended with: a
        `metasynth.training.sources.LearnedImages` by the name of each stage that has some. None: it makes none.
    batches : callable or None
        config -> the sizes of the batches that its processes share, by the settings' names, where torchrun may start
        several; None: it is for a single process.
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
    images: Callable[[StudyContext], Mapping[str, Any]] | None = None
    batches: Callable[[Any], Mapping[str, int]] | None = None


def discover_experiments() -> dict[str, EntryPoint]:
    """The registered experiments by name, sorted; none is imported."""
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


def load_experiment(name: str) -> Experiment:
    """Import an experiment.

    Raises
    ------
    UsageError
        No experiment has that name (the nearest and the list are given).
    RunError
        Its module cannot be imported, or gives something else than an ``Experiment``, or one of another name.
    """
    found = discover_experiments()
    if name not in found:
        hint = nearest(name, found)
        every = f" (experiments: {', '.join(found)})" if hint.startswith("did") else ""
        raise UsageError(f"unknown experiment {name!r}: {hint}{every}")
    return load_declared(name, found[name], Experiment, "experiment")
