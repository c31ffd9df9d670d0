"""Label maps against references, by subject and class."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metasynth.data_prep.labels import LabelMapping, Unknown
from metasynth.data_prep.sources import Scan, find_files, pair
from metasynth.data_prep.volumes import Volume, check_affine, same_grid, to_ras
from metasynth.errors import DataError, UsageError
from metasynth.predict.files import read_label_map, voxel_volume_ml
from metasynth.predict.folder import RECORD
from metasynth.segment.metrics import DiceAccumulator, hausdorff_distance
from metasynth.text import shortened, shown, whole_number

Record = dict[str, Any]


@dataclass(frozen=True)
class Classes:
    """Which classes are scored, and how a reference's ids become them.

    Attributes:
        names: By index, background first; None takes the labels themselves for names.
        chosen: The indices that are scored; None: all above 0, or without names all above 0 that occur.
        mapping: Applied to references; None where they have the classes already.
        unknown: What happens to a reference's ids that the mapping does not name.

    """

    names: tuple[str, ...] | None = None
    chosen: tuple[int, ...] | None = None
    mapping: LabelMapping | None = None
    unknown: Unknown = "error"

    def choose(self, text: str) -> "Classes":
        """The same with the classes of a text only: names or numbers with commas between them.

        Raises:
            UsageError: One of them is no class.

        """
        chosen = []
        for part in (part.strip() for part in text.split(",")):
            if self.names is not None and part in self.names:
                chosen.append(self.names.index(part))
            elif (k := whole_number(part)) is not None and k >= 0 and (self.names is None or k < len(self.names)):
                chosen.append(k)
            else:
                there = "numbers" if self.names is None else f"numbers or names of {', '.join(self.names)}"
                raise UsageError(f"--classes {shortened(text)}: expected {there}, got {shown(part)}")
        return Classes(self.names, tuple(dict.fromkeys(chosen)), self.mapping, self.unknown)


def classes_of(predictions: str, mapping: LabelMapping | None, unknown: Unknown) -> Classes:
    """The classes of label maps: those their folder names, else those of the references' mapping, else unnamed.

    Raises:
        UsageError: The folder and the mapping have other classes.

    """
    names = None if mapping is None else mapping.class_names
    path = Path(predictions)
    try:
        own = tuple(json.loads(((path if path.is_dir() else path.parent) / RECORD).read_bytes())["classes"])
    except (OSError, ValueError, KeyError, TypeError):
        own = None  # label maps of another program
    if own is not None and names is not None and own != names:
        raise UsageError(
            f"--mapping {mapping.name if mapping else ''}: has the classes {', '.join(names)}; the label maps have "
            f"{', '.join(own)}"
        )
    return Classes(own or names, None, mapping, unknown)


def find_pairs(predictions: str, references: str) -> tuple[list[Scan], list[Path], list[tuple[str, str]]]:
    """Label maps (`image`) with the references (`labels`) whose names belong to theirs.

    Returns:
        The pairs; the files without a partner; and (name, reason) of names that may belong to several.

    Raises:
        UsageError: One of the two gives no file, or there is no pair.

    """
    found = find_files([predictions], "PREDICTIONS"), find_files([references], "REFERENCES")
    pairs = pair(*found, label="reference", image="prediction")
    if not pairs.scans:
        more = f" (and {len(pairs.left_out) - 1} more)" if len(pairs.left_out) > 1 else ""
        raise UsageError(f"{predictions} and {references}: no name is in both: {pairs.left_out[0][1]}{more}")
    unclear = [(name, reason) for name, reason in pairs.left_out if name not in pairs.alone]
    return pairs.scans, list(pairs.alone.values()), unclear


def score(scan: Scan, classes: Classes) -> list[Record]:
    """Dice, 95 % surface distance and volumes of one label map, a record a class.

    Returns:
        `subject`, `class`, `dice`, `hd95_mm` (see `metasynth.segment.metrics`), `volume_ml`, `reference_ml` and
        `volume_error_percent`, which is signed and None where the reference has no voxel of the class.

    Raises:
        DataError: A file cannot be read, the grids differ, or a label is none of the classes.

    """
    assert scan.image is not None
    assert scan.labels is not None
    found, truth = (read_label_map(path) for path in (scan.image, scan.labels))
    for volume in (found, truth):
        check_affine(volume, allow_shear=True)
    found, truth = to_ras(found), to_ras(truth)
    if not same_grid(found, truth):
        raise DataError(
            f"{found.where} and {truth.where}: must have the same voxels, got shapes {_by(found)} and {_by(truth)} or "
            "other affines"
        )
    predicted, true = _in_classes(found, None, classes), _in_classes(truth, classes.mapping, classes)
    top = 1 + max(int(predicted.max()), int(true.max()), *(classes.chosen or (1,)))
    n = len(classes.names) if classes.names else top
    counts = DiceAccumulator(n, 1)
    as_batch = [torch.from_numpy(labels)[None] for labels in (predicted, true)]
    counts.update(as_batch[0], as_batch[1], torch.zeros(1, dtype=torch.int64))
    dice = counts.result()[0]
    chosen = classes.chosen
    if chosen is None:
        chosen = tuple(k for k in range(1, n) if classes.names or not math.isnan(dice[k]))
    voxel = voxel_volume_ml(found)
    return [_record(scan.name, k, classes, predicted == k, true == k, float(dice[k]), found, voxel) for k in chosen]


def summary(records: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Means over subjects, a record a class in the order they appear, then over all of them.

    Dice and the signed volume error are averaged where they are defined. `hd95_mm` is averaged where both have the
    class; `missed` counts the subjects in which only one has it. The last record averages the classes of a subject
    first, and counts all misses.
    """
    names = list(dict.fromkeys(record["class"] for record in records))
    rows = [_summarised(name, [[r] for r in records if r["class"] == name]) for name in names]
    if len(names) > 1:
        subjects = dict.fromkeys(record["subject"] for record in records)
        rows.append(_summarised("all", [[r for r in records if r["subject"] == subject] for subject in subjects]))
    return rows


def _summarised(name: str, groups: Sequence[Sequence[Mapping[str, Any]]]) -> Record:
    """Means of the groups' means, of the values that are finite."""
    columns = {}
    for key in ("dice", "hd95_mm", "volume_error_percent"):
        means = [_mean([record[key] for record in group]) for group in groups]
        columns[key] = [mean for mean in means if mean is not None]
    dice = columns["dice"]
    return {
        "class": name,
        "subjects": len(dice),
        "dice": _mean(dice),
        "dice_sd": float(np.std(dice, ddof=1)) if len(dice) > 1 else None,
        "hd95_mm": _mean(columns["hd95_mm"]),
        "missed": sum(record["hd95_mm"] == math.inf for group in groups for record in group),
        "volume_error_percent": _mean(columns["volume_error_percent"]),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else None


def _record(
    subject: str,
    k: int,
    classes: Classes,
    predicted: NDArray[np.bool_],
    true: NDArray[np.bool_],
    dice: float,
    grid: Volume,
    voxel: float,
) -> Record:
    volume, reference = voxel * int(predicted.sum()), voxel * int(true.sum())
    return {
        "subject": subject,
        "class": classes.names[k] if classes.names else str(k),
        "dice": dice,
        "hd95_mm": hausdorff_distance(predicted, true, grid.spacing.tolist()),
        "volume_ml": volume,
        "reference_ml": reference,
        "volume_error_percent": 100.0 * (volume - reference) / reference if reference else None,
    }


def _in_classes(volume: Volume, mapping: LabelMapping | None, classes: Classes) -> NDArray[np.int64]:
    if mapping is not None:
        return mapping.apply(volume.data, classes.unknown, volume.where).astype(np.int64)
    top = int(volume.data.max())
    if classes.names and top >= len(classes.names):
        raise DataError(
            f"{volume.where}: holds label {top}; the classes are 0 to {len(classes.names) - 1} "
            f"({', '.join(classes.names)}); --mapping merges a reference's labels"
        )
    return np.ascontiguousarray(volume.data)


def _by(volume: Volume) -> str:
    return " x ".join(map(str, volume.data.shape))
