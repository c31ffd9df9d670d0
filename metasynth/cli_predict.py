"""The commands that use a trained segmenter and score label maps; they import what they need when they run."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from metasynth.cli_options import PATH
from metasynth.errors import DataError, UsageError

if TYPE_CHECKING:
    from metasynth.data_prep.sources import Scan
    from metasynth.segment.model_description import TrainedModel

NAMED = 3  # scans that a warning names


@click.command()
@click.argument("run", type=PATH)
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option("--out", metavar="DIR", type=PATH, required=True, help="Folder of the label maps.")
@click.option("--stage", metavar="NAME", help="Which segmenter of a run that has several.")
@click.option(
    "--mask", "masks", metavar="PATH", multiple=True, help="Brain masks of the scans' names: file, folder or list."
)
@click.option("--stripped", is_flag=True, help="The scans show the brain alone already.")
@click.option("--posteriors", is_flag=True, help="Write the posteriors of all classes too (DIR/posteriors).")
@click.option("--volumes", metavar="CSV", type=PATH, help="Write the volume of every class in mL, from the label maps.")
@click.option("--qc", is_flag=True, help="Draw a picture of each scan and note how certain its labels are (DIR/qc).")
@click.option("--overwrite", is_flag=True, help="Make label maps again that are there already.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--threads", metavar="N", type=click.IntRange(min=1), help="CPU threads of torch; by default half of the cores."
)
@click.option("--quiet", is_flag=True, help="Plain lines instead of progress bars.")
def predict(
    run: Path,
    inputs: tuple[str, ...],
    out: Path,
    stage: str | None,
    masks: tuple[str, ...],
    stripped: bool,
    posteriors: bool,
    volumes: Path | None,
    qc: bool,
    overwrite: bool,
    device: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Segment scans with the model of RUN: the folder of a run, or a model file.

    INPUT is a NIfTI or MGZ file, a folder or a pattern of them, or a text file with a path a line. Each label map has
    the voxels of its scan, whatever its orientation and spacing. What is there already is skipped; a file that cannot
    be used is named in the end, and the exit status is then 1.
    """
    import hashlib

    from metasynth.predict.folder import Job, find_scans, predict_all, write_volumes
    from metasynth.segment.model_file import find_model, load_model
    from metasynth.training.device import configure_torch
    from metasynth.training.progress import Progress

    path = find_model(run, stage)
    model = load_model(path)
    sources = find_scans(inputs, masks)
    in_use, _ = configure_torch(device, threads)
    model.network.to(in_use)
    job = Job(out, posteriors, qc, overwrite, in_use)
    progress = Progress(quiet)
    origin = model.description.origin
    progress.say(f"Model: {path}{f' ({origin})' if origin else ''}, trained on {model.description.needs}")
    for note in sources.notes:
        progress.say(f"Note: {' '.join(note.split())}")
    unmasked = [scan for scan in sources.scans if scan.mask is None]
    if unmasked and not stripped:
        progress.say(_warning(model, unmasked, len(sources.scans)))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        with progress.task("scans", len(sources.scans)) as task:
            outcome = predict_all(model, digest, sources, job, task.advance)
    except KeyboardInterrupt:
        progress.say("What is done is kept; the same command goes on from there.")
        raise
    if volumes is not None:
        write_volumes(volumes, sources, job, model.description.class_names)
        click.echo(f"Volumes: {volumes} (mL, voxels of the label maps)")
    skipped = f", {len(outcome.skipped)} skipped as they are there already" if outcome.skipped else ""
    click.echo(f"Label maps: {out} ({len(outcome.done)} made{skipped})")
    _fail(progress.say, outcome.failed, len(sources.scans) + len(sources.left_out), "scans")


@click.command()
@click.argument("predictions")
@click.argument("references")
@click.option("--out", metavar="CSV", type=PATH, required=True, help="The table: a row a subject and class.")
@click.option(
    "--mapping", metavar="NAME|CSV", help="Merge the references' labels into classes, as `metasynth prep` does."
)
@click.option(
    "--unknown",
    type=click.Choice(["error", "background"]),
    default="error",
    show_default=True,
    help="What to do with ids the mapping does not name.",
)
@click.option("--classes", metavar="A,B,...", help="Score these alone: names or numbers. By default all but 0.")
@click.option("--overwrite", is_flag=True, help="Replace a table that is there already.")
@click.option("--quiet", is_flag=True, help="Plain lines instead of progress bars.")
def evaluate(
    predictions: str,
    references: str,
    out: Path,
    mapping: str | None,
    unknown: Literal["error", "background"],
    classes: str | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Score label maps (PREDICTIONS) against REFERENCES: files, folders, patterns or lists, paired by name.

    Dice; HD95 in mm, the larger of the 95 % quantiles of the surface distances both ways; volumes in mL and the error
    of the predicted one in per cent of the reference.
    """
    from metasynth.data_prep.mappings import load_mapping
    from metasynth.predict.evaluate import classes_of, find_pairs, score, summary
    from metasynth.predict.tables import write_table
    from metasynth.report.tables import Table
    from metasynth.training.progress import Progress

    if out.exists() and not overwrite:
        raise UsageError(f"--out {out}: exists already; give another name or --overwrite")
    wanted = classes_of(predictions, load_mapping(mapping) if mapping else None, unknown)
    if classes is not None:
        wanted = wanted.choose(classes)
    scans, alone, failed = find_pairs(predictions, references)
    total = len(scans) + len(failed)
    progress = Progress(quiet)
    records = []
    with progress.task("subjects", len(scans)) as task:
        for scan in scans:
            try:
                records += score(scan, wanted)
            except DataError as error:
                failed.append((scan.name, str(error)))
            task.advance()
    if alone:
        progress.say(f"Note: without a partner of their name: {', '.join(map(str, alone))}")
    if not records and not failed:
        raise DataError(f"{predictions}: neither it nor {references} holds a label above 0")
    if records:
        write_table(out, records)
        headings = {
            "class": "class",
            "subjects": "subjects",
            "dice": "Dice",
            "dice_sd": "sd",
            "hd95_mm": "HD95 (mm)",
            "missed": "missed",
            "volume_error_percent": "volume error (%)",
        }
        click.echo(Table.from_records("Means over subjects.", summary(records), headings).markdown().rstrip())
        click.echo(f"\nTable: {out} ({total - len(failed)} subjects)")
    _fail(progress.say, failed, total, "subjects")


def _warning(model: "TrainedModel", unmasked: "list[Scan]", total: int) -> str:
    """The line that says which preprocessing is missing."""
    names = ", ".join(scan.name for scan in unmasked[:NAMED]) + (", ..." if len(unmasked) > NAMED else "")
    needs = "shows the brain alone" if model.description.brain_only else "is scaled by the brain's intensities"
    return (
        f"Warning: no brain mask for {len(unmasked)} of {total} scans ({names}), and the model needs an image that "
        f"{needs}: all of it but its background is taken for brain; expect errors, or give --mask PATH (or "
        "--stripped if nothing but brain is in it)"
    )


def _fail(say: Callable[[str], None], failed: list[tuple[str, str]], total: int, what: str) -> None:
    """Name what failed, and end with status 1 if anything did."""
    for name, reason in failed:
        say(f"Failed: {name}: {' '.join(reason.split())}")
    if failed:
        raise DataError(f"{len(failed)} of {total} {what} failed: {', '.join(name for name, _ in failed)}")


PREDICT_COMMANDS = (predict, evaluate)
