"""The commands that make caches from files and look into them; they import what they need when they run."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metasynth.cli.options import GEOMETRY, IMAGES, PATH, PERSON, SHARED, TRANSFORMS, with_options
from metasynth.errors import UsageError
from metasynth.lines import tell
from metasynth.sizes import cores, require_processes
from metasynth.text import printable, shortened, whole_number

if TYPE_CHECKING:
    from metasynth.data_prep.options import Options
    from metasynth.data_prep.sources import Sources

COHORT_HELP = "template, mprage-young, mprage-older, flash-3, flash-5, flash-20 or flash-30, then -64, -96 or -192."


@click.command()
@click.option("--cohort", metavar="NAME", default="template-64", show_default=True, help=COHORT_HELP)
@click.option("--out", metavar="FILE", type=PATH, help="Copy the cache to this file.")
@click.option("--quiet", is_flag=True, help="Plain lines instead of progress bars.")
def template(cohort: str, out: Path | None, quiet: bool) -> None:
    """Make an embedded cohort: one brain template under many seeded warps. Nothing is downloaded.

    The template cohorts have its own image; the images of all others are simulated, not scanned.

    It is made once and kept in the user's cache folder (METASYNTH_CACHE names another).
    """
    from metasynth.data.schema import CACHE
    from metasynth.data_prep.cohort import COHORTS, ensure_cohort
    from metasynth.files import write_atomically
    from metasynth.outputs import Output, check_outputs
    from metasynth.running.config import nearest
    from metasynth.running.progress import Progress

    if cohort not in COHORTS:
        raise UsageError(f"--cohort {cohort}: there is no such cohort: {nearest(cohort, COHORTS)}")
    if out is not None and out.exists():
        raise UsageError(f"--out {out}: exists already; give another name")
    if out is not None:
        check_outputs([Output(f"--out {out}:", out, CACHE, replace=False)], [])
    progress = Progress(quiet)
    with progress.counter(cohort) as follow:
        path = ensure_cohort(COHORTS[cohort], progress=follow, notice=progress.say)
    if out is not None:
        write_atomically(out, path.read_bytes())
    tell(f"Cohort: {out or path}", sys.stdout)


@click.command()
@click.argument("paths", metavar="PATHS...", nargs=-1, required=True)
@with_options(*GEOMETRY, TRANSFORMS, PERSON, *SHARED)
def labels(paths: tuple[str, ...], transforms: tuple[str, ...], person: str | None, **given: Any) -> None:
    """Make a cache of label maps alone: files, folders, patterns or text lists of paths."""
    from metasynth.data_prep.people import by_person
    from metasynth.data_prep.sources import find_files, label_scans

    sources = by_person(_transformed(label_scans(find_files(paths, "PATHS")), transforms), person)
    _make("prep labels", sources, f"label maps: {_names(paths)}", **_implied(given, transforms))


@click.command()
@click.option(
    "--images", metavar="PATH", multiple=True, required=True, help="Folder, pattern, file or list; repeatable."
)
@click.option("--labels", metavar="PATH", multiple=True, required=True, help="Likewise, of files of the same names.")
@with_options(*GEOMETRY, TRANSFORMS, *IMAGES, PERSON, *SHARED)
def nifti(
    images: tuple[str, ...], labels: tuple[str, ...], transforms: tuple[str, ...], person: str | None, **given: Any
) -> None:
    """Make a cache of images and their label maps (.nii, .nii.gz, .mgz), paired by name."""
    from metasynth.data_prep.people import by_person
    from metasynth.data_prep.sources import find_files, pair, with_files

    sources = pair(find_files(images, "--images"), find_files(labels, "--labels"))
    masks = given.pop("masks")
    if masks:
        sources = with_files(sources, find_files(masks, "--masks"), "mask")
    sources = by_person(_transformed(sources, transforms), person)
    _make(
        "prep nifti", sources, f"images: {_names(images)}; label maps: {_names(labels)}", **_implied(given, transforms)
    )


@click.command()
@click.argument("subjects_dir", type=PATH)
@click.option("--image", metavar="NAME", default="norm", show_default=True, help="Image in mri/, or 'none'.")
@click.option("--labels", metavar="NAME", default="aseg", show_default=True, help="Label map in mri/: aparc+aseg, ...")
@with_options(*GEOMETRY, *IMAGES[1:], PERSON, *SHARED)
def freesurfer(subjects_dir: Path, image: str, labels: str, person: str | None, **given: Any) -> None:
    """Make a cache of the subjects in a FreeSurfer SUBJECTS_DIR.

    Timepoints (sub-X_ses-Y, X.long.BASE) and bases of one person are one subject of the cache.

    --align transforms takes each subject's mri/transforms/talairach.xfm.
    """
    from metasynth.data_prep.layouts import freesurfer_scans

    transform = "mri/transforms/talairach.xfm" if given["align"] == "transforms" else None
    sources = freesurfer_scans(subjects_dir, None if image == "none" else image, labels, transform, person)
    _make("prep freesurfer", sources, f"FreeSurfer subjects: {subjects_dir.name}", **given)


@click.command()
@click.argument("folder", type=PATH)
@click.option("--derivatives", metavar="DIR", type=PATH, help="Where the segmentations are; FOLDER/derivatives.")
@click.option("--image-suffix", metavar="NAME", default="T1w", show_default=True, help="Suffix of the images.")
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
    _make("prep bids", sources, f"BIDS data set: {folder.name}", **given)


@click.command()
@click.argument("folder", type=PATH)
@click.option(
    "--mapping",
    metavar="NAME|CSV",
    default="oasis-4",
    show_default=True,
    help="oasis-4 or oasis-24 (of slice_seg24), oasis-tissue (of slice_seg4), or a file of id,class for slice_seg24.",
)
@with_options(*SHARED)
def oasis2d(folder: Path, **given: Any) -> None:
    """Make a cache of neurite-OASIS in 2D: a folder a subject, with slice_norm and slice_seg24 (or slice_seg4)."""
    from metasynth.data_prep.layouts import check_oasis_table, oasis2d_scans

    segmentation = "slice_seg4" if given["mapping"] == "oasis-tissue" else "slice_seg24"
    sources = oasis2d_scans(folder, segmentation)
    if given["mapping"] in ("oasis-4", "oasis-24"):
        check_oasis_table(folder)
    _make("prep oasis2d", sources, f"neurite-OASIS 2D: {folder.name}", flat=True, **given)


def _names(paths: tuple[str, ...]) -> str:
    """What the user gave, without the folders it lies in."""
    return printable(", ".join(Path(path).name for path in paths))


def _transformed(sources: "Sources", transforms: tuple[str, ...]) -> "Sources":
    from metasynth.data_prep.sources import find_files, with_files

    if not transforms:
        return sources
    return with_files(sources, find_files(transforms, "--transforms", (".xfm", ".txt", ".mat")), "transform")


def _implied(given: dict[str, Any], transforms: tuple[str, ...]) -> dict[str, Any]:
    """The options, with the alignment that giving transforms implies."""
    if transforms and given["align"] not in ("none", "transforms"):
        raise UsageError(f"--align {given['align']}: cannot go with --transforms")
    if given["align"] == "transforms" and not transforms:
        raise UsageError("--align transforms: needs --transforms PATH")
    return {**given, "align": "transforms"} if transforms else given


def _options(given: dict[str, Any]) -> "Options":
    """Options of the preparation from those of a command."""
    from metasynth.data_prep.align import require_simpleitk
    from metasynth.data_prep.mappings import load_mapping
    from metasynth.data_prep.options import Options
    from metasynth.data_prep.slicing import SliceChoice

    named = {"mapping": load_mapping(given["mapping"]), "unknown": given["unknown"], "flat": given.get("flat", False)}
    if named["flat"]:
        return Options(**named, unit="mm")  # affines do not matter
    if given["align"] in ("rigid", "affine"):
        require_simpleitk()
    if not 0 < given["every_mm"] < float("inf"):
        raise UsageError(f"--every: expected a number of mm above 0, got {given['every_mm']:g}")
    return Options(
        **named,
        **{key: given[key] for key in ("axis", "every_mm", "min_content", "volumes", "interpolation", "align", "unit")},
        slices=SliceChoice.parse(given["slices"]),
        spacing_mm=_spacing(given["spacing"]),
        strip=not given.get("no_strip", False),
        resample_labels=given.get("resample_labels", False),
    )


def _spacing(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or not all(0 < n < float("inf") for n in numbers):
        raise UsageError(f"--spacing {shortened(text)}: expected one number of mm above 0, or three with commas")
    x, y, z = numbers * 3 if len(numbers) == 1 else numbers
    return x, y, z


def _size(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.replace("x", ",").split(",")
    numbers = [number for part in parts if (number := whole_number(part)) is not None and number >= 0]
    if len(parts) not in (2, 3) or len(numbers) != len(parts):
        raise UsageError(f"--size {shortened(text)}: expected H,W or D,H,W")
    return tuple(numbers)


def _make(command: str, sources: "Sources", origin: str, **given: Any) -> None:
    """Make a cache and say what became of it."""
    from metasynth.data_prep.collect import make_cache
    from metasynth.data_prep.job import Job, outputs
    from metasynth.data_prep.slicing import Frame
    from metasynth.outputs import check_outputs
    from metasynth.running.progress import Progress

    out: Path = given["out"]
    job = Job(
        out=out,
        options=_options(given),
        frame=Frame(given.get("margin", 0.0), _size(given["size"]), given["divisor"]),
        command=command,
        source="; ".join(part for part in (origin, given["source"]) if part),
        processes=given["jobs"] or max(1, cores() // 2),
        keep_work=given["keep_work"],
        draw=not given["no_montage"],
    )
    read = [path for scan in sources.scans for path in scan.files]
    check_outputs(outputs(job, given["overwrite"]), [*read, Path(given["mapping"])])
    require_processes(job.processes, "--jobs")
    progress = Progress(given["quiet"])
    try:
        with progress.counter("subjects") as follow:
            report = make_cache(sources, job, follow)
    except KeyboardInterrupt:
        progress.say("What was prepared is kept; the same command goes on from there.")
        raise
    for name, reason in report.left_out:
        progress.say(f"Left out: {name}: {' '.join(reason.split())}")
    for note in report.notes:
        progress.say(f"Note: {' '.join(note.split())}")
    items = "volumes" if job.options.volumes else "slices"
    scans = f" ({len(report.used)} scans)" if len(report.used) != report.people else ""
    tell(f"Subjects: {report.people} used{scans}, {len(report.left_out)} left out", sys.stdout)
    tell(f"Cache: {out} ({sum(n for _, n in report.used)} {items} of {' x '.join(map(str, report.shape))})", sys.stdout)
    if job.draw:
        tell(f"Montage: {job.picture}", sys.stdout)


@click.command()
@click.argument("cache", type=PATH)
@click.option("--montage", metavar="PNG", type=PATH, help="Draw example slices into a file.")
@click.option("--overwrite", is_flag=True, help="Replace a picture that is there already.")
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


PREP_COMMANDS = (template, labels, nifti, freesurfer, bids, oasis2d)
