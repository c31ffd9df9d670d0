"""Label maps against references, by subject and class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metasynth.data_prep.labels import LabelMapping, Unknown, ids_of
from metasynth.data_prep.sources import Scan, find_files, pair
from metasynth.data_prep.volumes.files import Unit
from metasynth.data_prep.volumes.volumes import Volume, check_affine, grid_difference, matched, read_labels
from metasynth.errors import DataError, UsageError
from metasynth.interrupts import check
from metasynth.predict.classes import Classes
from metasynth.predict.files import voxel_volume_ml
from metasynth.predict.naming.names import class_indices
from metasynth.predict.recorded import RECORD, recorded_classes, recorded_numbers
from metasynth.segment.metrics import DiceAccumulator, hausdorff_distance

Record = dict[str, Any]
_MERGE = "--mapping merges a reference's labels"
COLUMNS = ("subject", "class", "dice", "hd95_mm", "volume_ml", "reference_ml", "volume_error_percent")


def classes_of(predictions: str, mapping: LabelMapping | None, unknown: Unknown) -> Classes:
    """The classes of label maps: those their folder names, else those of the references' mapping, else unnamed.

    Raises
    ------
    UsageError
        The folder and the mapping have other classes.
    DataError
        The label maps are of several models.
    """
    names = None if mapping is None else mapping.class_names
    folder = _folder_of(Path(predictions))
    own = recorded_classes(folder)
    if own is not None and names is not None and own != names:
        raise UsageError(
            f"--mapping {mapping.name if mapping else ''}: has the classes {', '.join(names)}; the label maps have "
            f"{', '.join(own)}"
        )
    return Classes(own or names, None, mapping, unknown, recorded_numbers(folder))


def _folder_of(path: Path) -> Path:
    """The folder whose record label maps are in: of a BIDS data set, that of the data set."""
    folder = path if path.is_dir() else path.parent
    while not (folder / RECORD).is_file() and (folder.name == "anat" or folder.name.startswith(("ses-", "sub-"))):
        folder = folder.parent
    return folder


def find_pairs(predictions: str, references: str) -> tuple[list[Scan], list[Path], list[tuple[str, str]]]:
    """Label maps (`image`) with the references (`labels`) whose names belong to theirs.

    Returns
    -------
    tuple (list of Scan, list of Path, list of tuple (str, str))
        The pairs; the files without a partner; and (name, reason) of names that may belong to several.

    Raises
    ------
    UsageError
        One of the two gives no file, or there is no pair.
    """
    found = find_files([predictions], "PREDICTIONS"), find_files([references], "REFERENCES")
    pairs = pair(*found, label="reference", image="prediction")
    if not pairs.scans:
        more = f" (and {len(pairs.left_out) - 1} more)" if len(pairs.left_out) > 1 else ""
        raise UsageError(f"{predictions} and {references}: no name is in both: {pairs.left_out[0][1]}{more}")
    unclear = [(name, reason) for name, reason in pairs.left_out if name not in pairs.alone]
    return pairs.scans, list(pairs.alone.values()), unclear


@dataclass
class Evaluation:
    """What became of the pairs.

    Attributes
    ----------
    records : list of Record
        See `score`.
    failed : list of tuple (str, str)
        (name, reason).
    scaled : list of tuple (str, Unit)
        (name, unit) of those whose affines were in another unit than mm, as only their headers said.
    """

    records: list[Record] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    scaled: list[tuple[str, Unit]] = field(default_factory=list)


def score_all(
    scans: Sequence[Scan], classes: Classes, unit: Unit | None = None, progress: Callable[[], None] | None = None
) -> Evaluation:
    """Score every pair; one that cannot be is named, the others go on.

    Parameters
    ----------
    scans : sequence of Scan
        As `find_pairs` gives them.
    classes : Classes
        What is scored.
    unit : Unit or None
        What the affines of all files are in; None takes what their headers say.
    progress : callable or None
        Called after every pair.
    """
    found = Evaluation()
    for scan in scans:
        try:
            volumes = _read(scan, unit)
            found.records += _score(scan.name, *volumes, classes)
            units = {volume.scaled_from for volume in volumes}
            found.scaled += [(scan.name, scaled) for scaled in units if scaled is not None]
        except DataError as error:
            found.failed.append((scan.name, str(error)))
        except MemoryError:
            found.failed.append((scan.name, f"{scan.image}: is too large for the memory there is"))
        if progress is not None:
            progress()
    return found


def score(scan: Scan, classes: Classes, unit: Unit | None = None) -> list[Record]:
    """Dice, 95 % surface distance and volumes of one label map, a record a class.

    Returns
    -------
    list of Record
        `subject`, `class`, `dice`, `hd95_mm` (see `metasynth.segment.metrics`), `volume_ml`, `reference_ml` and
        `volume_error_percent`, which is signed and None where the reference has no voxel of the class.

    Raises
    ------
    DataError
        A file cannot be read, the grids differ, or a label is none of the classes.
    """
    return _score(scan.name, *_read(scan, unit), classes)


def _read(scan: Scan, unit: Unit | None) -> tuple[Volume, Volume]:
    """Label map and reference on the label map's grid."""
    assert scan.image is not None
    assert scan.labels is not None
    found, truth = (read_labels(path, unit, empty=True) for path in (scan.image, scan.labels))
    for volume in (found, truth):
        check_affine(volume, allow_shear=True)
    turned = matched(truth, found)
    if turned is None:
        raise DataError(
            f"{found.where} and {truth.where}: must have the same voxels, got {grid_difference(found, truth)}"
        )
    return found, turned


def _score(subject: str, found: Volume, truth: Volume, classes: Classes) -> list[Record]:
    predicted, true = _in_classes(found, None, classes), _in_classes(truth, classes.mapping, classes)
    ids = np.arange(len(classes.names or ()))
    if not classes.names:
        ids, predicted, true = _among_present(predicted, true, classes.chosen or ())
    counts = DiceAccumulator(max(2, len(ids)), 1)
    as_batch = [torch.from_numpy(np.ascontiguousarray(labels))[None] for labels in (predicted, true)]
    counts.update(as_batch[0], as_batch[1], torch.zeros(1, dtype=torch.int64))
    dice = counts.result()[0]
    chosen = range(1, len(ids)) if classes.chosen is None else np.searchsorted(ids, classes.chosen).tolist()
    names = classes.names or tuple(map(str, ids))
    voxel = voxel_volume_ml(found)
    return [_record(subject, names[k], predicted == k, true == k, float(dice[k]), found, voxel) for k in chosen]


def _among_present(
    predicted: NDArray[np.int64], true: NDArray[np.int64], chosen: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """0 and all ids that occur or are chosen, increasing, and the two label maps as places among them.

    So ids of any size can be counted.
    """
    first, _, place_first = ids_of(predicted)
    second, _, place_second = ids_of(true)
    ids = np.unique(np.concatenate([[0], first, second, np.asarray(chosen, dtype=np.int64)]))
    return ids, place_first(np.searchsorted(ids, first)), place_second(np.searchsorted(ids, second))


def _record(
    subject: str,
    name: str,
    predicted: NDArray[np.bool_],
    true: NDArray[np.bool_],
    dice: float,
    grid: Volume,
    voxel: float,
) -> Record:
    check()  # distances take seconds
    volume, reference = voxel * int(predicted.sum()), voxel * int(true.sum())
    return {
        "subject": subject,
        "class": name,
        "dice": dice,
        "hd95_mm": hausdorff_distance(predicted, true, grid.spacing.tolist()),
        "volume_ml": volume,
        "reference_ml": reference,
        "volume_error_percent": 100.0 * (volume - reference) / reference if reference else None,
    }


def _in_classes(volume: Volume, mapping: LabelMapping | None, classes: Classes) -> NDArray[np.int64]:
    if mapping is not None:
        return mapping.apply(volume.data, classes.unknown, volume.where).astype(np.int64)
    if classes.numbers is not None:
        try:
            return class_indices(volume, classes.numbers)
        except DataError as error:
            raise DataError(f"{error} ({', '.join(classes.names or ())}); {_MERGE}") from error
    top = int(volume.data.max())
    if classes.names and top >= len(classes.names):
        raise DataError(
            f"{volume.where}: holds label {top}; the classes are 0 to {len(classes.names) - 1} "
            f"({', '.join(classes.names)}); {_MERGE}"
        )
    return volume.data
