"""What a command is to make of scans, and whether anything is in the way of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metasynth.data_prep.sources import Scan, Sources
from metasynth.data_prep.volumes.files import Unit
from metasynth.errors import DataError, UsageError
from metasynth.outputs import Kind, Output, check_outputs, csv_cell, is_picture, same_file
from metasynth.predict.files import digest_of, is_label_map, output_suffix
from metasynth.predict.record import FolderRecord, origin_of
from metasynth.predict.tables import read_heading

SCORES = "scores.csv"


@dataclass(frozen=True)
class Job:
    """What to make of every scan.

    Attributes
    ----------
    out : Path
        The folder.
    posteriors : bool
        Keep the posteriors of all classes.
    qc : bool
        Draw a picture of each scan and note how certain the labels are.
    overwrite : bool
        Make again what is there.
    device : str
        Where the network runs.
    volumes : Path or None
        A table of the classes' volumes to write, or None.
    read : sequence of Path
        Files that are read beside the scans: the model.
    unit : Unit or None
        What the affines of all files are in; None takes what their headers say.
    """

    out: Path
    posteriors: bool = False
    qc: bool = False
    overwrite: bool = False
    device: str = "cpu"
    volumes: Path | None = None
    read: Sequence[Path] = ()
    unit: Unit | None = None

    def label_map(self, scan: Scan) -> Path:
        """The label map of a scan."""
        return self.out / (scan.name + output_suffix(image_of(scan)))

    def files(self, scan: Scan) -> list[Path]:
        """All that is made of a scan, the label map last: where it is, the scan is done."""
        made = []
        if self.posteriors:
            made.append(self.out / "posteriors" / self.label_map(scan).name)
        if self.qc:
            made.append(self.out / "qc" / f"{scan.name}.png")
        return [*made, self.label_map(scan)]


def plan(record: FolderRecord, sources: Sources, job: Job, class_names: Sequence[str]) -> set[str]:
    """Names of the scans that are done, once nothing that will be written is in the way of anything.

    Raises
    ------
    UsageError
        Something is.
    """
    for scan in sources.scans:
        for path in scan.files:
            if same_file(path.parent, job.out):
                raise UsageError(f"--out {job.out}: is where the input {path} lies; give another folder")
    if record.model not in (None, record.digest) and not job.overwrite:
        raise UsageError(f"--out {job.out}: holds label maps of another model; give another folder or --overwrite")
    ours = Kind("label map", (), lambda path: record.knows(path) or is_label_map(path))
    picture = Kind("picture", (), lambda path: record.knows(path) or is_picture(path))
    skipped, outputs = set(), _tables(record, job, class_names)
    for scan in sources.scans:
        try:
            wanted = missing(record, scan, job)
        except DataError:
            continue  # it will fail when its turn comes, and nothing of it will be written
        if not wanted:
            skipped.add(scan.name)
        for path, difference in wanted.items():
            kind = picture if path.suffix == ".png" else ours
            replace = job.overwrite or record.is_unfinished(path)
            taken = f"{difference}; give another folder or --overwrite"
            outputs.append(Output(f"--out {job.out}: {path}", path, kind, replace, taken=taken))
    check_outputs(outputs, [*job.read, *(path for scan in sources.scans for path in scan.files)])
    made = {output.path for output in outputs}
    kept = [name for name in record.of_other_models() if job.out / name not in made]
    if kept:
        raise UsageError(
            f"--out {job.out}: holds {kept[0]} of another model, which is not made again now; give another folder"
        )
    return skipped


def missing(record: FolderRecord, scan: Scan, job: Job) -> dict[Path, str | None]:
    """The files to be made of a scan, each with how the one that is there differs.

    Raises
    ------
    DataError
        The scan cannot be read.
    """
    files = job.files(scan)
    if job.overwrite or not any(path.is_file() for path in files):
        return dict.fromkeys(files)
    origin = origin_of(record.digest, scan)
    differences = {path: record.difference(path, origin) for path in files}
    return {path: differs for path, differs in differences.items() if differs or not path.is_file()}


def _tables(record: FolderRecord, job: Job, class_names: Sequence[str]) -> list[Output]:
    """The tables that are written; one that these label maps gave before is written anew."""
    outputs = []
    if job.qc:
        path = job.out / "qc" / SCORES
        # Of another model's scores, which --overwrite replaces, the first two columns are the same.
        known = 2 if job.overwrite else None
        kind = Kind("table of scores", (), lambda path: read_heading(path)[:known] == scored(class_names)[:known])
        outputs.append(Output(f"--out {job.out}: {path}", path, kind, replace=True))
    if job.volumes is not None:
        path = job.volumes
        kind = Kind("table of volumes", (".csv",), lambda path: read_heading(path) == measured(class_names))
        same = path.is_file() and digest_of(path) in record.tables
        outputs.append(Output(f"--volumes {path}:", path, kind, job.overwrite or same))
    return outputs


def scored(class_names: Sequence[str]) -> list[str]:
    """The heading of the table of scores."""
    return ["name", "all", *map(csv_cell, class_names[1:])]


def measured(class_names: Sequence[str]) -> list[str]:
    """The heading of the table of volumes."""
    return ["name", *map(csv_cell, class_names[1:])]


def image_of(scan: Scan) -> Path:
    """The file of a scan's image."""
    assert scan.image is not None
    return scan.image
