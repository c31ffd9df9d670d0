"""Grids of runs whose results were not computed but written down, for tests of their reports."""

from typing import Any

from metasynth.running.grid import Grid
from metasynth.running.grid_folder import GridFolder
from metasynth.running.manifest import make_manifest
from metasynth.running.records import RunFolder

DATA = {"path": "c.h5", "digest": "d", "given": False}


def make_grid(path, rows_of, *, seeds=(0, 1), vary=None, records_of=None, experiment="noise") -> GridFolder:
    """A grid whose run (seed, values) has the rows, and perhaps the training records, that a function gives."""
    grid = Grid(experiment, "quick", tuple(seeds), vary or {}, digest="d")
    folder = GridFolder.create(path, grid)
    for run in grid.runs:
        config: dict[str, Any] = {"start": 0.4, **run.values}
        manifest = make_manifest(experiment, "quick", run.seed, config, DATA)
        with RunFolder.create(path / run.name, manifest, {"device": "cpu"}) as one:
            for record in records_of(run.seed, run.values) if records_of else ():
                one.append(record)
            found = {"experiment": experiment, "preset": "quick", "seed": run.seed, "device": "cpu", "wall_s": 60.0}
            one.write_json("results.json", {**found, "rows": rows_of(run.seed, run.values), "reference": {}})
    folder.collect()
    return folder


def dice(**per_subject: float | None) -> dict[str, Any]:
    """A summary as rows have it."""
    known = [value for value in per_subject.values() if value is not None]
    return {"mean": sum(known) / len(known) if known else None, "per_class": {}, "per_subject": per_subject}
