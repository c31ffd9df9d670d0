"""The table of volumes: a row a scan, and in mL a column a class and one of all classes together.

A .csv has the classes' names for its heading. A .tsv is for statistics programs: its heading are names that they take,
and a .json beside it says which class and number each of them is.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metasynth.data_prep.sources import Scan
from metasynth.data_prep.volumes.files import Unit
from metasynth.data_prep.volumes.volumes import read_labels
from metasynth.errors import DataError, UsageError
from metasynth.files import write_atomically
from metasynth.interrupts import check
from metasynth.outputs import Kind, Output, csv_cell, same_file
from metasynth.predict.files import digest_of, voxel_volume_ml
from metasynth.predict.naming.bids import person_and_session
from metasynth.predict.naming.names import Label, class_indices
from metasynth.predict.plan import Job, image_of
from metasynth.predict.record import FolderRecord
from metasynth.predict.recorded import RECORD
from metasynth.predict.tables import encoded, read_heading
from metasynth.text import parse_json

WHOLE = "brain"
"""All classes but the background together."""


def volume_outputs(record: FolderRecord, job: Job, labels: Sequence[Label]) -> list[Output]:
    """The table, and the description of one for statistics programs; what these label maps gave is written anew.

    Raises
    ------
    UsageError
        The description would be the folder's record.
    """
    path = job.volumes
    if path is None:
        return []
    headings = [list(columns(path, labels, bids=job.bids)), ["name", *_classes(labels)]]  # of earlier versions
    kind = Kind("table of volumes", (".csv", ".tsv"), lambda path: read_heading(path) in headings)
    same = path.is_file() and digest_of(path) in record.tables
    outputs = [Output(f"--volumes {path}:", path, kind, job.overwrite or same)]
    if is_tsv(path):
        beside = path.with_suffix(".json")
        if same_file(beside, record.folder / RECORD):
            raise UsageError(f"--volumes {path}: {beside} is the record of the folder; expected another name")
        about = Kind("description of volumes", (), lambda path: _described(path) == headings[0])
        outputs.append(Output(f"--volumes {path}: {beside}", beside, about, replace=True))
    return outputs


def write_volumes(
    record: FolderRecord, job: Job, scans: Sequence[Scan], labels: Sequence[Label]
) -> list[tuple[str, str]]:
    """Write the volumes in mL of every class but background in the label maps of scans, counted in voxels.

    Returns
    -------
    list of tuple (str, str)
        (name, reason) of the label maps that cannot be read.
    """
    assert job.volumes is not None
    heading, records, failed = columns(job.volumes, labels, bids=job.bids), [], []
    for scan in scans:
        check()
        try:
            volumes = _volumes(job.label_map(scan), job.unit, labels)
        except DataError as error:
            failed.append((scan.name, str(error)))
        else:
            who = person_and_session(image_of(scan)) if job.bids else ("", "")
            known: dict[int | str, Any] = {"participant_id": who[0], "session_id": who[1], "name": scan.name}
            values = {**known, **volumes}
            records.append({column: values[part] for column, part in heading.items()})
    table = encoded(records, list(heading), "\t" if is_tsv(job.volumes) else ",")
    with record.locked():
        record.note_table(job.volumes, hashlib.sha256(table).hexdigest())
    write_atomically(job.volumes, table)
    if is_tsv(job.volumes):
        write_atomically(job.volumes.with_suffix(".json"), _description(heading, labels).encode())
    return failed


def is_tsv(path: Path) -> bool:
    """Whether a table is one of tab-separated columns."""
    return path.name.lower().endswith(".tsv")


def columns(path: Path, labels: Sequence[Label], *, bids: bool = False) -> dict[str, int | str]:
    """{column: index of its label, or what else is in it}, in their order."""
    if not is_tsv(path):
        own: dict[str, int | str] = {"name": "name"}
        own |= {name: label.index for name, label in zip(_classes(labels), labels[1:], strict=True)}
        return own if WHOLE in own else {**own, WHOLE: WHOLE}
    who = ("participant_id", "session_id", "name") if bids else ("name",)
    found: dict[str, int | str] = {**dict(zip(who, who, strict=True)), f"{WHOLE}_ml": WHOLE}
    for label in labels[1:]:
        word = re.sub(r"\W+", "_", label.name.lower()).strip("_")
        word = word if word and not word[0].isdigit() else f"class_{word}".strip("_")
        while f"{word}_ml" in found:
            word = f"{word}_{label.index}"
        found[f"{word}_ml"] = label.index
    return found


def _classes(labels: Sequence[Label]) -> list[str]:
    return [csv_cell(label.name) for label in labels[1:]]


def _volumes(path: Path, unit: Unit | None, labels: Sequence[Label]) -> dict[int | str, float]:
    """Millilitres of every class but background in a label map, by its number, and of all of them."""
    volume = read_labels(path, unit, empty=True)
    counts = np.bincount(class_indices(volume, [label.index for label in labels]).ravel(), minlength=len(labels))
    each = (counts * voxel_volume_ml(volume)).tolist()[1:]
    return {WHOLE: sum(each), **{label.index: value for label, value in zip(labels[1:], each, strict=True)}}


def _description(heading: dict[str, int | str], labels: Sequence[Label]) -> str:
    """JSON that says what each column is, as BIDS describes columns."""
    names = {label.index: label.name for label in labels}
    said: dict[int | str, dict[str, int | str]] = {
        "participant_id": {"Description": "the person"},
        "session_id": {"Description": "the session"},
        "name": {"Description": "the scan"},
        WHOLE: {"LongName": WHOLE, "Description": "all classes but the background together", "Units": "mL"},
        **{index: {"LongName": name, "Index": index, "Units": "mL"} for index, name in names.items()},
    }
    return json.dumps({key: said[part] for key, part in heading.items()}, indent=2, ensure_ascii=False) + "\n"


def _described(path: Path) -> list[str]:
    """The columns that a description is of; none where it is no description."""
    try:
        content = parse_json(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    return list(content) if isinstance(content, dict) else []
