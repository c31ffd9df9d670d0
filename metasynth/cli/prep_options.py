"""Options of the ``metasynth prep`` commands."""

import math
from typing import Any

import click

from metasynth.cli.completion import complete_file
from metasynth.cli.options import (
    MASKS,
    OVERWRITE,
    QUIET,
    UNITS,
    UNKNOWN,
    jobs_option,
    mapping_option,
    out_option,
    renamed,
)
from metasynth.data_prep.mapping_names import STRUCTURES


class FiniteRange(click.FloatRange):
    """A range of numbers without NaN, which lies in every range for click."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or a message that says what is allowed."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class Axes(click.Choice):
    """Slicing axes with commas between them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The text without blanks, or a message that says what is allowed."""
        names = [super(Axes, self).convert(name.strip(), param, ctx) for name in str(value).split(",")]
        if len({*names}) < len(names):
            self.fail(f"{value!r} names an axis twice.", param, ctx)
        return ",".join(names)


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
GENERATE = click.option(
    "--generate",
    metavar="NAME",
    type=click.Choice([*STRUCTURES]),
    help="Synthesise images from structures, finer than the classes: "
    f"{' or '.join(f'{name} (ids of {ids})' for name, ids in STRUCTURES.items())}. By default from the classes, or "
    "from the third column of a file given as --mapping.",
)
GEOMETRY = (
    MAPPING,
    GENERATE,
    UNITS,
    click.option(
        "--axis",
        type=Axes(["coronal", "axial", "sagittal"]),
        metavar="coronal|axial|sagittal[,...]",
        default="coronal",
        show_default=True,
        help="Slicing axis. Several with commas between them for a network that is to look along each.",
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
HEAD = click.option(
    "--head",
    is_flag=True,
    help="Keep what lies outside the brain, as structures that are background to a segmenter: make a cache of whole "
    "heads, with --generate.",
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
IMAGES = (
    click.option(
        "--masks",
        metavar="PATH",
        multiple=True,
        shell_complete=complete_file,
        help=f"{MASKS} By default the brain is labels above 0.",
    ),
    click.option("--no-strip", is_flag=True, help="Keep what lies outside the brain: make a cache of whole heads."),
    click.option("--resample-labels", is_flag=True, help="Put label maps of another grid on their image's."),
)
