"""The command that segments scans; it imports what it needs when it runs."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from metasynth.cli.completion import complete_file
from metasynth.cli.evaluate import evaluate
from metasynth.cli.failures import fail
from metasynth.cli.options import (
    DEVICE,
    IMAGE_SUFFIX,
    MASKS,
    OVERWRITE,
    PATH,
    QUIET,
    UNITS,
    out_option,
    renamed,
    threads_option,
)
from metasynth.errors import UsageError
from metasynth.lines import tell

if TYPE_CHECKING:
    from metasynth.data_prep.sources import Scan, Sources
    from metasynth.data_prep.volumes.files import Unit
    from metasynth.predict.naming.names import Ids
    from metasynth.segment.model_description import TrainedModel

NAMED = 3  # scans that a warning names
RANK_MEANS = "the least expected Dice first; on degraded scans its rank correlation with Dice was .93"


@click.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, shell_complete=complete_file)
@click.option(
    *("--model", "models"),
    metavar="NAME|FILE|RUN",
    multiple=True,
    shell_complete=complete_file,
    help="One of the package (metasynth models), a model file or the folder of a run; by default the one of the "
    "package that fits: of brains where every scan has a mask or is stripped, else of heads. Of several, given one by "
    "one, the mean is taken.",
)
@out_option("the label maps: a folder; with --bids, INPUT/derivatives/metasynth by default", "DIR")
@click.option("--bids", is_flag=True, help="INPUT is a BIDS data set, and DIR a derivative one.")
@IMAGE_SUFFIX
@click.option("--stage", metavar="NAME", help="Which segmenter of a run that has several.")
@renamed("--mask", "--masks", metavar="PATH", multiple=True, shell_complete=complete_file, help=MASKS)
@click.option("--stripped", is_flag=True, help="The scans show the brain alone already.")
@click.option("--posteriors", is_flag=True, help="Write the posteriors of all classes too (DIR/posteriors).")
@click.option(
    "--ids",
    type=click.Choice(["classes", "freesurfer"]),
    default="classes",
    show_default=True,
    help="What the numbers in label maps are: indices of the model's classes, or FreeSurfer's ids of them.",
)
@click.option(
    "--volumes",
    metavar="CSV|TSV",
    type=PATH,
    help="Write the volume of every class in mL, from the label maps; a .tsv is for statistics programs.",
)
@click.option("--qc", is_flag=True, help="Draw a picture of each scan, and rank them by the Dice to expect (DIR/qc).")
@UNITS
@OVERWRITE
@DEVICE
@threads_option(", or with --jobs one a process")
@click.option(
    *("--jobs", "processes"),
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    help="Processes side by side, one a scan; by default one. Each takes the memory of a scan.",
)
@QUIET
@click.pass_context
def predict(
    context: click.Context,
    inputs: tuple[str, ...],
    models: tuple[str, ...],
    out: Path | None,
    bids: bool,
    image_suffix: str,
    stage: str | None,
    masks: tuple[str, ...],
    stripped: bool,
    posteriors: bool,
    ids: "Ids",
    volumes: Path | None,
    qc: bool,
    unit: "Unit | None",
    overwrite: bool,
    device: str,
    threads: int | None,
    processes: int,
    quiet: bool,
) -> None:
    """Segment scans, with a model of the package or of a run.

    INPUT is a NIfTI or MGZ file, a folder or a pattern of them, or a text file with a path a line. Each label map has
    the voxels of its scan, whatever its orientation and spacing. What is there already is skipped; a file that cannot
    be used is named in the end, and the exit status is then 1. A run or a model file may stand before the scans, in
    place of --model.
    """
    from functools import partial

    from metasynth.data_prep.volumes.units import scaled_note
    from metasynth.predict.folder import Job, find_bids_scans, find_scans, predict_all
    from metasynth.predict.plan import RANKED
    from metasynth.predict.shipped import digest_of_models, fitting_model, named_model, split_inputs
    from metasynth.predict.usable import check_together
    from metasynth.running.device import configure_torch
    from metasynth.running.progress import Progress
    from metasynth.segment.model_file import load_model
    from metasynth.sizes import require_processes

    require_processes(processes, "--jobs")
    if context.get_parameter_source("image_suffix") is not ParameterSource.DEFAULT and not bids:
        raise UsageError(f"--image-suffix {image_suffix}: expected --bids too")
    scans: Sequence[str] = inputs
    if not models and not (bids and len(inputs) == 1):
        model, scans = split_inputs(inputs)
        models = () if model is None else (model,)
    out = _out_of(out, scans, bids)
    paths = list(dict.fromkeys(named_model(model, stage) for model in models))
    trained = [load_model(path) for path in paths]
    sources = find_bids_scans(Path(scans[0]), out, image_suffix, masks) if bids else find_scans(scans, masks)
    if not paths:
        paths = [fitting_model(sources, stripped, stage)]
        trained = [load_model(paths[0])]
    check_together(dict(zip(map(str, paths), trained, strict=True)))
    in_use, _ = configure_torch(device, threads)
    for each in trained:
        each.network.to(in_use)
    job = Job(out, posteriors, qc, overwrite, in_use, volumes, paths, unit, ids, bids, processes)
    progress = Progress(quiet)
    for line in _first_lines(paths, trained, sources, stripped):
        progress.say(line)
    prepare = partial(_begin, in_use, threads or 1)
    try:
        with progress.task("scans", len(sources.scans)) as task:
            outcome = predict_all(trained, digest_of_models(paths), sources, job, task.advance, prepare)
    except KeyboardInterrupt:
        progress.say("What is done is kept; the same command goes on from there.")
        raise
    if outcome.old:
        progress.say(f"Note: {_unknown(outcome.old)}")
    for note in scaled_note(outcome.scaled):
        progress.say(f"Note: {note}")
    for name, how in outcome.coarse:
        progress.say(f"Warning: {name}: {how}")
    if volumes is not None:
        tell(f"Volumes: {volumes} (mL, voxels of the label maps)", sys.stdout)
    if qc and outcome.done:
        progress.say(f"Note: scans to look at first: {out / 'qc' / RANKED} ({RANK_MEANS})")
    skipped = f", {len(outcome.skipped)} skipped as they are there already" if outcome.skipped else ""
    tell(f"Label maps: {out} ({len(outcome.done)} made{skipped})", sys.stdout)
    fail(progress.say, outcome.failed, len(sources.scans) + len(sources.left_out), "scans")


def _begin(device: str, threads: int) -> None:
    """What each process of --jobs does first."""
    from metasynth.running.device import configure_torch

    configure_torch(device, threads)


def _out_of(out: Path | None, inputs: Sequence[str], bids: bool) -> Path:
    """The folder to write to, once it is clear what is to be read."""
    if bids and len(inputs) > 1:
        raise UsageError(f"--bids: expected one INPUT, the folder of a BIDS data set; got {len(inputs)}")
    if out is None and not bids:
        raise click.MissingParameter(param_hint="'--out'", param_type="option")
    return out or Path(inputs[0]) / "derivatives" / "metasynth"


def _first_lines(
    paths: Sequence[Path], models: "Sequence[TrainedModel]", sources: "Sources", stripped: bool
) -> Iterator[str]:
    """What is said before the first scan: the models, notes on the scans, and a warning if masks are missing."""
    for path, model in zip(paths, models, strict=True):
        origin = model.description.origin
        yield f"Model: {path}{f' ({origin})' if origin else ''}, trained on {model.description.needs}"
    for note in sources.notes:
        yield f"Note: {' '.join(note.split())}"
    unmasked = [scan for scan in sources.scans if scan.mask is None]
    if unmasked and not stripped and not models[0].description.takes_heads:
        yield _warning(models[0], unmasked, len(sources.scans))


def _warning(model: "TrainedModel", unmasked: "list[Scan]", total: int) -> str:
    """The line that says which preprocessing is missing."""
    names = ", ".join(scan.name for scan in unmasked[:NAMED]) + (", ..." if len(unmasked) > NAMED else "")
    needs = "shows the brain alone" if model.description.brain_only else "is scaled by the brain's intensities"
    return (
        f"Warning: no brain mask for {len(unmasked)} of {total} scans ({names}), and the model needs an image that "
        f"{needs}: all of it but its background is taken for brain; expect errors, or give --masks PATH (or "
        "--stripped if nothing but brain is in it)"
    )


def _unknown(names: list[str]) -> str:
    """The line on label maps that an earlier version made."""
    listed = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
    return (
        f"{len(names)} label maps that were skipped do not say which scan and mask they were made of, as an earlier "
        f"version made them ({listed}); --overwrite makes them again"
    )


PREDICT_COMMANDS = (predict, evaluate)
