"""The command line; commands import what they need when they run, so that ``--help`` answers at once."""

import io
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from metasynth import __version__
from metasynth.children import end_with_named_parent
from metasynth.cli.grid import GridRequest, grid_options, is_grid, report_grid, run_grid
from metasynth.cli.options import PATH
from metasynth.cli.predict import PREDICT_COMMANDS
from metasynth.cli.prep import PREP_COMMANDS, inspect
from metasynth.errors import DataError, MetasynthError, UsageError
from metasynth.interrupts import exit_status, watched
from metasynth.lines import tell
from metasynth.sizes import memory_failure
from metasynth.text import printable, shortened

LONGEST_WORD = 1000  # characters of one in a message: longer than most paths


class _Stopped(MetasynthError):
    """A command was asked to end; the message of a run says how to go on with it."""

    def __init__(self, error: KeyboardInterrupt, message: str = "\nInterrupted.") -> None:
        super().__init__(message)  # on a line of its own, after a terminal's ^C
        self.exit_code = exit_status(error)


class _Commands(click.Group):
    """A group that ends every failure with one line on standard error and the exit code of its kind.

    ``METASYNTH_DEBUG=1`` shows the traceback instead. Signals to end are noted, for all commands to look at.
    """

    def main(self, *args: Any, **settings: Any) -> Any:
        settings["standalone_mode"] = False
        end_with_named_parent()
        if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may hold what the terminal has no letters for
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            with watched():
                status = super().main(*args, **settings)
        except click.exceptions.Exit as stop:
            status = stop.exit_code
        except click.exceptions.NoArgsIsHelpError as error:
            tell(error.format_message())
            status = error.exit_code
        except Exception as error:  # the last boundary: whatever it is, no traceback reaches a user
            if os.environ.get("METASYNTH_DEBUG") == "1":
                raise
            message, status = _message(error)
            tell(message)
        sys.exit(status if isinstance(status, int) else 0)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt as error:
            raise _Stopped(error) from error

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from metasynth.running.config import nearest

        if args[0] not in self.commands and not args[0].startswith("-"):
            raise UsageError(f"no command {args[0]!r}: {nearest(args[0], self.commands)}")
        return super().resolve_command(context, args)


def _message(error: Exception) -> tuple[str, int]:
    """The line that a failure is told in, and the exit code."""
    if isinstance(error, _Stopped):
        return str(error), error.exit_code
    if isinstance(error, click.Abort):
        return "Interrupted.", exit_status(None)
    if isinstance(error, click.ClickException):
        return f"Error: {_one_line(error.format_message())}", error.exit_code
    if isinstance(error, MetasynthError):
        return f"Error: {_one_line(str(error))}", error.exit_code
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"Error: {place}{error.strerror or _one_line(str(error))}", 1
    return f"Error: {memory_failure(error) or _internal(error)}", 1


def _internal(error: Exception) -> str:
    """What a fault of the program is told in."""
    # A process that makes data puts its traceback into the message, what went wrong at its end.
    told = str(error).strip().splitlines()[-1:] if "Traceback" in str(error) else [str(error)]
    text = _one_line(" ".join(told)).removeprefix(f"{type(error).__name__}: ")
    return f"internal error: {type(error).__name__}: {text} (METASYNTH_DEBUG=1 shows where)"


def _one_line(text: str) -> str:
    return printable(" ".join(word if len(word) <= LONGEST_WORD else shortened(word) for word in text.split()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="metasynth")
def main() -> None:
    """Learn how to make training data, by differentiating through training."""


@main.command("list")
def list_() -> None:
    """List the experiments, each with its question and presets."""
    from metasynth.running.study import discover_experiments, load_experiment

    for name in discover_experiments():
        try:
            experiment = load_experiment(name)
        except MetasynthError as error:
            click.echo(f"{name}: {_one_line(str(error))}")
        else:
            click.echo(f"{name}: {experiment.question} (presets: {', '.join(experiment.presets)})")


@main.command()
@click.argument("experiment")
@click.option("--preset", metavar="NAME", help="Settings to start from; quick by default.")
@click.option("--data", metavar="CACHE", type=PATH, help="HDF5 cache to use.")
@click.option(
    "--labels",
    metavar="CACHE",
    type=PATH,
    help="HDF5 cache of label maps for synthesis, where the experiment takes one of their own (--set labels=CACHE).",
)
@click.option("--out", metavar="DIR", type=PATH, help="Folder of the run.")
@click.option("--seed", metavar="N", type=click.IntRange(0, 2**63 - 1), help="Seed of every random draw; 0 by default.")
@click.option("--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Change one setting; repeatable.")
@grid_options
@click.option("--resume", is_flag=True, help="Continue the run, or the runs, in --out.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--threads",
    metavar="N",
    type=click.IntRange(min=1),
    help="CPU threads of torch; by default half of the cores, and one in each of several runs.",
)
@click.option("--quiet", is_flag=True, help="Plain lines instead of progress bars.")
def run(
    experiment: str,
    preset: str | None,
    data: Path | None,
    labels: Path | None,
    out: Path | None,
    seed: int | None,
    overrides: tuple[str, ...],
    seeds: int | None,
    vary: tuple[str, ...],
    jobs: int | None,
    resume: bool,
    device: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Carry out EXPERIMENT and report on it.

    A resumed run keeps the preset, settings, seed and cache it was started with; if they are given again they
    must be the same.

    With --seeds or --vary, every combination of seed and values is a run in a folder of its own inside --out, in a
    process of its own, and the report is on all of them.
    """
    from metasynth.run import execute, labels_override
    from metasynth.running.grid_folder import GRID
    from metasynth.running.records import CONFIG
    from metasynth.running.study import load_experiment

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError(
            f"metasynth run: is a single process, and was started as one of {os.environ['WORLD_SIZE']} (by torchrun?); "
            "start it by itself; for training with several processes see docs/distributed.md"
        )
    if resume and out is None:
        raise UsageError("--resume: needs --out DIR, the folder of the run to continue")
    grid = is_grid(out, resume, seeds, vary, jobs)
    study = load_experiment(experiment)
    if out is None:
        first = seed or 0
        which = f"seeds{first}-{first + (seeds or 1) - 1}" if grid else f"seed{first}"
        out = Path("runs") / f"{experiment}-{preset or 'quick'}-{which}-{time.strftime('%Y%m%d-%H%M%S')}"
    failure = None
    tell(f"Run folder: {out}")
    try:
        if grid:
            if labels is not None:
                overrides = (*overrides, labels_override(study, preset or "quick", labels))
            request = GridRequest(preset, seeds, seed, vary, overrides, data, device, threads)
            failure = run_grid(study, out, request, resume=resume, jobs=jobs, quiet=quiet)
        else:
            execute(
                study,
                out,
                preset=preset,
                overrides=overrides,
                seed=seed,
                data=data,
                labels=labels,
                resume=resume,
                device=device,
                threads=threads,
                quiet=quiet,
            )
    except KeyboardInterrupt as error:
        again = f"metasynth run {experiment} --resume --out {shlex.quote(str(out))}"
        begun = any((out / name).is_file() for name in (CONFIG, GRID))
        message = f"Interrupted. {f'Continue with: {again}' if begun else 'Nothing was begun.'}"
        raise _Stopped(error, message) from None
    _show(out)
    if failure:
        raise failure


@main.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=PATH)
def report(runs: tuple[Path, ...]) -> None:
    """Write the tables, figures and pages of finished runs, and of folders of many runs, again."""
    from metasynth.run import write_run_report
    from metasynth.running.grid_folder import GRID, GridFolder
    from metasynth.running.integrity.run_files import check_manifest
    from metasynth.running.records import RunFolder
    from metasynth.running.study import load_experiment

    for path in runs:
        with _files_that_fit(path):
            if (path / GRID).is_file():
                several = GridFolder.open(path)
                report_grid(load_experiment(several.grid.experiment), several)
            else:
                folder = RunFolder.open(path)
                check_manifest(folder)
                write_run_report(load_experiment(folder.manifest["experiment"]), folder)
        _show(path)


@contextmanager
def _files_that_fit(path: Path) -> Iterator[None]:
    """Tell in one line what no schema of the files of a run foresaw: their parts may contradict each other."""
    try:
        yield
    except (MetasynthError, OSError, MemoryError):
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: no report can be made of it, its files do not fit together ({what})") from error


def _show(folder: Path) -> None:
    """Print the tables and where the page is."""
    tell((folder / "table.md").read_text(encoding="utf-8").rstrip(), sys.stdout)
    tell(f"\nReport: {folder / 'report.html'}", sys.stdout)


@main.group(cls=_Commands)
def prep() -> None:
    """Make HDF5 caches of slices or volumes."""


for _command in PREP_COMMANDS:
    prep.add_command(_command)
for _command in (inspect, *PREDICT_COMMANDS):
    main.add_command(_command)
