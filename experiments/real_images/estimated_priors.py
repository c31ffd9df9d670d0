"""Priors that a run estimates from its real images: their file in the run's folder, and what a report shows of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from metasynth.experiments.real_images.tables import Naming, Row, shown

from metasynth.data.dataset import SliceDataset
from metasynth.files import place_inside
from metasynth.report.html import ReportFigure
from metasynth.report.priors import priors_figure, priors_table
from metasynth.report.tables import Table
from metasynth.running.records import RunFolder
from metasynth.schema import NUMBER, entries, expect, listing, mapping, maybe
from metasynth.synthesis.priors.priors_file import as_json, priors_of
from metasynth.synthesis.priors.structure_priors import StructurePriors
from metasynth.training.priors import estimate_from, origin_of

_MEDIANS = "medians"


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


def priors_tables(folder: RunFolder, rows: Sequence[Row], naming: Naming) -> list[Table]:
    """The priors that methods estimated."""
    return [priors_table(value["labels"], naming(row)) for row, value in _estimates(folder, rows)]


def priors_figures(folder: RunFolder, rows: Sequence[Row], naming: Naming) -> list[ReportFigure]:
    """The same, beside the scans that they are from."""
    caption = (
        "{}: intensity by structure. Bars: mean and spread between people; thin lines: texture; points: the medians of "
        "the scans that it was estimated from."
    )
    return [
        ReportFigure(
            Path(row["priors"]).stem,
            caption.format(naming(row)),
            priors_figure(value["labels"], value["from"][_MEDIANS]),
        )
        for row, value in _estimates(folder, rows)
    ]


def _estimates(folder: RunFolder, rows: Sequence[Row]) -> list[tuple[Row, Mapping[str, Any]]]:
    """Rows with what the files of priors hold that they name, each file once; DataError if one was changed."""
    found, seen = [], set()
    for row in shown(rows):
        if "priors" in row and row["priors"] not in seen:
            seen.add(row["priors"])
            path = place_inside(folder.path, row["priors"])
            value = folder.read_json(row["priors"])
            size = len(priors_of(value, str(path)).labels)
            expect(
                value, entries({"from": entries({_MEDIANS: mapping(listing(maybe(NUMBER), length=size))})}), str(path)
            )
            found.append((row, value))
    return found
