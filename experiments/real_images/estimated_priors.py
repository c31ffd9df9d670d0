"""Priors that a run estimates from its real images, and those that it learns: their files, and what a report shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from metasynth.experiments.real_images.tables import Naming, Row, shown

from metasynth.augment.intensities import Priors
from metasynth.data.cache import Cache
from metasynth.data.dataset import SliceDataset
from metasynth.files import place_inside
from metasynth.report.html import ReportFigure
from metasynth.report.priors import priors_figure, priors_table
from metasynth.report.tables import Table
from metasynth.running.records import RunFolder
from metasynth.schema import NUMBER, entries, expect, listing, mapping, maybe
from metasynth.synthesis.priors.priors_file import as_json, priors_of
from metasynth.synthesis.priors.structure_priors import Prior, StructurePriors
from metasynth.training.priors import estimate_from, origin_of

_MEDIANS = "medians"
_FILES = {"priors": "Estimated", "learned_priors": "Learned"}
"""The keys of rows that name files of priors, and what these are."""


def keep_estimate(folder: RunFolder, name: str, dataset: SliceDataset) -> StructurePriors:
    """The priors of subjects, among the files of a run with the medians of everyone: estimated once.

    A run that was begun with other ones, such as an earlier version's, goes on with these.
    """
    path = folder.path / name
    value = folder.read_json(name) if path.is_file() else _estimated(dataset)
    priors = priors_of(value, str(path))
    folder.write_json(name, value)  # among the files of this session too
    return priors


def _estimated(dataset: SliceDataset) -> dict[str, Any]:
    """What a file of priors says of subjects."""
    estimate = estimate_from(dataset)
    own = [[None if np.isnan(value) else float(value) for value in row] for row in estimate.medians]
    medians = dict(zip(dataset.subjects, own, strict=True))
    return as_json(estimate.priors, {**origin_of(dataset), _MEDIANS: medians})


def keep_learned(folder: RunFolder, name: str, learned: Priors, dataset: SliceDataset, maps: Cache) -> None:
    """Write what was learned of the intensities of a cache's generation labels, beside the medians of scans.

    Images are scaled, so that intensities are learned up to a scale and an offset, the same for all structures. Those
    that bring the means closest to what is estimated of the scans are taken, by least squares.
    """
    estimate = estimate_from(dataset)
    names, classes = maps.generation_names, maps.generation_classes
    known = estimate.priors.of_labels(names, classes)
    scale, offset = _onto(learned.mean[1:], known.mean[1:])
    of_labels = zip(names[1:], classes[1:], *(values[1:] for values in learned), strict=True)
    labels = [
        Prior(label, own, min(1.0, max(0.0, scale * mean + offset)), scale * spread, scale * texture)
        for label, own, mean, spread, texture in of_labels
    ]
    place = {label: at for at, label in enumerate(estimate.priors.names)}
    seen = {
        person: [None if (at := place.get(label, 0)) == 0 or np.isnan(row[at]) else float(row[at]) for label in names]
        for person, row in zip(dataset.subjects, estimate.medians, strict=True)
    }
    priors = StructurePriors((Prior(names[0], classes[0]), *labels))
    folder.write_json(name, as_json(priors, {**origin_of(dataset), _MEDIANS: seen}))


def _onto(values: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Scale, above 0, and offset that bring values closest to others; 1 and the difference of means where all agree."""
    own, their = np.array(values), np.array(others)
    moved = own - own.mean()
    scale = float(moved @ (their - their.mean()) / max(float(moved @ moved), 1e-12))
    scale = scale if scale > 0 else 1.0
    return scale, float(their.mean() - scale * own.mean())


def priors_tables(folder: RunFolder, rows: Sequence[Row], naming: Naming) -> list[Table]:
    """The priors that methods estimated or learned."""
    return [priors_table(value["labels"], f"{_FILES[key]}, {naming(row)}") for key, row, value in _kept(folder, rows)]


def priors_figures(folder: RunFolder, rows: Sequence[Row], naming: Naming) -> list[ReportFigure]:
    """The same, beside the scans that they are from."""
    caption = (
        "{}, {}: intensity by structure. Bars: mean and spread between people; thin lines: texture; points: the "
        "medians of the scans that were learned from, without their fields."
    )
    return [
        ReportFigure(
            Path(row[key]).stem,
            caption.format(_FILES[key], naming(row)),
            priors_figure(value["labels"], value["from"][_MEDIANS]),
        )
        for key, row, value in _kept(folder, rows)
    ]


def _kept(folder: RunFolder, rows: Sequence[Row]) -> list[tuple[str, Row, Mapping[str, Any]]]:
    """Keys and rows that name files, and what these hold, each once; DataError if one was changed."""
    found, seen = [], set()
    for key in _FILES:
        for row in shown(rows):
            if key in row and row[key] not in seen:
                seen.add(row[key])
                path = place_inside(folder.path, row[key])
                value = folder.read_json(row[key])
                size = len(priors_of(value, str(path)).labels)
                medians = mapping(listing(maybe(NUMBER), length=size))
                expect(value, entries({"from": entries({_MEDIANS: medians})}), str(path))
                found.append((key, row, value))
    return found
