"""Options that several ``metasynth prep`` commands share."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


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


PATH = FilePath(path_type=Path)
SHARED = (
    click.option("--out", metavar="FILE", type=PATH, required=True, help="The cache to make (HDF5)."),
    click.option("--overwrite", is_flag=True, help="Replace a cache that is there already."),
    click.option(
        "--unknown",
        type=click.Choice(["error", "background"]),
        default="error",
        show_default=True,
        help="What to do with ids the mapping does not name.",
    ),
    click.option("--size", metavar="H,W", help="Shape of a slice (D,H,W: of a volume); by default the labels fit in."),
    click.option(
        "--divisor", type=click.IntRange(min=1), default=16, show_default=True, help="Every length is a multiple of it."
    ),
    click.option("--source", metavar="TEXT", default="", help="Origin, licence and citation, kept in the cache."),
    click.option("--jobs", metavar="N", type=click.IntRange(min=1), help="Subjects side by side; half of the cores."),
    click.option("--keep-work", is_flag=True, help="Keep the work folder (OUT.work), to add subjects later."),
    click.option("--no-montage", is_flag=True, help="Do not draw a picture beside the cache."),
    click.option("--quiet", is_flag=True, help="Plain lines instead of progress bars."),
)
MAPPING = click.option(
    "--mapping",
    metavar="NAME|CSV",
    default="freesurfer-4",
    show_default=True,
    help="freesurfer-4, freesurfer-4-reduced, freesurfer-tissue, freesurfer-24, muse-4, or a file of id,class.",
)
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
    click.option("--every", "every_mm", metavar="MM", type=float, default=2.0, show_default=True, help="Of around:N."),
    click.option(
        "--min-content",
        metavar="SHARE",
        type=FiniteRange(0.0, 1.0),
        default=0.1,
        show_default=True,
        help="Least labels of a slice, as a share of the subject's fullest.",
    ),
    click.option("--volumes", is_flag=True, help="Whole volumes, for networks in 3D, instead of slices."),
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
    help="Matrices to the template's space (.xfm or rows of 4 numbers), one a subject; implies --align transforms.",
)
PERSON = click.option(
    "--person",
    metavar="REGEX",
    help="What a person is called in the names of their scans: the regular expression's first group, or all it finds.",
)
IMAGES = (
    click.option("--masks", metavar="PATH", multiple=True, help="Brain masks; by default the brain is labels above 0."),
    click.option("--no-strip", is_flag=True, help="Keep what lies outside the brain."),
    click.option("--resample-labels", is_flag=True, help="Put label maps of another grid on their image's."),
)


def with_options(*options: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that adds options in their order."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return add
