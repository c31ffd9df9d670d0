"""The command that scores label maps; it imports what it needs when it runs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from metasynth.cli.completion import complete_file
from metasynth.cli.failures import fail
from metasynth.cli.options import OVERWRITE, QUIET, UNITS, UNKNOWN, mapping_option, out_option
from metasynth.errors import DataError
from metasynth.lines import tell

if TYPE_CHECKING:
    from metasynth.data_prep.volumes.files import Unit
    from metasynth.predict.summary import Record

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
    fail(progress.say, failed, len(scans) + len(unclear), "subjects")


def _tell_means(records: "list[Record]") -> None:
    """Print the table of means over subjects."""
    from metasynth.predict.summary import summary
    from metasynth.report.tables import Table

    tell(Table.from_records("Means over subjects.", summary(records), HEADINGS).markdown().rstrip(), sys.stdout)
