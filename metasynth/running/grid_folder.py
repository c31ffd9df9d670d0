"""The folder of a grid.

``grid.json`` is its first file and marks it as one. The runs lie in folders named after their seed and settings, their
output beside them in ``NAME.log``; ``results.json`` holds the rows of all runs that have finished.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from metasynth.errors import DataError, UsageError
from metasynth.files import remove_leftovers, write_atomically
from metasynth.running.grid import FORMAT, Grid, GridRun, value_of
from metasynth.running.integrity.json_files import check_digest, read_json_file, with_digest
from metasynth.running.jsonlines import encode
from metasynth.running.lock import FolderLock, claim, is_claimed_only
from metasynth.running.manifest import differing, flatten, normal, renewed_manifest
from metasynth.running.records import CONFIG, RESULTS, RunFolder, refuse_taken
from metasynth.running.settings.config import to_dict

GRID, PAGE = "grid.json", "report.html"
Json = dict[str, Any]


class GridFolder:
    """A grid on disk. Made by ``create`` or ``resume`` (writers, one at a time) or ``open`` (reader).

    Attributes
    ----------
    path : Path
        The folder.
    grid : Grid
        What it consists of, as read from ``grid.json``.
    """

    def __init__(self, path: Path, grid: Grid, lock: FolderLock | None = None) -> None:
        self.path, self.grid, self._lock = path, grid, lock

    @classmethod
    def create(cls, path: Path, grid: Grid) -> Self:
        """Begin a grid in a folder that is absent or empty.

        Raises
        ------
        UsageError
            The folder holds anything, or cannot be made or written.
        RunError
            Another process is writing it.
        """
        refuse_grid(path)
        lock = claim(path)
        try:
            refuse_grid(path)  # again, now that no other process can begin there
            _write(path, grid)
        except BaseException:
            lock.release()
            raise
        return cls(path, grid, lock)

    @classmethod
    def resume(cls, path: Path, grid: Grid) -> Self:
        """Take up a grid; its data may have moved, not changed. Other sinks are recorded, for later sessions.

        A folder that a grid had claimed and not yet begun is begun.

        Raises
        ------
        UsageError
            The folder holds no grid, or another one (each difference is named, old -> new).
        RunError
            Another process is writing it.
        """
        if is_claimed_only(path):
            return cls.create(path, grid)
        there = cls.open(path)
        there.check_same(grid)
        folder = cls(path, grid, claim(path))
        if grid.log != there.grid.log:
            _write(path, replace(there.grid, log=grid.log))
        remove_leftovers(path, below=False)  # a run that is still being written may be below; each tidies its own
        return folder

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a grid for reading; UsageError if the folder holds none, DataError if its file is damaged."""
        if not (path / GRID).is_file():
            raise UsageError(f"{path}: holds no grid ({GRID} is missing)")
        value = read_json_file(path / GRID)
        found = value.get("format") if isinstance(value, dict) else None
        if found != FORMAT:
            raise UsageError(f"{path / GRID}: expected a grid of format {FORMAT!r}, got {found!r}")
        value = check_digest(path / GRID, value, required=False)
        try:
            return cls(path, Grid.from_json(value))
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path / GRID}: is damaged: {type(error).__name__}: {error}") from error

    def check_same(self, grid: Grid) -> None:
        """Raise UsageError naming what differs from ``grid``; a digest that is not yet known aside."""
        asked = _by_setting(grid.to_json())
        asked["data"]["digest"] = grid.digest or self.grid.digest
        differences = differing(_by_setting(self.grid.to_json()), asked)
        if differences:
            raise UsageError(f"{self.path}: cannot resume with other settings: {'; '.join(differences)}")

    def check_runs(self, configs: Sequence[Any]) -> None:
        """Raise UsageError if a run was begun with other settings than ``configs``, those of the combinations now."""
        pairs = zip(self.grid.combinations, configs, strict=True)
        config_of = {tuple(settings.values()): config for settings, config in pairs}
        for run in filter(self.begun, self.grid.runs):
            config = config_of[tuple(run.settings.values())]
            manifest = renewed_manifest(RunFolder.open(self.path / run.name).manifest, config)
            wanted = {"experiment": self.grid.experiment, "preset": self.grid.preset, "seed": run.seed}
            wanted = normal({**wanted, "config": to_dict(config)})
            differences = differing({key: manifest[key] for key in wanted}, wanted)
            if differences:
                raise UsageError(f"{self.path / run.name}: was begun with other settings: {'; '.join(differences)}")

    def log(self, run: GridRun) -> Path:
        """Where the run's output goes."""
        return self.path / f"{run.name}.log"

    def begun(self, run: GridRun) -> bool:
        """Whether the run has written its settings."""
        return (self.path / run.name / CONFIG).is_file()

    def done(self, run: GridRun) -> bool:
        """Whether the run has its results and its page."""
        return all((self.path / run.name / name).is_file() for name in (RESULTS, PAGE))

    @property
    def finished(self) -> list[tuple[GridRun, RunFolder]]:
        """Every run that has results, open for reading."""
        begun = [(run, RunFolder.open(self.path / run.name)) for run in self.grid.runs if self.begun(run)]
        return [(run, folder) for run, folder in begun if folder.finished]

    @property
    def progress(self) -> str:
        """How far the grid is: '3 of 8 runs have finished, 1 was begun, 4 were not'."""
        runs = self.grid.runs
        begun = [run for run in runs if self.begun(run)]
        finished = sum((self.path / run.name / RESULTS).is_file() for run in begun)
        counts = (len(begun) - finished, "begun"), (len(runs) - len(begun), "not")
        rest = (f"{count} {'was' if count == 1 else 'were'} {what}" for count, what in counts)
        return ", ".join([f"{finished} of {len(runs)} runs have finished", *rest])

    def collect(self) -> None:
        """Write results.json from the runs that have finished.

        Every row has its ``seed`` and the varied settings first; a value of its own by the name of one of these
        stands.

        Raises
        ------
        UsageError
            No run has finished.
        DataError
            The results of one cannot be read, or were changed since it wrote them.
        """
        finished = self.finished
        if not finished:
            raise UsageError(f"{self.path}: no run of the grid has finished; continue it with --resume")
        found = [(run, folder.results) for run, folder in finished]
        for _, folder in finished:
            folder.check()
        there = {run.name for run, _ in finished}
        results = {
            "experiment": self.grid.experiment,
            "preset": self.grid.preset,
            "seeds": list(self.grid.seeds),
            "vary": {key: [value_of(text) for text in texts] for key, texts in self.grid.vary.items()},
            "wall_s": round(sum(one["wall_s"] for _, one in found), 3),
            "missing": [run.name for run in self.grid.runs if run.name not in there],
            "rows": [{"seed": run.seed, **run.values, **row} for run, one in found for row in one["rows"]],
        }
        self.write_bytes(RESULTS, encode(results, indent=2))

    @property
    def results(self) -> Json:
        """The content of results.json, as `collect` wrote it; DataError if it has not."""
        results: Json = read_json_file(self.path / RESULTS)
        return results

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the grid consists of, with dotted keys."""
        return flatten(self.grid.to_json())

    @property
    def environment(self) -> Json:
        """What the finished runs ran on; where they differ, every value once."""
        found = [folder.environment for _, folder in self.finished]
        merged: Json = {}
        for key in dict.fromkeys(key for one in found for key in one if key not in ("started", "resumed", "command")):
            distinct = list(dict.fromkeys(one.get(key) for one in found))
            merged[key] = distinct[0] if len(distinct) == 1 else ", ".join(map(str, distinct))
        started = min(one["started"] for one in found)
        return {**merged, "started": started, "resumed": [session for one in found for session in one["resumed"]]}

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write one whole file, atomically; ``name`` may hold folders."""
        write_atomically(self.path / name, data)
        return self.path / name

    def close(self) -> None:
        """Let other processes write this grid."""
        if self._lock:
            self._lock.release()


def refuse_grid(path: Path) -> None:
    """Raise UsageError if the folder holds a grid, a run or anything else."""
    if (path / GRID).is_file():
        raise UsageError(f"{path}: holds another grid; continue it with --resume or give another --out")
    refuse_taken(path)


def _write(path: Path, grid: Grid) -> None:
    write_atomically(path / GRID, encode(with_digest(grid.to_json()), indent=2))


def _by_setting(grid: dict[str, Any]) -> dict[str, Any]:
    """The content of ``grid.json`` with what ``--set`` gives by its key, the last of each: a file may give many.

    Without the sinks, of which no result depends.
    """
    pairs = (override.partition("=") for override in grid["set"])
    return {
        **{key: value for key, value in grid.items() if key != "log"},
        "set": {key.strip(): text.strip() for key, _, text in pairs},
    }
