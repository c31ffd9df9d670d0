"""Many scans into one folder: what is there already is left, what fails is named, the others go on.

The folder holds a label map a scan, called as the scan; `posteriors/` and `qc/` where they were asked for; and
`segmentation.json`, which says which model made them and what its classes are.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metasynth.data_prep.names import listed, name_files, stem
from metasynth.data_prep.sources import Scan, Sources, find_files, with_files
from metasynth.data_prep.volumes import read_image, read_labels
from metasynth.errors import DataError, UsageError
from metasynth.files import write_atomically
from metasynth.predict.files import output_suffix, read_label_map, voxel_volume_ml, write_like
from metasynth.predict.qc import write_picture
from metasynth.predict.scan import check_usable, segment
from metasynth.predict.tables import read_table, write_table
from metasynth.segment.model_description import TrainedModel

RECORD = "segmentation.json"
SCORES = "scores.csv"


@dataclass(frozen=True)
class Job:
    """What to make of every scan.

    Attributes:
        out: The folder.
        posteriors: Keep the posteriors of all classes.
        qc: Draw a picture of each scan and note how certain the labels are.
        overwrite: Make again what is there.
        device: Where the network runs.

    """

    out: Path
    posteriors: bool = False
    qc: bool = False
    overwrite: bool = False
    device: str = "cpu"

    def label_map(self, scan: Scan) -> Path:
        """The label map of a scan."""
        return self.out / (scan.name + output_suffix(_image(scan)))

    def files(self, scan: Scan) -> list[Path]:
        """All that is made of a scan, the label map last: where it is, the scan is done."""
        made = []
        if self.posteriors:
            made.append(self.out / "posteriors" / self.label_map(scan).name)
        if self.qc:
            made.append(self.out / "qc" / f"{scan.name}.png")
        return [*made, self.label_map(scan)]


@dataclass
class Outcome:
    """What became of the scans, by name.

    Attributes:
        done: Segmented now.
        skipped: Those that were there already.
        failed: (name, reason).

    """

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


def find_scans(inputs: Sequence[str], masks: Sequence[str]) -> Sources:
    """Scans of files, folders, patterns and text lists, with the masks whose names belong to theirs.

    A scan without a mask is kept; one that several masks may belong to, or whose name several files have, is left out.
    One scan and one mask belong together whatever their names.

    Raises:
        UsageError: Something given does not exist or holds no file, or no mask has the name of a scan.

    """
    named = name_files(find_files(inputs, "INPUT"))
    scans = [Scan(name, None, path) for name, path in sorted(named.files.items())]
    found = Sources(scans, [*named.doubles.items()], named.notes)
    if not masks:
        return found
    files = find_files(masks, "--mask")
    masked = with_files(found, files, "mask", required=False)
    if scans and len(masked.scans) == len(scans) and not any(scan.mask for scan in masked.scans):
        theirs, ours = listed([stem(path) for path in files]), listed([scan.name for scan in scans])
        raise UsageError(
            f"--mask: none of the {len(files)} files given has the name of an input; they are called {theirs}, the "
            f"inputs {ours}"
        )
    return masked


def predict_all(
    model: TrainedModel, digest: str, sources: Sources, job: Job, progress: Callable[[], None] | None = None
) -> Outcome:
    """Segment every scan that is not done.

    Args:
        model: Whose network is on the job's device.
        digest: SHA-256 of the model's file, kept in the folder: label maps of two models do not mix.
        sources: The scans; what was left out counts as failed.
        job: What to make.
        progress: Called after every scan.

    Raises:
        UsageError: The folder holds label maps of another model, or the scans themselves.
        DataError: The model needs images of another kind.
        RunError: A file cannot be written.

    """
    check_usable(model)
    for scan in sources.scans:
        if job.label_map(scan).resolve() == _image(scan).resolve():
            raise UsageError(f"--out {job.out}: is where the input {scan.image} lies; give another folder")
    _record(model, digest, job)
    outcome = Outcome(failed=list(sources.left_out))
    for scan in sources.scans:
        if not job.overwrite and all(path.is_file() for path in job.files(scan)):
            outcome.skipped.append(scan.name)
        else:
            try:
                _predict(model, scan, job)
                outcome.done.append(scan.name)
            except DataError as error:
                outcome.failed.append((scan.name, str(error)))
            except (MemoryError, torch.OutOfMemoryError):
                outcome.failed.append((scan.name, f"{scan.image}: is too large for the memory there is"))
        if progress is not None:
            progress()
    return outcome


def write_volumes(path: Path, sources: Sources, job: Job, class_names: Sequence[str]) -> None:
    """Write the volume in mL of every class but background in every label map that is there, counted in voxels.

    Raises:
        RunError: The file cannot be written.

    """
    records: list[dict[str, Any]] = []
    for scan in sources.scans:
        if job.label_map(scan).is_file():
            labels = read_label_map(job.label_map(scan))
            counts = np.bincount(labels.data.ravel(), minlength=len(class_names))
            millilitres = (counts * voxel_volume_ml(labels)).tolist()
            records.append({"name": scan.name, **dict(zip(class_names[1:], millilitres[1:], strict=False))})
    write_table(path, records)


def _predict(model: TrainedModel, scan: Scan, job: Job) -> None:
    image = read_image(_image(scan))
    mask = None if scan.mask is None else read_labels(scan.mask)
    found = segment(model, image, mask, device=job.device, keep_posteriors=job.posteriors)
    names = model.description.class_names
    paths = job.files(scan)
    if found.posteriors is not None:
        write_like(paths[0], found.posteriors, _image(scan))
    if job.qc:
        _note_score(job.out / "qc" / SCORES, scan.name, found.labels, found.certainty, names)
        write_picture(paths[-2], image, found.labels, names)
    write_like(paths[-1], found.labels, _image(scan))


def _note_score(path: Path, name: str, labels: np.ndarray, certainty: np.ndarray, class_names: Sequence[str]) -> None:
    """Add a scan to the table of scores, or replace its row: the mean posterior of the label, in all but background."""
    record: dict[str, Any] = {"name": name, "all": _mean(certainty[labels > 0])}
    record |= {class_name: _mean(certainty[labels == k]) for k, class_name in enumerate(class_names) if k}
    others = [row for row in read_table(path) if row.keys() == record.keys() and row["name"] != name]
    write_table(path, sorted([*others, record], key=lambda row: row["name"]))


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean(dtype=np.float64)) if values.size else None


def _record(model: TrainedModel, digest: str, job: Job) -> None:
    """Write what the folder holds; UsageError if that is label maps of another model."""
    path = job.out / RECORD
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["sha256"]
    except FileNotFoundError:
        before = digest
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--out {job.out}: {RECORD} in it cannot be read; give another folder") from error
    if before != digest and not job.overwrite:
        raise UsageError(f"--out {job.out}: holds label maps of another model; give another folder or --overwrite")
    description = asdict(model.description)
    content = {"classes": description["class_names"], "sha256": digest, "model": description}
    write_atomically(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def _image(scan: Scan) -> Path:
    assert scan.image is not None
    return scan.image
