"""The commands that make caches from files and look into them; they import what they need when they run."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from metasynth.cli.completion import complete_cohort, complete_file
from metasynth.cli.options import (
    IMAGE_SUFFIX,
    OVERWRITE,
    PATH,
    QUIET,
    mapping_option,
    out_option,
    renamed,
    with_options,
)
from metasynth.cli.prep_job import completed, implied, make, transformed
from metasynth.cli.prep_options import GEOMETRY, HEAD, IMAGES, PERSON, SHARED, TRANSFORMS
from metasynth.cli.prep_priors import priors
from metasynth.cli.remap import remap
from metasynth.data_prep.mapping_names import IDS, OASIS, catalogue
from metasynth.errors import UsageError
from metasynth.lines import tell
from metasynth.text import printable

SIMULATED_STRUCTURES = "simulated-structures"
COHORT_HELP = "template, mprage-young, mprage-older, flash-3, flash-5, flash-20 or flash-30, then -64, -96 or -192."


@click.command()
@click.option(
    "--cohort",
    metavar="NAME",
    default="template-64",
    show_default=True,
    shell_complete=complete_cohort,
    help=COHORT_HELP,
)
@click.option(
    "--generate",
    metavar="NAME",
    type=click.Choice([SIMULATED_STRUCTURES]),
    help=f"Synthesise images from structures, finer than the classes: {SIMULATED_STRUCTURES} (of a simulated cohort). "
    "By default from the classes.",
)
@out_option("a copy of the cache", "FILE")
@QUIET
def template(cohort: str, generate: str | None, out: Path | None, quiet: bool) -> None:
    """Make an embedded cohort: one brain template under many seeded warps. Nothing is downloaded.

    The template cohorts have its own image; the images of all others are simulated, not scanned.

    It is made once and kept in the user's cache folder (METASYNTH_CACHE names another).
    """
    from metasynth.data.schema import CACHE
    from metasynth.data_prep.cohorts.cohort import COHORTS, SimulatedSpec, ensure_cohort
    from metasynth.files import write_atomically
    from metasynth.outputs import Output, check_outputs
    from metasynth.running.progress import Progress
    from metasynth.running.settings.config import nearest

    if cohort not in COHORTS:
        raise UsageError(f"--cohort {cohort}: there is no such cohort: {nearest(cohort, COHORTS)}")
    spec = COHORTS[cohort]
    if generate is not None:
        if not isinstance(spec, SimulatedSpec):
            raise UsageError(f"--generate {generate}: expected a simulated cohort, got --cohort {cohort}")
        spec = replace(spec, structures=True)
    if out is not None and out.exists():
        raise UsageError(f"--out {out}: exists already; give another name")
    if out is not None:
        check_outputs([Output(f"--out {out}:", out, CACHE, replace=False)], [])
    progress = Progress(quiet)
    with progress.counter(cohort) as follow:
        path = ensure_cohort(spec, progress=follow, notice=progress.say)
    if out is not None:
        write_atomically(out, path.read_bytes())
    tell(f"Cohort: {out or path}", sys.stdout)


@click.command()
@click.argument("paths", metavar="PATHS...", nargs=-1, required=True, shell_complete=complete_file)
@with_options(*GEOMETRY, HEAD, TRANSFORMS, PERSON, *SHARED)
def labels(paths: tuple[str, ...], transforms: tuple[str, ...], person: str | None, **given: Any) -> None:
    """Make a cache of label maps alone: files, folders, patterns or text lists of paths."""
    from metasynth.data_prep.naming.people import by_person
    from metasynth.data_prep.sources import find_files, label_scans

    sources = by_person(transformed(label_scans(find_files(paths, "PATHS")), transforms), person)
    make("prep labels", sources, f"label maps: {_names(paths)}", **implied(given, transforms))


@click.command()
@click.option(
    "--images",
    metavar="PATH",
    multiple=True,
    required=True,
    shell_complete=complete_file,
    help="Images: file, folder, pattern or list; repeatable.",
)
@click.option(
    "--labels",
    metavar="PATH",
    multiple=True,
    required=True,
    shell_complete=complete_file,
    help="Their label maps, of the same names: likewise.",
)
@with_options(*GEOMETRY, TRANSFORMS, *IMAGES, PERSON, *SHARED)
def nifti(
    images: tuple[str, ...], labels: tuple[str, ...], transforms: tuple[str, ...], person: str | None, **given: Any
) -> None:
    """Make a cache of images and their label maps (.nii, .nii.gz, .mgz), paired by name."""
    from metasynth.data_prep.sources import find_files, pair

    sources = pair(find_files(images, "--images"), find_files(labels, "--labels"))
    sources = completed(sources, given, transforms, person)
    make("prep nifti", sources, f"images: {_names(images)}; label maps: {_names(labels)}", **implied(given, transforms))


@click.command()
@click.argument("subjects_dir", type=PATH)
@renamed(
    *("--image", "--image-name", "image"),
    metavar="NAME",
    default="norm",
    show_default=True,
    help="Image in mri/, or none.",
)
@renamed(
    *("--labels", "--seg-name", "labels"),
    metavar="NAME",
    default="aseg",
    show_default=True,
    help="Segmentation in mri/: aseg, aparc+aseg, wmparc, ...",
)
@with_options(*GEOMETRY, *IMAGES[1:], PERSON, *SHARED)
def freesurfer(subjects_dir: Path, image: str, labels: str, person: str | None, **given: Any) -> None:
    """Make a cache of the subjects in a FreeSurfer SUBJECTS_DIR.

    Timepoints (sub-X_ses-Y, X.long.BASE) and bases of one person are one subject of the cache.

    --align transforms takes each subject's mri/transforms/talairach.xfm.
    """
    from metasynth.data_prep.layouts import freesurfer_scans

    transform = "mri/transforms/talairach.xfm" if given["align"] == "transforms" else None
    sources = freesurfer_scans(subjects_dir, None if image == "none" else image, labels, transform, person)
    make("prep freesurfer", sources, f"FreeSurfer subjects: {subjects_dir.name}", **given)


@click.command()
@click.argument("folder", type=PATH)
@click.option("--derivatives", metavar="DIR", type=PATH, help="Where the segmentations are; FOLDER/derivatives.")
@IMAGE_SUFFIX
@click.option("--desc", metavar="NAME", default="aseg", show_default=True, help="desc- of the _dseg files, or 'none'.")
@with_options(*GEOMETRY, *IMAGES[1:], PERSON, *SHARED)
def bids(
    folder: Path, derivatives: Path | None, image_suffix: str, desc: str, person: str | None, **given: Any
) -> None:
    """Make a cache of a BIDS data set with segmentations (sub-*_desc-aseg_dseg.nii.gz) in a derivatives folder.

    The sessions of one person are one subject of the cache.
    """
    from metasynth.data_prep.layouts import bids_scans

    if given["align"] == "transforms":
        raise UsageError("--align transforms: prep bids takes none, rigid or affine")
    sources = bids_scans(folder, derivatives, image_suffix, None if desc == "none" else desc, person)
    make("prep bids", sources, f"BIDS data set: {folder.name}", **given)


@click.command()
@click.argument("folder", type=PATH)
@mapping_option(OASIS, " oasis-tissue takes slice_seg4, all others slice_seg24.", default="oasis-4", show_default=True)
@with_options(*SHARED)
def oasis2d(folder: Path, **given: Any) -> None:
    """Make a cache of neurite-OASIS in 2D: a folder a subject, with slice_norm and slice_seg24 (or slice_seg4)."""
    from metasynth.data_prep.layouts import check_oasis_table, oasis2d_scans

    ids = IDS.get(given["mapping"], OASIS)
    if ids != OASIS:
        allowed = f"expected {catalogue(OASIS)} or a file of lines id,class"
        raise UsageError(f"--mapping {given['mapping']}: {allowed}, got one of {ids}'s ids")
    segmentation = "slice_seg4" if given["mapping"] == "oasis-tissue" else "slice_seg24"
    sources = oasis2d_scans(folder, segmentation)
    if given["mapping"] in ("oasis-4", "oasis-24"):
        check_oasis_table(folder)
    make("prep oasis2d", sources, f"neurite-OASIS 2D: {folder.name}", flat=True, **given)


def _names(paths: tuple[str, ...]) -> str:
    """What the user gave, without the folders it lies in."""
    return printable(", ".join(Path(path).name for path in paths))


@click.command()
@click.argument("cache", type=PATH)
@click.option("--montage", metavar="PNG", type=PATH, help="Draw example slices into a file.")
@OVERWRITE
def inspect(cache: Path, montage: Path | None, overwrite: bool) -> None:
    """Check a cache and say what it holds."""
    from metasynth.data_prep.montage import describe, write_montage
    from metasynth.outputs import PICTURE, Output, check_outputs

    if montage is not None:
        picture = Output(f"--montage {montage}:", montage, PICTURE, overwrite, make_folder=False)
        check_outputs([picture], [cache])
    lines = describe(cache)
    width = max(len(what) for what, _ in lines)
    for what, value in lines:
        click.echo(f"{what.ljust(width)}  {value}")
    if montage is not None:
        write_montage(cache, montage)
        click.echo(f"Montage: {montage}")


PREP_COMMANDS = (template, labels, nifti, freesurfer, bids, oasis2d, priors, remap)
