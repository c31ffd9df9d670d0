"""All that is made of a scan, in this process or by several side by side."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metasynth.data_prep.sources import Scan
from metasynth.data_prep.volumes.files import Unit
from metasynth.data_prep.volumes.volumes import read_image, read_labels
from metasynth.errors import DataError, RunError
from metasynth.files import is_full, write_atomically
from metasynth.interrupts import check
from metasynth.lines import logger
from metasynth.outputs import csv_cell
from metasynth.predict.files import write_like
from metasynth.predict.naming.names import Label
from metasynth.predict.plan import RANKED, SCORES, Job, image_of, missing, ranked, scored
from metasynth.predict.qc import expected_dice, write_picture
from metasynth.predict.record import FolderRecord, origin_of
from metasynth.predict.scan import Segmentation, segment
from metasynth.predict.tables import encoded, read_table, write_table
from metasynth.predict.usable import coarse
from metasynth.segment.model_description import TrainedModel
from metasynth.segment.model_file import load_model
from metasynth.workers import as_done, as_run_errors

_LOG = logger(__name__)


@dataclass(frozen=True)
class Made:
    """A scan that was segmented.

    Attributes
    ----------
    scaled_from : tuple of Unit
        The units other than mm that only its files' headers named.
    coarse : str
        How it shows less than the model has seen; empty where it does not.
    """

    scaled_from: tuple[Unit, ...]
    coarse: str


class Maker:
    """Makes what a job asks for of one scan after another; a copy in another process reads the models by itself.

    Parameters
    ----------
    models : sequence of TrainedModel
        Whose networks are on the job's device.
    record : FolderRecord
        Of the job's folder.
    job : Job
        What to make.
    labels : sequence of Label
        Of the label maps.
    """

    def __init__(self, models: Sequence[TrainedModel], record: FolderRecord, job: Job, labels: Sequence[Label]) -> None:
        self._models: Sequence[TrainedModel] | None = models
        self._record, self._job, self._labels = record, job, labels

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_models": None}

    def __call__(self, scan: Scan) -> Made | str | RunError:
        """What was made of it, or why that cannot be; an error that concerns all scans is returned.

        No room for its files concerns a scan: there may be enough for those of another.
        """
        try:
            return self._make(scan)
        except DataError as error:
            return str(error)
        except (MemoryError, torch.OutOfMemoryError):
            return f"{scan.image}: is too large for the memory there is"
        except RunError as error:
            return str(error) if is_full(error) else error

    def _make(self, scan: Scan) -> Made:
        record, job = self._record, self._job
        if self._models is None:
            self._models = [load_model(path) for path in job.read]
            for model in self._models:
                model.network.to(job.device)
        origin = origin_of(record, scan)
        image = read_image(image_of(scan), job.unit)
        mask = None if scan.mask is None else read_labels(scan.mask, job.unit)
        found = segment(self._models, image, mask, device=job.device, keep_posteriors=job.posteriors)
        names = self._models[0].description.class_names
        wanted = missing(record, scan, job, self._labels)
        with record.locked():
            record.note(dict.fromkeys(wanted))
        if found.posteriors is not None and job.posterior_map(scan) in wanted:
            write_like(job.posterior_map(scan), found.posteriors, image_of(scan))
        if job.picture(scan) in wanted:
            write_picture(job.picture(scan), image, found.labels, names)
        for path, text in job.texts(scan, self._labels).items():
            if path in wanted:
                write_atomically(path, text.encode())
        if job.label_map(scan) in wanted:
            write_like(job.label_map(scan), _numbered(found.labels, self._labels), image_of(scan))
        with record.locked():
            if job.qc:
                _note_scores(job.out / "qc", scan.name, found, names)
            record.note(dict.fromkeys(wanted, origin))
        units = {image.scaled_from, None if mask is None else mask.scaled_from}
        said = (coarse(image, model.description) for model in self._models)
        return Made(tuple(sorted(unit for unit in units if unit is not None)), next(filter(None, said), ""))


def make_all(
    maker: Maker, scans: Sequence[Scan], processes: int, prepare: Callable[[], None]
) -> Generator[tuple[Scan, Made | str], None, None]:
    """(scan, what was made or why not) in the order they are done.

    Parameters
    ----------
    maker : Maker
        Does the work.
    scans : sequence of Scan
        Of what.
    processes : int
        How many work side by side; with 1 it is this one.
    prepare : callable
        Called once in every other process.

    Raises
    ------
    RunError
        A file cannot be written, or a process was killed.
    Interrupted
        The process was asked to end; what is done is kept.
    """
    with closing(_outcomes(maker, scans, processes, prepare)) as outcomes:
        for scan, outcome in outcomes:
            if isinstance(outcome, RunError):
                raise outcome
            _LOG.info("%s: %s, mask %s", scan.name, scan.image, scan.mask or "none")
            yield scan, outcome


def _outcomes(
    maker: Maker, scans: Sequence[Scan], processes: int, prepare: Callable[[], None]
) -> Generator[tuple[Scan, Made | str | RunError], None, None]:
    if processes == 1 or len(scans) < 2:
        for scan in scans:
            check()
            yield scan, maker(scan)
        return
    with as_run_errors("a scan could not be segmented"):
        yield from as_done(maker, scans, workers=min(processes, len(scans)), prepare=prepare, method="spawn")


def _numbered(indices: NDArray[np.integer], labels: Sequence[Label]) -> NDArray[np.integer]:
    """A label map (*S) of the labels' numbers, of indices of classes (*S)."""
    numbers = np.array([label.index for label in labels])
    return (
        indices
        if (numbers == np.arange(len(labels))).all()
        else numbers.astype(np.uint8 if numbers.max() < 256 else np.int16)[indices]
    )


def _note_scores(folder: Path, name: str, found: Segmentation, class_names: Sequence[str]) -> None:
    """Add a scan to the tables of scores, or replace its rows."""
    labels, certainty = found.labels, found.certainty
    places = [labels > 0, *(labels == k for k in range(1, len(class_names)))]
    means = [float(certainty[at].mean(dtype=np.float64)) if at.any() else None for at in places]
    rows = _with(folder / SCORES, scored(class_names), [csv_cell(name), *means])
    write_table(folder / SCORES, sorted(rows, key=lambda row: str(row["name"])))
    rows = _with(folder / RANKED, ranked(class_names), [csv_cell(name), *expected_dice(found)])
    worst_first = sorted(rows, key=lambda row: (float(row["expected_dice"] or 0), str(row["name"])))
    write_atomically(folder / RANKED, encoded(worst_first, delimiter="\t"))


def _with(path: Path, heading: Sequence[str], values: Sequence[Any]) -> list[dict[str, Any]]:
    """The rows of a table with one more, or another of its name."""
    record = dict(zip(heading, values, strict=True))
    others = [row for row in read_table(path) if row.keys() == record.keys() and row["name"] != record["name"]]
    return [*others, record]
