"""The command line; commands import what they need when they run, so that ``--help`` answers at once."""

import io
import os
import sys
from typing import Any

import click

from metasynth import __version__
from metasynth.children import end_with_named_parent
from metasynth.cli.exchange.export import EXPORT_COMMANDS
from metasynth.cli.exchange.prep_nnunet import nnunet
from metasynth.cli.failures import Stopped, message, one_line
from metasynth.cli.messages import messages_shown
from metasynth.cli.models import models
from metasynth.cli.predict import PREDICT_COMMANDS
from metasynth.cli.prep import PREP_COMMANDS, inspect
from metasynth.cli.run import RUN_COMMANDS
from metasynth.cli.settings import settings
from metasynth.errors import MetasynthError, UsageError
from metasynth.interrupts import watched
from metasynth.lines import tell


class _Commands(click.Group):
    """A group that ends every failure with one line on standard error and the exit code of its kind.

    ``METASYNTH_DEBUG=1`` shows the traceback instead. Signals to end are noted, for all commands to look at.
    """

    def main(self, *args: Any, **settings: Any) -> Any:
        settings["standalone_mode"] = False
        end_with_named_parent()
        if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may hold what the terminal has no letters for
            sys.stdout.reconfigure(errors="backslashreplace")
        with watched():  # until the line is out, which a signal that comes now would else take away
            status = self._ended(*args, **settings)
        sys.exit(status if isinstance(status, int) else 0)

    def _ended(self, *args: Any, **settings: Any) -> Any:
        """The exit status of a command, whose failure is told."""
        try:
            return super().main(*args, **settings)
        except click.exceptions.Exit as stop:
            return stop.exit_code
        except click.exceptions.NoArgsIsHelpError as error:
            tell(error.format_message())
            return error.exit_code
        except Exception as error:  # the last boundary: whatever it is, no traceback reaches a user
            if os.environ.get("METASYNTH_DEBUG") == "1":
                raise
            line, status = message(error)
            tell(line)
            return status

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt as error:
            raise Stopped(error) from error

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from metasynth.running.settings.config import nearest

        known = args[0] in self.commands or args[0].startswith("-")
        if not known and not context.resilient_parsing:  # as it is while a shell completes what follows
            raise UsageError(f"no command {args[0]!r}: {nearest(args[0], self.commands)}")
        return super().resolve_command(context, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="metasynth")
@click.option("-v", "--verbose", count=True, help="Say what is done, on standard error; -vv says more.")
@click.pass_context
def main(context: click.Context, verbose: int) -> None:
    """Learn how to make training data, by differentiating through training."""
    context.with_resource(messages_shown(verbose))


@main.command("list")
def list_() -> None:
    """List the experiments, each with its question and presets."""
    from metasynth.running.study import discover_experiments, load_experiment

    for name in discover_experiments():
        try:
            experiment = load_experiment(name)
        except MetasynthError as error:
            click.echo(f"{name}: {one_line(str(error))}")
        else:
            click.echo(f"{name}: {experiment.question} (presets: {', '.join(experiment.presets)})")


@main.group(cls=_Commands)
def prep() -> None:
    """Make HDF5 caches of slices or volumes."""


for _command in (*PREP_COMMANDS, nnunet):
    prep.add_command(_command)


@main.group(cls=_Commands)
def export() -> None:
    """Hand on what was learned to other programs."""


for _command in EXPORT_COMMANDS:
    export.add_command(_command)
for _command in (*RUN_COMMANDS, settings, inspect, models, *PREDICT_COMMANDS):
    main.add_command(_command)
