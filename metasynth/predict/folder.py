"""Many scans into one folder: what is there already is left, what fails is named, the others go on.

The folder holds a label map a scan, called as the scan; `posteriors/` and `qc/` where they were asked for; and
`segmentation.json` (see `record`), which says which model made them, of what, and what its classes are.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from metasynth.data_prep.layouts import bids_images
from metasynth.data_prep.naming.names import listed, name_files, stem
from metasynth.data_prep.sources import Scan, Sources, find_files, with_files
from metasynth.data_prep.volumes.files import Unit
from metasynth.errors import UsageError
from metasynth.files import write_atomically
from metasynth.lines import logger
from metasynth.predict.making import Made, Maker, make_all
from metasynth.predict.naming.names import labels_of
from metasynth.predict.plan import Job, missing_texts, plan
from metasynth.predict.record import FolderRecord
from metasynth.predict.usable import check_usable
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


def _nothing() -> None:
    """What is to be done in a process of its own before its first scan."""


def predict_all(
    model: TrainedModel | Sequence[TrainedModel],
    digest: str,
    sources: Sources,
    job: Job,
    progress: Callable[[], None] | None = None,
    prepare: Callable[[], None] = _nothing,
) -> Outcome:
    """Segment every scan that is not done, and write the table of volumes.

    Parameters
    ----------
    model : TrainedModel or sequence of TrainedModel
        Whose network is on the job's device; of several (see `check_together`) the mean of the posteriors is taken.
    digest : str
        SHA-256 of the model's file, or of those of several; kept in the folder: label maps of two models do not mix.
    sources : Sources
        The scans; what was left out counts as failed.
    job : Job
        What to make.
    progress : callable or None
        Called after every scan.
    prepare : callable
        Called once in each process beside this one.

    Raises
    ------
    UsageError
        The folder holds label maps of another model, mask, scan or numbering, files of others, or the scans
        themselves; or a class has no such id; nothing was begun.
    DataError
        The model needs images of another kind.
    RunError
        A file cannot be written, or a process was killed.
    """
    models = [model] if isinstance(model, TrainedModel) else list(model)
    for each in models:
        check_usable(each)
    labels = labels_of(models[0].description.class_names, job.ids)
    record = FolderRecord(job.out, models[0].description, digest, job.ids)
    skipped = plan(record, sources, job, labels, volume_outputs(record, job, labels))
    record.begin()
    _write_texts(record, missing_texts(record, job, labels))
    found: dict[str, Made | str] = {}
    wanted = [scan for scan in sources.scans if scan.name not in skipped]
    advance = progress or _nothing
    for _ in skipped:
        advance()
    for scan, made in make_all(Maker(models, record, job, labels), wanted, job.processes, prepare):
        found[scan.name] = made
        advance()
    outcome = _outcome_of(sources, found, {scan.name for scan in sources.scans if record.is_old(job.label_map(scan))})
    if job.volumes is not None:
        there = {*outcome.done, *outcome.skipped}
        scans = [scan for scan in sources.scans if scan.name in there]
        outcome.failed += write_volumes(record, job, scans, labels)
    return outcome


def _outcome_of(sources: Sources, found: Mapping[str, Made | str], old: Collection[str]) -> Outcome:
    """What became of the scans, in their order, whichever was done first; those that were not to be made were there."""
    outcome = Outcome(failed=list(sources.left_out))
    for name in (scan.name for scan in sources.scans):
        made = found.get(name)
        if made is None:
            _LOG.debug("%s: is there already", name)
            outcome.skipped.append(name)
            outcome.old += [name] if name in old else []
        elif isinstance(made, str):
            outcome.failed.append((name, made))
        else:
            outcome.done.append(name)
            outcome.scaled += [(name, unit) for unit in made.scaled_from]
            outcome.coarse += [(name, made.coarse)] if made.coarse else []
    return outcome


def _write_texts(record: FolderRecord, texts: Mapping[Path, str]) -> None:
    """Write what says of the folder what is in its files."""
    if texts:
        with record.locked():
            record.note(dict.fromkeys(texts))
            for path, text in texts.items():
                write_atomically(path, text.encode())
            record.note(dict.fromkeys(texts, record.origin))
