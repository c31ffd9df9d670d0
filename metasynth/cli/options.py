"""Options that commands share: one name has one meaning in all of them.

A help text that two commands cannot share to the letter begins with the same words in both.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from metasynth.cli.completion import complete_experiment, complete_mapping, complete_preset, complete_sink
from metasynth.data_prep.mapping_names import catalogue
from metasynth.lines import now_called, tell

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class FilePath(click.Path):
    """A path that a file system can hold; an empty text, such as an unset variable of a shell leaves, is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, or a message if it is none."""
        if value == "":
            self.fail("expected a path, got ''", param, ctx)
        if "\0" in os.fspath(value):
            self.fail(f"{os.fspath(value)!r} holds a NUL byte.", param, ctx)
        return super().convert(value, param, ctx)


class Device(click.Choice):
    """What torch computes on; one GPU of several by its number, cuda:N."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The name, or a message that says what is allowed."""
        kind, _, number = str(value).partition(":")
        numbered = kind == "cuda" and number.isascii() and number.isdecimal()
        return value if numbered else super().convert(value, param, ctx)


class Renamed(click.Option):
    """An option that had another name, which is a hidden option of its own; what is given by it counts as given here.

    Attributes
    ----------
    old : str
        The earlier spelling, such as '--mask'.
    """

    def __init__(self, *declarations: Any, old: str, **attributes: Any) -> None:
        super().__init__(*declarations, **attributes)
        self.old = old

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        """Take over what the old spelling was given, and say what it is now."""
        old, name = _destination(self.old), str(self.name)
        if old not in opts:
            return super().handle_parse_result(ctx, opts, args)
        if not ctx.resilient_parsing:
            tell(now_called(self.old, self.opts[0]))
        if name in opts and not self.multiple:
            raise click.UsageError(f"{self.old} is now {self.opts[0]}: expected one of them, got both", ctx)
        merged = [*opts.get(name, ()), *opts[old]] if self.multiple else opts[old]
        return super().handle_parse_result(ctx, {**opts, name: merged}, args)


def _destination(old: str) -> str:
    """Where click keeps what an old spelling was given."""
    return "old_" + old.lstrip("-").replace("-", "_")


def with_options(*options: Decorator) -> Decorator:
    """A decorator that adds options in their order."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def renamed(old: str, *declarations: str, **attributes: Any) -> Decorator:
    """`click.option` whose earlier spelling goes on working for one version, and says so."""
    same = {key: value for key, value in attributes.items() if key in ("type", "multiple", "is_flag", "shell_complete")}
    return with_options(
        click.option(*declarations, cls=Renamed, old=old, **attributes),
        click.option(old, _destination(old), hidden=True, expose_value=False, **same),
    )


PATH = FilePath(path_type=Path)


def out_option(what: str, metavar: str, **attributes: Any) -> Decorator:
    """``--out``: where to write what a command makes."""
    return click.option("--out", metavar=metavar, type=PATH, help=f"Where to write {what}.", **attributes)


def jobs_option(what: str, more: str = "") -> Decorator:
    """``--jobs``: how many processes there are."""
    text = f"Processes side by side, {what}; by default half of the cores{more}."
    return click.option("--jobs", metavar="N", type=click.IntRange(min=1), help=text)


def threads_option(more: str = "") -> Decorator:
    """``--threads``: of torch."""
    text = f"CPU threads of torch; by default half of the cores{more}."
    return click.option("--threads", metavar="N", type=click.IntRange(min=1), help=text)


def mapping_option(ids: str = "", more: str = "", **attributes: Any) -> Decorator:
    """``--mapping``, of these ids or of any."""
    text = f"Which ids become which class: {catalogue(ids)}, or a file of lines id,class.{more}"
    return click.option("--mapping", metavar="NAME|CSV", help=text, shell_complete=complete_mapping, **attributes)


OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace what is there already.")
LOG = click.option(
    "--log",
    metavar="NAME,...",
    shell_complete=complete_sink,
    help="Hand the records on to tensorboard, mlflow, wandb or sinks of other packages too; none: to nobody.",
)
QUIET = click.option("--quiet", is_flag=True, help="Plain lines instead of progress bars.")
EXPERIMENT = click.argument("experiment", shell_complete=complete_experiment)
PRESET = click.option(
    "--preset", metavar="NAME", help="Settings to start from; quick by default.", shell_complete=complete_preset
)
DEVICE = click.option(
    "--device",
    type=Device(["auto", "cpu", "cuda", "mps"]),
    metavar="auto|cpu|cuda|cuda:N|mps",
    default="auto",
    show_default=True,
    help="What torch computes on; auto is CUDA's GPU where there is one.",
)
UNKNOWN = click.option(
    "--unknown",
    type=click.Choice(["error", "background"]),
    default="error",
    show_default=True,
    help="What to do with ids the mapping does not name.",
)
UNITS = click.option(
    "--units",
    "unit",
    type=click.Choice(["mm", "um", "m"]),
    help="What the files' affines are in, whatever their headers say; by default what those say, else mm.",
)
IMAGE_SUFFIX = click.option(
    "--image-suffix", metavar="NAME", default="T1w", show_default=True, help="Suffix of the images of a BIDS data set."
)
MASKS = "Brain masks of the images' names: file, folder, pattern or list; repeatable."
