"""The part of ``metasynth run`` that carries out an experiment over seeds and settings."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metasynth.cli.completion import complete_setting
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


def is_grid(out: Path | None, resume: bool, seeds: int | None, vary: tuple[str, ...], jobs: int | None) -> bool:
    """Whether ``metasynth run`` is to carry out a grid; UsageError if it is one run and has options of a grid."""
    from metasynth.running.grid_folder import GRID

    if seeds is not None or vary or (resume and out is not None and (out / GRID).is_file()):
        return True
    if jobs is not None:
        raise UsageError("--jobs: is for several runs; give --seeds N or --vary KEY=V1,V2,... too")
    return False


def run_grid(
    experiment: "Experiment",
    out: Path,
    request: GridRequest,
    *,
    resume: bool,
    jobs: int | None,
    quiet: bool,
) -> RunError | None:
    """Carry out a grid in the folder ``out`` and report on what has finished; return what failed.

    Raises
    ------
    UsageError
        A setting, the folder or the device cannot be used; nothing was started.
    RunError
        No run has finished.
    KeyboardInterrupt
        The grid was interrupted; its runs have ended.
    """
    from metasynth.run import preset_settings
    from metasynth.running.device import configure_torch, visible_gpus
    from metasynth.running.grid_folder import GridFolder, refuse_grid
    from metasynth.running.grid_run import carry_out
    from metasynth.running.lock import is_claimed_only
    from metasynth.running.progress import Progress
    from metasynth.sinks.table import NONE, chosen

    earlier = GridFolder.open(out) if resume and not is_claimed_only(out) else None
    grid = request.settled(experiment.name, earlier.grid if earlier else None)
    if earlier:
        earlier.check_same(grid)
    elif not resume:
        refuse_grid(out)
    require_processes(grid.threads, "--threads", "threads")
    require_processes(jobs or 1, "--jobs")
    chosen(grid.log or NONE if request.log is None else request.log)
    configs = grid.configurations(preset_settings(experiment, grid.preset))
    in_use, _ = configure_torch(grid.device, None)
    progress = Progress(quiet)
    digest = _prepare(experiment, grid, configs, out, progress)
    make = GridFolder.resume if resume else GridFolder.create
    folder = make(out, replace(grid, digest=digest))
    try:
        folder.check_runs(configs)
        gpus = () if in_use == "cpu" else visible_gpus()
        side_by_side = len(gpus) or max(1, cores() // 2)
        failed = carry_out(folder, jobs or side_by_side, progress, gpus)
        problem = _problem(folder, failed)
        if problem and not folder.finished:
            raise problem
        report_grid(experiment, folder)
    finally:
        folder.close()
    return problem


def _prepare(experiment: "Experiment", grid: "Grid", configs: Sequence[Any], out: Path, progress: "Progress") -> str:
    """Make and check the data of all runs before the first, so that they do not all make them; their digest.

    A cache that is named needs checking only, and once, but where it depends on the settings and the seed who of it is
    for what.
    """
    once = grid.data and not experiment.check
    prepared = [experiment.prepare(config, grid.data, progress) for config in configs[: 1 if once else None]]
    for config, one in zip(configs, prepared * (len(configs) // len(prepared)), strict=True):
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
        content = replace(content, summary=[*content.summary, f"Runs without results: {'; '.join(missing)}."])
    write_report(folder, content)


def _problem(folder: "GridFolder", failed: dict[str, str]) -> RunError | None:
    if not failed:
        return None
    again = f"metasynth run {folder.grid.experiment} --resume --out {shlex.quote(str(folder.path))}"
    count = f"{len(failed)} of {len(folder.grid.runs)} runs failed"
    return RunError(f"{folder.path}: {count}: {'; '.join(failed)}; to try them again: {again}")
