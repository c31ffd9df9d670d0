"""The commands that use a trained segmenter and score label maps; they import what they need when they run."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from metasynth.cli.completion import complete_file
from metasynth.cli.options import (
    DEVICE,
    MASKS,
    OVERWRITE,
    PATH,
    QUIET,
    UNITS,
    UNKNOWN,
    mapping_option,
    out_option,
    renamed,
    threads_option,
)
from metasynth.errors import DataError
from metasynth.lines import tell

if TYPE_CHECKING:
    from metasynth.data_prep.sources import Scan, Sources
    from metasynth.data_prep.volumes.files import Unit
    from metasynth.predict.summary import Record
    from metasynth.segment.model_description import TrainedModel

NAMED = 3  # scans that a warning names
HEADINGS = {
    "class": "class",
    "subjects": "subjects",
    "dice": "Dice",
    "dice_sd": "sd",
    "hd95_mm": "HD95 (mm)",
    "missed": "missed",
    "volume_error_percent": "volume error (%)",
}


@click.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, shell_complete=complete_file)
@click.option(
    "--model",
    metavar="NAME|FILE|RUN",
    shell_complete=complete_file,
    help="One of the package (metasynth models), a model file or the folder of a run; by default the one of the "
    "package that fits: of brains where every scan has a mask or is stripped, else of heads.",
)
@out_option("the label maps: a folder", "DIR", required=True)
@click.option("--stage", metavar="NAME", help="Which segmenter of a run that has several.")
@renamed("--mask", "--masks", metavar="PATH", multiple=True, shell_complete=complete_file, help=MASKS)
@click.option("--stripped", is_flag=True, help="The scans show the brain alone already.")
@click.option("--posteriors", is_flag=True, help="Write the posteriors of all classes too (DIR/posteriors).")
@click.option("--volumes", metavar="CSV", type=PATH, help="Write the volume of every class in mL, from the label maps.")
@click.option("--qc", is_flag=True, help="Draw a picture of each scan and note how certain its labels are (DIR/qc).")
@UNITS
@OVERWRITE
@DEVICE
@threads_option()
@QUIET
def predict(
    inputs: tuple[str, ...],
    model: str | None,
    out: Path,
    stage: str | None,
    masks: tuple[str, ...],
    stripped: bool,
    posteriors: bool,
    volumes: Path | None,
    qc: bool,
    unit: "Unit | None",
    overwrite: bool,
    device: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Segment scans, with a model of the package or of a run.

    INPUT is a NIfTI or MGZ file, a folder or a pattern of them, or a text file with a path a line. Each label map has
    the voxels of its scan, whatever its orientation and spacing. What is there already is skipped; a file that cannot
    be used is named in the end, and the exit status is then 1. A run or a model file may stand before the scans, in
    place of --model.
    """
    import hashlib

    from metasynth.data_prep.volumes.units import scaled_note
    from metasynth.predict.folder import Job, find_scans, predict_all
    from metasynth.predict.shipped import fitting_model, named_model, split_inputs
    from metasynth.running.device import configure_torch
    from metasynth.running.progress import Progress
    from metasynth.segment.model_file import load_model

    scans: Sequence[str] = inputs
    if model is None:
        model, scans = split_inputs(inputs)
    path = None if model is None else named_model(model, stage)
    trained = None if path is None else load_model(path)
    sources = find_scans(scans, masks)
    if path is None or trained is None:
        path = fitting_model(sources, stripped, stage)
        trained = load_model(path)
    in_use, _ = configure_torch(device, threads)
    trained.network.to(in_use)
    job = Job(out, posteriors, qc, overwrite, in_use, volumes, [path], unit)
    progress = Progress(quiet)
    for line in _first_lines(path, trained, sources, stripped):
        progress.say(line)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        with progress.task("scans", len(sources.scans)) as task:
            outcome = predict_all(trained, digest, sources, job, task.advance)
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
    skipped = f", {len(outcome.skipped)} skipped as they are there already" if outcome.skipped else ""
    tell(f"Label maps: {out} ({len(outcome.done)} made{skipped})", sys.stdout)
    _fail(progress.say, outcome.failed, len(sources.scans) + len(sources.left_out), "scans")


@click.command()
@click.argument("predictions", shell_complete=complete_file)
@click.argument("references", shell_complete=complete_file)
@out_option("the table: a row a subject and class", "CSV", required=True)
@mapping_option(more=" Of the references; by default their labels are the classes.")
@UNKNOWN
@click.option("--classes", metavar="A,B,...", help="Score these alone: names or numbers. By default all but 0.")
@UNITS
@OVERWRITE
@QUIET
def evaluate(
    predictions: str,
    references: str,
    out: Path,
    mapping: str | None,
    unknown: Literal["error", "background"],
    classes: str | None,
    unit: "Unit | None",
    overwrite: bool,
    quiet: bool,
) -> None:
    """Score label maps (PREDICTIONS) against REFERENCES: files, folders, patterns or lists, paired by name.

    Dice; HD95 in mm, the larger of the 95 % quantiles of the surface distances both ways; volumes in mL and the error
    of the predicted one in per cent of the reference.
    """
    from metasynth.data_prep.mappings import load_mapping
    from metasynth.data_prep.volumes.units import scaled_note
    from metasynth.outputs import Kind, Output, check_outputs
    from metasynth.predict.evaluate import COLUMNS, classes_of, find_pairs, score_all
    from metasynth.predict.tables import read_heading, write_table
    from metasynth.running.progress import Progress

    wanted = classes_of(predictions, load_mapping(mapping) if mapping else None, unknown)
    if classes is not None:
        wanted = wanted.choose(classes)
    scans, alone, unclear = find_pairs(predictions, references)
    table = Kind("table of scores", (".csv",), lambda path: read_heading(path) == list(COLUMNS))
    read = [*(path for scan in scans for path in scan.files), *alone, *([Path(mapping)] if mapping else [])]
    check_outputs([Output(f"--out {out}:", out, table, overwrite)], read)
    progress = Progress(quiet)
    with progress.task("subjects", len(scans)) as task:
        found = score_all(scans, wanted, unit, task.advance)
    records, failed = found.records, [*unclear, *found.failed]
    for note in scaled_note(found.scaled):
        progress.say(f"Note: {note}")
    if alone:
        progress.say(f"Note: without a partner of their name: {', '.join(map(str, alone))}")
    if not records and not failed:
        raise DataError(f"{predictions}: neither it nor {references} holds a label above 0")
    if records:
        write_table(out, records)
        _tell_means(records)
        tell(f"\nTable: {out} ({len(scans) - len(found.failed)} subjects)", sys.stdout)
    _fail(progress.say, failed, len(scans) + len(unclear), "subjects")


def _first_lines(path: Path, model: "TrainedModel", sources: "Sources", stripped: bool) -> Iterator[str]:
    """What is said before the first scan: the model, notes on the scans, and a warning if masks are missing."""
    origin = model.description.origin
    yield f"Model: {path}{f' ({origin})' if origin else ''}, trained on {model.description.needs}"
    for note in sources.notes:
        yield f"Note: {' '.join(note.split())}"
    unmasked = [scan for scan in sources.scans if scan.mask is None]
    if unmasked and not stripped and not model.description.takes_heads:
        yield _warning(model, unmasked, len(sources.scans))


def _tell_means(records: "list[Record]") -> None:
    """Print the table of means over subjects."""
    from metasynth.predict.summary import summary
    from metasynth.report.tables import Table

    tell(Table.from_records("Means over subjects.", summary(records), HEADINGS).markdown().rstrip(), sys.stdout)


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


def _fail(say: Callable[[str], None], failed: list[tuple[str, str]], total: int, what: str) -> None:
    """Name what failed, and end with status 1 if anything did."""
    for name, reason in failed:
        say(f"Failed: {name}: {' '.join(reason.split())}")
    if failed:
        raise DataError(f"{len(failed)} of {total} {what} failed: {', '.join(name for name, _ in failed)}")


PREDICT_COMMANDS = (predict, evaluate)
