"""The part of ``metasynth run`` that carries out an experiment over seeds and settings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metasynth.cli.completion import complete_setting
from metasynth.cli.means import LAUNCHER_OPTIONS, Means, print_commands
from metasynth.cli.options import jobs_option, with_options
from metasynth.errors import RunError, UsageError
from metasynth.sizes import cores, require_processes

if TYPE_CHECKING:
    from metasynth.running.grid import Grid
    from metasynth.running.grid_folder import GridFolder
    from metasynth.running.progress import Progress
    from metasynth.running.study import Experiment

grid_options = with_options(
    click.option("--seeds", metavar="N", type=click.IntRange(min=1), help="Run N seeds, from --seed on."),
    click.option(
        "--vary",
        metavar="KEY=V1,V2,...",
        multiple=True,
        shell_complete=complete_setting,
        help="Run each value of a setting; repeatable.",
    ),
    jobs_option("one a run", ", and one a GPU"),
    *LAUNCHER_OPTIONS,
)


@dataclass(frozen=True)
class GridRequest:
    """What was asked for; None, empty and 'auto' leave it open."""

    preset: str | None
    seeds: int | None
    seed: int | None
    vary: tuple[str, ...]
    overrides: tuple[str, ...]
    data: Path | None
    device: str
    threads: int | None
    log: str | None

    def settled(self, experiment: str, earlier: "Grid | None") -> "Grid":
        """The grid; what is open is taken from the one that is resumed."""
        from metasynth.running.grid import Grid, parse_vary, require_runs, without_varied

        before = earlier or Grid(experiment, "quick", (0,))
        first = before.seeds[0] if self.seed is None else self.seed
        vary = parse_vary(self.vary) or before.vary
        require_runs(first, self.seeds or len(before.seeds), vary)
        return Grid(
            experiment=experiment,
            preset=before.preset if self.preset is None else self.preset,
            seeds=tuple(range(first, first + (self.seeds or len(before.seeds)))),
            vary=vary,
            overrides=without_varied(self.overrides, vary) or before.overrides,
            data=self.data.resolve() if self.data else before.data,
            device=before.device if self.device == "auto" else self.device,
            threads=self.threads or before.threads,
            log=before.log if self.log is None else self.log,
        )


def is_grid(out: Path | None, resume: bool, seeds: int | None, vary: tuple[str, ...], means: Means) -> bool:
    """Whether ``metasynth run`` is to carry out a grid; UsageError if it is one run and has options of a grid."""
    from metasynth.running.grid_folder import GRID

    if seeds is not None or vary or (resume and out is not None and (out / GRID).is_file()):
        return True
    if means.options:
        raise UsageError(f"{means.options[0]}: is for several runs; give --seeds N or --vary KEY=V1,V2,... too")
    return False


def run_grid(
    experiment: "Experiment",
    out: Path,
    request: GridRequest,
    *,
    resume: bool,
    means: Means,
    quiet: bool,
) -> RunError | None:
    """Carry out a grid in the folder ``out`` and report on what has finished; return what failed.

    With ``means.print_commands`` the commands of the runs that are not done are printed instead.

    Raises
    ------
    UsageError
        A setting, the folder or the device cannot be used; nothing was started.
    RunError
        No run has finished.
    KeyboardInterrupt
        The grid was interrupted; its runs have ended, but for the jobs of a launcher.
    """
    from metasynth.running.device import configure_torch, visible_gpus
    from metasynth.running.grid_folder import GridFolder, refuse_grid
    from metasynth.running.grid_run import carry_out
    from metasynth.running.jobs.launch import carry_out as launch
    from metasynth.running.jobs.launch import refuse_jobs_of_others
    from metasynth.running.jobs.launchers import make_launcher
    from metasynth.running.lock import is_claimed_only
    from metasynth.running.progress import Progress
    from metasynth.running.request import preset_settings
    from metasynth.sinks.table import NONE, chosen

    earlier = GridFolder.open(out) if resume and not is_claimed_only(out) else None
    grid = request.settled(experiment.name, earlier.grid if earlier else None)
    if earlier:
        earlier.check_same(grid)
    elif not resume:
        refuse_grid(out)
    require_processes(grid.threads, "--threads", "threads")
    require_processes(1 if means.elsewhere else means.jobs or 1, "--jobs")
    chosen(grid.log or NONE if request.log is None else request.log)
    configs = grid.configurations(preset_settings(experiment, grid.preset))
    in_use = "cpu" if means.elsewhere else configure_torch(grid.device, None)[0]
    gpus = () if in_use == "cpu" else visible_gpus()
    side_by_side = means.jobs or len(gpus) or max(1, cores() // 2)
    launcher = None
    if means.launcher:
        launcher = make_launcher(means.launcher, means.launcher_texts, means.jobs, side_by_side, gpus)
    if earlier:
        refuse_jobs_of_others(out, means.launcher)
    progress = Progress(quiet)
    digest = _prepare(experiment, grid, configs, out, progress, here=not means.elsewhere)
    make = GridFolder.resume if resume else GridFolder.create
    folder = make(out, replace(grid, digest=digest))
    try:
        folder.check_runs(configs)
        if means.print_commands:
            print_commands(folder)
            return None
        failed = launch(folder, launcher, progress) if launcher else carry_out(folder, side_by_side, progress, gpus)
        problem = _problem(folder, failed, means)
        if problem and not folder.finished:
            raise problem
        report_grid(experiment, folder)
    finally:
        folder.close()
    return problem


def _prepare(
    experiment: "Experiment", grid: "Grid", configs: Sequence[Any], out: Path, progress: "Progress", *, here: bool
) -> str:
    """Make and check the data of all runs before the first, so that they do not all make them; their digest.

    Whether this machine can hold them is asked only if they are to be carried out ``here``; each asks that again.

    A cache that is named needs checking only, and once, but where it depends on the settings and the seed who of it is
    for what.
    """
    once = grid.data and not experiment.check
    prepared = [experiment.prepare(config, grid.data, progress) for config in configs[: 1 if once else None]]
    for config, one in zip(configs, prepared * (len(configs) // len(prepared)), strict=True) if here else ():
        experiment.check_sizes(config, one, out)
    if experiment.check:
        for seed, (config, one) in product(grid.seeds, zip(configs, prepared, strict=True)):
            experiment.check(config, one, seed)
    return prepared[0].digest


def report_grid(experiment: "Experiment", folder: "GridFolder") -> None:
    """Write the results, tables, figures and page of a grid's finished runs; UsageError if none has finished."""
    from metasynth.report.grid import summarise
    from metasynth.report.html import write_report
    from metasynth.running.integrity.run_files import check_files

    for _, run in folder.finished:
        check_files(run, experiment.contents)
    folder.collect()
    content = experiment.grid_report(folder) if experiment.grid_report else summarise(folder, experiment.question)
    missing = folder.results["missing"]
    if missing:
        told = f"{folder.progress}. Runs without results: {'; '.join(missing)}."
        content = replace(content, summary=[*content.summary, told])
    write_report(folder, content)


def _problem(folder: "GridFolder", failed: dict[str, str], means: Means) -> RunError | None:
    if not failed:
        return None
    again = means.to_go_on(folder.grid.experiment, folder.path)
    count = f"{len(failed)} of {len(folder.grid.runs)} runs failed"
    return RunError(f"{folder.path}: {count}: {'; '.join(failed)}; to try them again: {again}")
