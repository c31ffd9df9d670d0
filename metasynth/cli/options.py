"""Options that commands share: one name has one meaning in all of them.

A help text that two commands cannot share to the letter begins with the same words in both.
"""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from metasynth.cli.completion import complete_experiment, complete_file, complete_mapping, complete_preset
from metasynth.lines import tell

GONE_IN = "0.3"  # the version that no longer knows the spellings of 0.1
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


class FiniteRange(click.FloatRange):
    """A range of numbers without NaN, which lies in every range for click."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or a message that says what is allowed."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


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
            tell(f"{self.old} is now {self.opts[0]}; the old spelling goes in {GONE_IN}")
        if name in opts and not self.multiple:
            raise click.UsageError(f"{self.old} is now {self.opts[0]}: expected one of them, got both", ctx)
        merged = [*opts.get(name, ()), *opts[old]] if self.multiple else opts[old]
        return super().handle_parse_result(ctx, {**opts, name: merged}, args)


class Listing(click.Option):
    """An option whose help lists what there is when it is shown.

    Attributes
    ----------
    describe : callable
        Gives the help.
    """

    def __init__(self, *declarations: Any, describe: Callable[[], str], **attributes: Any) -> None:
        super().__init__(*declarations, **attributes)
        self.describe = describe

    @property
    def help(self) -> str | None:
        """The text as of now."""
        return self.describe()

    @help.setter
    def help(self, text: str | None) -> None:
        """Click sets what it was given, which is nothing."""


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

    def describe() -> str:
        from metasynth.data_prep.mapping_names import catalogue

        return f"Which ids become which class: {catalogue(ids)}, or a file of lines id,class.{more}"

    return click.option(
        "--mapping",
        metavar="NAME|CSV",
        cls=Listing,
        describe=describe,
        shell_complete=complete_mapping,
        **attributes,
    )


OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace what is there already.")
QUIET = click.option("--quiet", is_flag=True, help="Plain lines instead of progress bars.")
EXPERIMENT = click.argument("experiment", shell_complete=complete_experiment)
PRESET = click.option(
    "--preset", metavar="NAME", help="Settings to start from; quick by default.", shell_complete=complete_preset
)
DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="What torch computes on; auto is a GPU where there is one.",
)
UNKNOWN = click.option(
    "--unknown",
    type=click.Choice(["error", "background"]),
    default="error",
    show_default=True,
    help="What to do with ids the mapping does not name.",
)
SHARED = (
    out_option("the cache (HDF5)", "FILE", required=True),
    OVERWRITE,
    UNKNOWN,
    click.option("--size", metavar="H,W", help="Shape of a slice (D,H,W: of a volume); by default the labels fit in."),
    click.option(
        "--divisor", type=click.IntRange(min=1), default=16, show_default=True, help="Every length is a multiple of it."
    ),
    click.option("--source", metavar="TEXT", default="", help="Origin, licence and citation, kept in the cache."),
    jobs_option("one a subject"),
    click.option("--keep-work", is_flag=True, help="Keep the work folder (OUT.work), to add subjects later."),
    click.option("--no-montage", is_flag=True, help="Do not draw a picture beside the cache."),
    QUIET,
)
MAPPING = mapping_option(default="freesurfer-4", show_default=True)
UNITS = click.option(
    "--units",
    "unit",
    type=click.Choice(["mm", "um", "m"]),
    help="What the files' affines are in, whatever their headers say; by default what those say, else mm.",
)
GEOMETRY = (
    MAPPING,
    UNITS,
    click.option(
        "--axis",
        type=click.Choice(["coronal", "axial", "sagittal"]),
        default="coronal",
        show_default=True,
        help="Slicing axis.",
    ),
    click.option(
        "--slices",
        metavar="WHICH",
        default="around:20",
        show_default=True,
        help="all, around:N (about the middle of the brain), START:STOP[:STEP] or I,J,K.",
    ),
    click.option(
        *("--every", "every_mm"),
        metavar="MM",
        type=float,
        default=2.0,
        show_default=True,
        help="Between the slices of around:N.",
    ),
    click.option(
        "--min-content",
        metavar="SHARE",
        type=FiniteRange(0.0, 1.0),
        default=0.1,
        show_default=True,
        help="Least labels of a slice, as a share of the subject's fullest.",
    ),
    renamed("--volumes", "--3d", "volumes", is_flag=True, help="Whole volumes, for networks in 3D, instead of slices."),
    click.option("--spacing", metavar="MM[,MM,MM]", help="Voxel size (x, y, z); that of the files by default."),
    click.option(
        "--interpolation",
        type=click.Choice(["majority", "nearest"]),
        default="majority",
        show_default=True,
        help="How labels are put on another grid.",
    ),
    click.option(
        "--align",
        type=click.Choice(["none", "transforms", "rigid", "affine"]),
        default="none",
        show_default=True,
        help="Bring the brains to one space: by given transforms, or by registration to the MNI template.",
    ),
    click.option("--margin", metavar="MM", type=float, default=5.0, show_default=True, help="Room around the labels."),
)
TRANSFORMS = click.option(
    "--transforms",
    metavar="PATH",
    multiple=True,
    shell_complete=complete_file,
    help="Matrices to the template's space (.xfm or rows of 4 numbers), one a subject; implies --align transforms.",
)
PERSON = click.option(
    "--person",
    metavar="REGEX",
    help="What a person is called in the names of their scans: the regular expression's first group, or all it finds.",
)
MASKS = "Brain masks of the images' names: file, folder, pattern or list; repeatable."
IMAGES = (
    click.option(
        "--masks",
        metavar="PATH",
        multiple=True,
        shell_complete=complete_file,
        help=f"{MASKS} By default the brain is labels above 0.",
    ),
    click.option("--no-strip", is_flag=True, help="Keep what lies outside the brain."),
    click.option("--resample-labels", is_flag=True, help="Put label maps of another grid on their image's."),
)
