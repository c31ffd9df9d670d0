"""Many scans into one folder: what is there already is left, what fails is named, the others go on.

The folder holds a label map a scan, called as the scan; `posteriors/` and `qc/` where they were asked for; and
`segmentation.json` (see `record`), which says which model made them, of what, and what its classes are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from metasynth.data_prep.layouts import bids_images
from metasynth.data_prep.naming.names import listed, name_files, stem
from metasynth.data_prep.sources import Scan, Sources, find_files, with_files
from metasynth.data_prep.volumes.files import Unit
from metasynth.data_prep.volumes.volumes import read_image, read_labels
from metasynth.errors import DataError, UsageError
from metasynth.files import write_atomically
from metasynth.interrupts import check
from metasynth.lines import logger
from metasynth.outputs import csv_cell
from metasynth.predict.files import write_like
from metasynth.predict.naming.names import Label, labels_of
from metasynth.predict.plan import SCORES, Job, image_of, missing, missing_texts, plan, scored
from metasynth.predict.qc import write_picture
from metasynth.predict.record import FolderRecord, origin_of
from metasynth.predict.scan import check_usable, segment
from metasynth.predict.tables import read_table, write_table
from metasynth.predict.usable import coarse
from metasynth.predict.volumes import volume_outputs, write_volumes
from metasynth.segment.model_description import TrainedModel

_LOG = logger(__name__)


@dataclass
class Outcome:
    """What became of the scans, by name.

    Attributes
    ----------
    done : list of str
        Segmented now.
    skipped : list of str
        Those that were there already.
    old : list of str
        Those of them of which it is not known which scan and mask they were made of.
    failed : list of tuple (str, str)
        (name, reason).
    scaled : list of tuple (str, Unit)
        (name, unit) of those whose affines were in another unit than mm, as only their headers said.
    coarse : list of tuple (str, str)
        (name, how) of those that show less than the model has seen.
    """

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    old: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    scaled: list[tuple[str, Unit]] = field(default_factory=list)
    coarse: list[tuple[str, str]] = field(default_factory=list)


def find_scans(inputs: Sequence[str], masks: Sequence[str]) -> Sources:
    """Scans of files, folders, patterns and text lists, with the masks whose names belong to theirs.

    A scan without a mask is kept; one that several masks may belong to, or whose name several files have, is left out.
    One scan and one mask belong together whatever their names.

    Raises
    ------
    UsageError
        Something given does not exist or holds no file, or no mask has the name of a scan.
    """
    return _with_masks(find_files(inputs, "INPUT"), masks)


def find_bids_scans(folder: Path, out: Path, suffix: str, masks: Sequence[str]) -> Sources:
    """The images of a BIDS data set that have a suffix, such as "T1w", with masks as `find_scans`; none of ``out``.

    Raises
    ------
    UsageError
        There is no such folder or no such image, or no mask has the name of one.
    """
    return _with_masks(bids_images(folder, out, suffix), masks)


def _with_masks(images: Sequence[Path], masks: Sequence[str]) -> Sources:
    named = name_files(images)
    scans = [Scan(name, None, path) for name, path in sorted(named.files.items())]
    found = Sources(scans, [*named.doubles.items()], named.notes)
    if not masks:
        return found
    files = find_files(masks, "--masks")
    masked = with_files(found, files, "mask", required=False)
    if scans and len(masked.scans) == len(scans) and not any(scan.mask for scan in masked.scans):
        theirs, ours = listed([stem(path) for path in files]), listed([scan.name for scan in scans])
        raise UsageError(
            f"--masks: none of the {len(files)} files given has the name of an input; they are called {theirs}, the "
            f"inputs {ours}"
        )
    return masked


def predict_all(
    model: TrainedModel, digest: str, sources: Sources, job: Job, progress: Callable[[], None] | None = None
) -> Outcome:
    """Segment every scan that is not done, and write the table of volumes.

    Parameters
    ----------
    model : TrainedModel
        Whose network is on the job's device.
    digest : str
        SHA-256 of the model's file, kept in the folder: label maps of two models do not mix.
    sources : Sources
        The scans; what was left out counts as failed.
    job : Job
        What to make.
    progress : callable or None
        Called after every scan.

    Raises
    ------
    UsageError
        The folder holds label maps of another model, mask, scan or numbering, files of others, or the scans
        themselves; or a class has no such id; nothing was begun.
    DataError
        The model needs images of another kind.
    RunError
        A file cannot be written.
    """
    check_usable(model)
    labels = labels_of(model.description.class_names, job.ids)
    record = FolderRecord(job.out, model.description, digest, job.ids)
    skipped = plan(record, sources, job, labels, volume_outputs(record, job, labels))
    record.begin()
    _write_texts(record, missing_texts(record, job, labels))
    outcome = Outcome(failed=list(sources.left_out))
    for scan in sources.scans:
        check()
        if scan.name in skipped:
            _LOG.debug("%s: is there already", scan.name)
            outcome.skipped.append(scan.name)
            outcome.old += [scan.name] if record.is_old(job.label_map(scan)) else []
        else:
            _LOG.info("%s: %s, mask %s", scan.name, scan.image, scan.mask or "none")
            try:
                made = _predict(model, record, scan, job, labels, outcome.coarse)
                outcome.scaled += [(scan.name, unit) for unit in made]
                outcome.done.append(scan.name)
            except DataError as error:
                outcome.failed.append((scan.name, str(error)))
            except (MemoryError, torch.OutOfMemoryError):
                outcome.failed.append((scan.name, f"{scan.image}: is too large for the memory there is"))
        if progress is not None:
            progress()
    if job.volumes is not None:
        there = {*outcome.done, *outcome.skipped}
        scans = [scan for scan in sources.scans if scan.name in there]
        outcome.failed += write_volumes(record, job, scans, labels)
    return outcome


def _write_texts(record: FolderRecord, texts: Mapping[Path, str]) -> None:
    """Write what says of the folder what is in its files."""
    if texts:
        with record.locked():
            record.note(dict.fromkeys(texts))
            for path, text in texts.items():
                write_atomically(path, text.encode())
            record.note(dict.fromkeys(texts, record.origin))


def _predict(
    model: TrainedModel,
    record: FolderRecord,
    scan: Scan,
    job: Job,
    labels: Sequence[Label],
    warned: list[tuple[str, str]],
) -> set[Unit]:
    """Write all that is made of a scan; the units other than mm that only its files' headers named."""
    origin = origin_of(record, scan)
    image = read_image(image_of(scan), job.unit)
    mask = None if scan.mask is None else read_labels(scan.mask, job.unit)
    found = segment(model, image, mask, device=job.device, keep_posteriors=job.posteriors)
    warned += [(scan.name, how)] if (how := coarse(image, model.description)) else []
    names = model.description.class_names
    wanted = missing(record, scan, job, labels)
    with record.locked():
        record.note(dict.fromkeys(wanted))
    if found.posteriors is not None and job.posterior_map(scan) in wanted:
        write_like(job.posterior_map(scan), found.posteriors, image_of(scan))
    if job.picture(scan) in wanted:
        write_picture(job.picture(scan), image, found.labels, names)
    for path, text in job.texts(scan, labels).items():
        if path in wanted:
            write_atomically(path, text.encode())
    if job.label_map(scan) in wanted:
        write_like(job.label_map(scan), _numbered(found.labels, labels), image_of(scan))
    with record.locked():
        if job.qc:
            _note_score(job.out / "qc" / SCORES, scan.name, found.labels, found.certainty, names)
        record.note(dict.fromkeys(wanted, origin))
    units = (image.scaled_from, None if mask is None else mask.scaled_from)
    return {unit for unit in units if unit is not None}


def _numbered(indices: NDArray[np.integer], labels: Sequence[Label]) -> NDArray[np.integer]:
    """A label map (*S) of the labels' numbers, of indices of classes (*S)."""
    numbers = np.array([label.index for label in labels])
    return (
        indices
        if (numbers == np.arange(len(labels))).all()
        else numbers.astype(np.uint8 if numbers.max() < 256 else np.int16)[indices]
    )


def _note_score(path: Path, name: str, labels: np.ndarray, certainty: np.ndarray, class_names: Sequence[str]) -> None:
    """Add a scan to the table of scores, or replace its row: the mean posterior of the label, in all but background."""
    places = [labels > 0, *(labels == k for k in range(1, len(class_names)))]
    means = [float(certainty[at].mean(dtype=np.float64)) if at.any() else None for at in places]
    values = [csv_cell(name), *means]
    record = dict(zip(scored(class_names), values, strict=True))
    others = [row for row in read_table(path) if row.keys() == record.keys() and row["name"] != record["name"]]
    write_table(path, sorted([*others, record], key=lambda row: str(row["name"])))
