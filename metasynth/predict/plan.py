"""What a command is to make of scans, and whether anything is in the way of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metasynth.data_prep.sources import Scan, Sources
from metasynth.data_prep.volumes.files import Unit
from metasynth.errors import DataError, UsageError
from metasynth.outputs import Kind, Output, check_outputs, csv_cell, is_picture, same_file
from metasynth.predict.files import is_label_map, output_suffix
from metasynth.predict.naming.bids import dataset_files, derived_place
from metasynth.predict.naming.names import TABLES, Ids, Label, bids_table, posterior_names
from metasynth.predict.record import FolderRecord, origin_of
from metasynth.predict.tables import read_heading

SCORES, RANKED = "scores.csv", "qc.tsv"


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
        Draw a picture of each scan, note how certain the labels are, and rank the scans by the Dice that is expected.
    overwrite : bool
        Make again what is there.
    device : str
        Where the network runs.
    volumes : Path or None
        A table of the classes' volumes to write, or None.
    read : sequence of Path
        Files that are read beside the scans: the models.
    unit : Unit or None
        What the affines of all files are in; None takes what their headers say.
    ids : Ids
        What numbers the label maps hold.
    bids : bool
        The folder is a derivative data set of BIDS, and the scans are of one.
    processes : int
        Scans that are segmented side by side, each by a process of its own.
    """

    out: Path
    posteriors: bool = False
    qc: bool = False
    overwrite: bool = False
    device: str = "cpu"
    volumes: Path | None = None
    read: Sequence[Path] = ()
    unit: Unit | None = None
    ids: Ids = "classes"
    bids: bool = False
    processes: int = 1

    def label_map(self, scan: Scan) -> Path:
        """The label map of a scan."""
        return self._place(scan, "dseg.nii.gz") or self.out / (scan.name + output_suffix(image_of(scan)))

    def posterior_map(self, scan: Scan) -> Path:
        """The posteriors of a scan."""
        return self._place(scan, "probseg.nii.gz") or self.out / "posteriors" / self.label_map(scan).name

    def picture(self, scan: Scan) -> Path:
        """The picture of a scan."""
        return self.out / "qc" / f"{scan.name}.png"

    def texts(self, scan: Scan, labels: Sequence[Label]) -> dict[Path, str]:
        """What stands beside the label map and the posteriors of a scan, to say what is in them."""
        table, names = self._place(scan, "dseg.tsv"), self._place(scan, "probseg.json")
        found = {} if table is None else {table: bids_table(labels)}
        return found if names is None or not self.posteriors else {**found, names: posterior_names(labels)}

    def folder_texts(self, labels: Sequence[Label], digest: str) -> dict[Path, str]:
        """What says of the whole folder what is in its files."""
        texts = {name: table(labels) for name, table in TABLES.items()}
        if self.bids:
            texts |= dataset_files(digest)
        elif self.posteriors:
            texts["posteriors/probseg.json"] = posterior_names(labels)
        return {self.out / name: text for name, text in texts.items()}

    def files(self, scan: Scan, labels: Sequence[Label]) -> list[Path]:
        """All that is made of a scan, the label map last: where it is, the scan is done."""
        made = [*([self.posterior_map(scan)] if self.posteriors else []), *([self.picture(scan)] if self.qc else [])]
        return [*made, *self.texts(scan, labels), self.label_map(scan)]

    def _place(self, scan: Scan, ending: str) -> Path | None:
        return self.out / derived_place(image_of(scan), ending) if self.bids else None


def plan(
    record: FolderRecord, sources: Sources, job: Job, labels: Sequence[Label], further: Sequence[Output] = ()
) -> set[str]:
    """Names of the scans that are done, once nothing that will be written is in the way of anything.

    Parameters
    ----------
    record : FolderRecord
        Of the job's folder.
    sources : Sources
        The scans.
    job : Job
        What to make of them.
    labels : sequence of Label
        Of the label maps.
    further : sequence of Output
        What else will be written.

    Raises
    ------
    UsageError
        Something is.
    """
    for scan in sources.scans:
        for path in scan.files:
            if same_file(path.parent, job.label_map(scan).parent):
                raise UsageError(f"--out {job.out}: is where the input {path} lies; give another folder")
    if record.model not in (None, record.digest) and not job.overwrite:
        raise UsageError(f"--out {job.out}: holds label maps of another model; give another folder or --overwrite")
    if record.has_other_ids and not job.overwrite:
        raise UsageError(f"--out {job.out}: holds label maps with other --ids; give another folder or --overwrite")
    ours = Kind("label map", (), lambda path: record.knows(path) or is_label_map(path))
    picture = Kind("picture", (), lambda path: record.knows(path) or is_picture(path))
    skipped, outputs = set(), [*_scores(record, job), *further]
    for scan in sources.scans:
        try:
            wanted = missing(record, scan, job, labels)
        except DataError:
            continue  # it will fail when its turn comes, and nothing of it will be written
        if not wanted:
            skipped.add(scan.name)
        for path, difference in wanted.items():
            text = job.texts(scan, labels).get(path)
            kind = picture if path.suffix == ".png" else ours if text is None else _table(record, text)
            replace = job.overwrite or record.is_unfinished(path)
            taken = f"{difference}; give another folder or --overwrite"
            outputs.append(Output(f"--out {job.out}: {path}", path, kind, replace, taken=taken))
    for path, text in missing_texts(record, job, labels).items():
        outputs.append(Output(f"--out {job.out}: {path}", path, _table(record, text), replace=True))
    check_outputs(outputs, [*job.read, *(path for scan in sources.scans for path in scan.files)])
    made = {output.path for output in outputs}
    kept = [name for name in record.of_other_models() if job.out / name not in made]
    if kept:
        other = "with other --ids" if record.model == record.digest else "of another model"
        raise UsageError(f"--out {job.out}: holds {kept[0]} {other}, which is not made again now; give another folder")
    return skipped


def missing(record: FolderRecord, scan: Scan, job: Job, labels: Sequence[Label]) -> dict[Path, str | None]:
    """The files to be made of a scan, each with how the one that is there differs.

    Raises
    ------
    DataError
        The scan cannot be read.
    """
    files = job.files(scan, labels)
    if job.overwrite or not any(path.is_file() for path in files):
        return dict.fromkeys(files)
    origin = origin_of(record, scan)
    differences = {path: record.difference(path, origin) for path in files}
    return {path: differs for path, differs in differences.items() if differs or not path.is_file()}


def missing_texts(record: FolderRecord, job: Job, labels: Sequence[Label]) -> dict[Path, str]:
    """What the folder lacks of that which says what is in its files; what somebody changed stays as it is."""
    texts = job.folder_texts(labels, record.digest)
    return {
        path: text
        for path, text in texts.items()
        if not path.is_file() or record.difference(path, record.origin) is not None
    }


def _table(record: FolderRecord, text: str) -> Kind:
    """What says what is in other files; one that the record does not know is ours if it says the same."""
    return Kind("description of label maps", (), lambda path: record.knows(path) or path.read_bytes() == text.encode())


def _scores(record: FolderRecord, job: Job) -> list[Output]:
    """The tables of scores; those that these label maps gave before are written anew."""
    if not job.qc:
        return []
    # Of another model's scores, which --overwrite replaces, the first two columns are the same.
    known = 2 if job.overwrite else None

    def output(name: str, heading: Sequence[str]) -> Output:
        path = job.out / "qc" / name
        kind = Kind("table of scores", (), lambda path: read_heading(path)[:known] == heading[:known])
        return Output(f"--out {job.out}: {path}", path, kind, replace=True)

    return [output(SCORES, scored(record.class_names)), output(RANKED, ranked(record.class_names))]


def scored(class_names: Sequence[str]) -> list[str]:
    """The heading of the table of scores."""
    return ["name", "all", *map(csv_cell, class_names[1:])]


def ranked(class_names: Sequence[str]) -> list[str]:
    """The heading of the table that ranks scans."""
    return ["name", "expected_dice", *map(csv_cell, class_names[1:])]


def image_of(scan: Scan) -> Path:
    """The file of a scan's image."""
    assert scan.image is not None
    return scan.image
