"""The commands that carry out an experiment and report on it; they import what they need when they run.

Presets belong to a study: ``PRESETS`` in its file (`metasynth.experiments.noise`) or its folder's ``__init__``.
"""

import shlex
import sys
import time
from pathlib import Path
from typing import Any

import click

from metasynth.cli.completion import complete_file, complete_setting
from metasynth.cli.failures import Stopped
from metasynth.cli.grid import GridRequest, grid_options, is_grid, report_grid, run_grid
from metasynth.cli.means import Means
from metasynth.cli.options import DEVICE, EXPERIMENT, LOG, PATH, PRESET, QUIET, out_option, renamed, threads_option
from metasynth.errors import UsageError
from metasynth.lines import tell


@click.command()
@EXPERIMENT
@PRESET
@click.option("--data", metavar="CACHE", type=PATH, help="HDF5 cache to use.")
@renamed(
    *("--labels", "--label-cache", "labels"),
    metavar="CACHE",
    type=PATH,
    help="HDF5 cache of label maps for synthesis, where the experiment takes one of their own (--set labels=CACHE).",
)
@click.option(
    "--start",
    metavar="NAME|FILE|RUN",
    shell_complete=complete_file,
    help="Begin every training of a segmenter with the weights of a model: one of the package, a model file or the "
    "folder of a run (--set segmenter.start=FILE|RUN).",
)
@out_option("the run: a folder, runs/... by default", "DIR")
@click.option("--seed", metavar="N", type=click.IntRange(0, 2**63 - 1), help="Seed of every random draw; 0 by default.")
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    type=PATH,
    help="Settings, from the config.json of a run or a .toml file; --set wins over them.",
)
@click.option(
    *("--set", "overrides"),
    metavar="KEY=VALUE",
    multiple=True,
    shell_complete=complete_setting,
    help="Change one setting; repeatable.",
)
@grid_options
@click.option(
    "--resume",
    is_flag=True,
    help="Continue the run, or the runs, in --out. With settings, begin a run where nothing is yet.",
)
@DEVICE
@threads_option(", and one in each of several runs")
@LOG
@QUIET
def run(
    experiment: str,
    preset: str | None,
    data: Path | None,
    labels: Path | None,
    start: str | None,
    out: Path | None,
    seed: int | None,
    config_file: Path | None,
    overrides: tuple[str, ...],
    seeds: int | None,
    vary: tuple[str, ...],
    jobs: int | None,
    launcher: str | None,
    launcher_texts: tuple[str, ...],
    print_commands: bool,
    resume: bool,
    device: str,
    threads: int | None,
    log: str | None,
    quiet: bool,
) -> None:
    """Carry out EXPERIMENT and report on it.

    A resumed run keeps the preset, settings, seed and cache it was started with; if they are given again they
    must be the same.

    With --seeds or --vary, every combination of seed and values is a run in a folder of its own inside --out, in a
    process of its own, and the report is on all of them. With --launcher these processes are jobs that go on when this
    command is interrupted; given again with --resume, it comes back to them.
    """
    from metasynth.predict.shipped import named_model
    from metasynth.run import execute
    from metasynth.running.ranks.following import follow
    from metasynth.running.ranks.ranks import Ranks
    from metasynth.running.request import file_overrides, preset_settings
    from metasynth.running.settings.config_file import read_config_file
    from metasynth.running.study import load_experiment
    from metasynth.segment.model_file import BY_FILE

    ranks = Ranks.started()
    ranks.end_with_launcher()
    if ranks.rank:
        follow(load_experiment(experiment), ranks)
        return
    if resume and out is None:
        raise UsageError("--resume: needs --out DIR, the folder of the run to continue")
    means = Means(jobs, launcher, launcher_texts, print_commands)
    means.check()
    grid = is_grid(out, resume, seeds, vary, means)
    _check_ranks(ranks, grid, out)
    study = load_experiment(experiment)
    model = None if start is None else named_model(start, None, BY_FILE)
    if config_file is not None:
        base = preset_settings(study, preset or "quick")
        overrides = (*read_config_file(config_file, study.name, base), *overrides)
    if out is None:
        out = _new_folder(experiment, preset, seed or 0, (seeds or 1) if grid else None)
    failure = None
    tell(f"Run folder: {out}")
    try:
        if grid:
            overrides = (*overrides, *file_overrides(study, labels, model))
            request = GridRequest(preset, seeds, seed, vary, overrides, data, device, threads, log)
            failure = run_grid(study, out, request, resume=resume, means=means, quiet=quiet)
        else:
            execute(
                study,
                out,
                preset=preset,
                overrides=overrides,
                seed=seed,
                data=data,
                labels=labels,
                start=model,
                resume=resume,
                device=device,
                threads=threads,
                log=log,
                quiet=quiet,
                ranks=ranks,
            )
    except KeyboardInterrupt as error:
        raise Stopped(error, _interrupted(experiment, out, means)) from None
    if print_commands:
        return
    _show(out)
    if failure:
        raise failure


def _check_ranks(ranks: Any, grid: bool, out: Path | None) -> None:
    if ranks.count > 1 and grid:
        raise UsageError(
            f"metasynth run: many runs are not for the {ranks.count} processes that torchrun started; leave --seeds, "
            "--vary and --launcher out, or start it by itself"
        )
    if ranks.count > 1 and out is None:
        raise UsageError(f"--out: give the folder of the run that {ranks.count} processes are to carry out")


def _new_folder(experiment: str, preset: str | None, first: int, seeds: int | None) -> Path:
    """Where a run goes that was given no folder; ``seeds``: how many of a grid, None for one run."""
    which = f"seed{first}" if seeds is None else f"seeds{first}-{first + seeds - 1}"
    return Path("runs") / f"{experiment}-{preset or 'quick'}-{which}-{time.strftime('%Y%m%d-%H%M%S')}"


def _interrupted(experiment: str, out: Path, means: Means) -> str:
    """The line on a run that was interrupted: how to go on with it, if it was begun."""
    from metasynth.running.grid_folder import GRID
    from metasynth.running.jobs.record import FOLDER, NAME
    from metasynth.running.records import CONFIG

    if not any((out / name).is_file() for name in (CONFIG, GRID)):
        return "Interrupted. Nothing was begun."
    again = means.to_go_on(experiment, out)
    if means.launcher and (out / FOLDER / NAME).is_file():
        report = shlex.join(["metasynth", "report", str(out)])
        return f"Interrupted. The jobs go on. Come back with: {again}; to see how far they are: {report}"
    return f"Interrupted. Continue with: {again}"


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=PATH)
def report(runs: tuple[Path, ...]) -> None:
    """Write the tables, figures and pages of finished runs, and of folders of many runs, again."""
    from metasynth.run import write_run_report
    from metasynth.running.grid_folder import GRID, GridFolder
    from metasynth.running.integrity.run_files import check_manifest
    from metasynth.running.records import RunFolder
    from metasynth.running.study import load_experiment
    from metasynth.training.stopping import files_that_fit

    for path in runs:
        with files_that_fit(path):
            if (path / GRID).is_file():
                several = GridFolder.open(path)
                tell(f"{path}: {several.progress}")
                report_grid(load_experiment(several.grid.experiment), several)
            else:
                folder = RunFolder.open(path)
                check_manifest(folder)
                write_run_report(load_experiment(folder.manifest["experiment"]), folder)
        _show(path)


def _show(folder: Path) -> None:
    """Print the tables and where the page is."""
    tell((folder / "table.md").read_text(encoding="utf-8").rstrip(), sys.stdout)
    tell(f"\nReport: {folder / 'report.html'}", sys.stdout)


RUN_COMMANDS = (run, report)
