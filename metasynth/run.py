"""Carry an experiment out, from settings to results, and write its report."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from logging import WARNING
from pathlib import Path
from typing import Any

from metasynth.errors import UsageError
from metasynth.lines import logger
from metasynth.running.device import configure_torch, visible_gpus
from metasynth.running.environment import describe_environment
from metasynth.running.integrity.run_files import check_files
from metasynth.running.lock import holdings, is_claimed_only
from metasynth.running.manifest import PACE, make_manifest
from metasynth.running.progress import Progress
from metasynth.running.ranks.ranks import ALONE, Ranks
from metasynth.running.records import CONFIG, METRICS, RESULTS, RunFolder, refuse_taken
from metasynth.running.request import Request, file_overrides, preset_settings, settings_of
from metasynth.running.seeding import seed_everything
from metasynth.running.settings.config import apply_overrides, to_dict
from metasynth.running.study import Experiment, StudyContext
from metasynth.sinks.feed import feeding
from metasynth.sinks.table import NONE, chosen
from metasynth.training.stopping import files_that_fit, stopped_in_one_line

_LOG = logger(__name__)


def execute(
    experiment: Experiment,
    out: Path | str,
    *,
    preset: str | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    data: Path | None = None,
    labels: Path | None = None,
    start: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    threads: int | None = None,
    log: str | None = None,
    quiet: bool = False,
    ranks: Ranks = ALONE,
) -> RunFolder:
    """Carry out an experiment in the folder ``out`` and write its results and report.

    Without ``preset`` and ``seed`` a new run takes 'quick' and 0, and a resumed one what it was started with
    (its overrides and its caches too, when none are given but of its pace). A run that has finished is only reported
    again. Where the folder is absent or empty, ``resume`` begins the run if anything is said of it: so one command can
    be given again and again until it has finished, as the schedulers of clusters do.
    ``labels`` is the setting of that name, for experiments that take label maps from a cache of their own, and
    ``start`` is ``segmenter.start``, for those that train segmenters. ``log`` are the names of sinks
    (`metasynth.sinks`), by default those of the session before; 'none': no sink. With several processes the first, of
    ``ranks``, calls this and the others `metasynth.running.ranks.following.follow`.

    Raises
    ------
    UsageError
        A setting, the folder or the device cannot be used.
    DataError
        The cache cannot be used.
    RunError
        The work could not go on.
    """
    asked = Request(preset, seed, data, device, threads, log)
    named = file_overrides(experiment, labels, start)
    earlier = None
    if resume:
        earlier = _earlier(experiment, Path(out), may_begin=not asked.is_open or bool(overrides or named))
    else:
        refuse_taken(Path(out))  # before the data are prepared, which may take minutes
    settled = asked if earlier is None else asked.completed_by(earlier)
    preset = "quick" if settled.preset is None else settled.preset
    base = preset_settings(experiment, preset)
    if earlier is not None and asked.preset is None and all(text.startswith(PACE) for text in overrides):
        base = settings_of(earlier, type(base))
    config = apply_overrides(base, [*overrides, *named])
    if ranks.count > 1:
        ranks.require_divisible(**_shared_batches(experiment, config))
    sinks = chosen(NONE if settled.log is None else settled.log)
    device, threads = configure_torch(settled.device, settled.threads)
    if ranks.count > 1:
        ranks.require_gpus(device, len(visible_gpus()))
    progress = Progress(quiet)
    if resume and earlier is None:
        progress.say(f"{out}: holds no run yet; one is begun")
    prepared = experiment.prepare(config, settled.data, progress)
    experiment.check_sizes(config, prepared, Path(out))
    seed = settled.seed or 0
    if experiment.check:
        experiment.check(config, prepared, seed)
    place = Path(prepared.path).resolve()
    others = {name: Path(other.path).resolve() for name, other in prepared.others.items()}
    manifest = make_manifest(experiment.name, preset, seed, to_dict(config), prepared.described(bool(settled.data)))
    make = partial(RunFolder.resume, config=config) if earlier else RunFolder.create
    environment = describe_environment(device, threads) | ({} if settled.log is None else {"log": settled.log})
    with (
        make(out, manifest, environment) as folder,
        feeding(
            folder.path, folder.path / METRICS, folder.settings, sinks, partial(progress.say, level=WARNING)
        ) as feed,
    ):
        where = f"{folder.path}: {experiment.name}"
        if folder.finished:
            ranks.hand_out(where, None)
            progress.say(f"{folder.path}: the run has finished; its report is written again")
            with files_that_fit(folder.path):
                write_run_report(experiment, folder)
        else:
            _LOG.info("%s: %s, preset %s, seed %d", folder.path, experiment.name, preset, seed)
            _LOG.info("%s: on %s with %d threads, data %s", folder.path, device, threads, place)
            shared = (config, preset, seed, device, threads)
            context = StudyContext(*shared, folder, place, resume, progress, others, ranks)
            ranks.hand_out(
                where,
                {"shared": shared, "manifest": manifest, "others": others}
                | {"places": (folder.path, place), "resume": resume},
            )
            folder.follow(feed.look)
            _run(experiment, context)
            write_run_report(experiment, folder)
        feed.finish((folder.path / METRICS).stat().st_size, figures_of(folder.path))
    return folder


def _shared_batches(experiment: Experiment, config: Any) -> Mapping[str, int]:
    if experiment.batches is None:
        raise UsageError(
            f"metasynth run: {experiment.name!r} is a study for a single process; start it without torchrun"
        )
    return experiment.batches(config)


def _earlier(experiment: Experiment, out: Path, *, may_begin: bool) -> RunFolder | None:
    """The run to go on with; None where there is none yet and one may begin. UsageError otherwise."""
    if may_begin and not holdings(out):
        return None
    if is_claimed_only(out):
        raise UsageError(f"{out}: holds no run ({CONFIG} is missing); leave --resume out to begin one")
    found = RunFolder.open(out)
    if found.manifest["experiment"] != experiment.name:
        raise UsageError(f"{out}: holds a run of {found.manifest['experiment']!r}, not of {experiment.name!r}")
    return found


def _run(experiment: Experiment, context: StudyContext) -> None:
    start = time.perf_counter()
    seed_everything(context.seed)
    where = f"{context.folder.path}: {experiment.name}"
    with context.ranks.together(where), stopped_in_one_line(where):
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

    Raises
    ------
    UsageError
        It has no results.
    DataError
        A file of it is damaged or of another run.
    """
    from metasynth.report.html import write_report  # matplotlib is needed here only

    folder.check_finished()
    check_files(folder, experiment.contents)
    content = experiment.report(folder)
    folder.check()  # last, as the others can say more of a damaged file
    write_report(folder, content)


def figures_of(run: Path) -> dict[str, Path]:
    """The pictures of a run's report, by their names."""
    folder = run / "figures"
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.png"))}
