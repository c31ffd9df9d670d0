"""The folder of a run: what is written before the first step, the metrics of every step, and the results.

``config.json`` (the manifest) is the first file of a run and marks the folder as one. Whole files are written
atomically; ``metrics.jsonl`` grows by one line a record and is cut back to a checkpoint's position when a run
resumes.
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from metasynth.errors import DataError, RunError, UsageError
from metasynth.files import write_atomically
from metasynth.training.jsonlines import JsonLines, encode, read_lines
from metasynth.training.lock import FolderLock, claim, holdings, is_claimed_only
from metasynth.training.manifest import FORMAT, differing, flatten, normal

CONFIG, ENVIRONMENT, METRICS, RESULTS = "config.json", "environment.json", "metrics.jsonl", "results.json"
Json = dict[str, Any]


class RunFolder:
    """One run on disk. Made by ``create`` or ``resume`` (writers, one at a time) or ``open`` (reader).

    Attributes:
        path: the folder.
        manifest: ``{"format", "experiment", "preset", "seed", "config", "data"}`` as read from
            ``config.json``.

    """

    def __init__(self, path: Path, manifest: Json, lock: FolderLock | None) -> None:
        self.path = path
        self.manifest = manifest
        self._lock = lock
        self._metrics = JsonLines(path / METRICS) if lock and not self.finished else None

    @classmethod
    def create(cls, path: Path | str, manifest: Mapping[str, Any], environment: Mapping[str, Any] = {}) -> Self:
        """Start a run in a folder that is absent or empty, and write its manifest and environment.

        Raises:
            UsageError: the folder holds a run or other files, is a file, or cannot be made or written.
            RunError: another process is writing it, or a file could not be written.

        """
        path = Path(path)
        refuse_taken(path)
        lock = claim(path)
        try:
            refuse_taken(path)  # again, now that no other process can begin a run there
            manifest = {"format": FORMAT, **normal(manifest)}
            write_atomically(path / CONFIG, encode(manifest, indent=2))
            folder = cls(path, manifest, lock)
            folder._write_environment(environment)
        except BaseException:
            lock.release()
            raise
        return folder

    @classmethod
    def resume(cls, path: Path | str, manifest: Mapping[str, Any], environment: Mapping[str, Any] = {}) -> Self:
        """Take up a run that was made with the same manifest (the data may have moved, not changed).

        A folder that a run had claimed and not yet begun is begun.

        Raises:
            UsageError: the folder holds no run, or one with other settings (each is named, old -> new).
            RunError: another process is writing it, or a file could not be written.

        """
        path = Path(path)
        if is_claimed_only(path):
            return cls.create(path, manifest, environment)
        recorded = _read_manifest(path)
        differences = differing(recorded, {"format": FORMAT, **normal(manifest)})
        if differences:
            raise UsageError(f"{path}: cannot resume with other settings: {'; '.join(differences)}")
        lock = claim(path)
        try:
            folder = cls(path, recorded, lock)
            if not folder.finished:
                folder._write_environment(environment)
        except BaseException:
            lock.release()
            raise
        return folder

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a run for reading; UsageError if the folder holds none."""
        return cls(Path(path), _read_manifest(Path(path)), None)

    @property
    def finished(self) -> bool:
        """Whether the results are written."""
        return (self.path / RESULTS).is_file()

    def check_finished(self) -> None:
        """Raise UsageError if the run has no results."""
        if not self.finished:
            raise UsageError(f"{self.path}: the run has no results yet; continue it with --resume")

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints; it is made when the first is saved."""
        return self.path / "checkpoints"

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write one whole file, atomically; ``name`` may hold folders ('figures/sigma.png')."""
        write_atomically(self.path / name, data)
        return self.path / name

    def write_json(self, name: str, value: Any) -> Path:
        """Write one JSON file, atomically; RunError if a number in it is not finite."""
        try:
            return self.write_bytes(name, encode(value, indent=2))
        except ValueError as error:
            raise RunError(f"{self.path / name}: {error}") from error

    def read_json(self, name: str) -> Any:
        """The content of one JSON file; DataError if it is missing or damaged."""
        return read_json_file(self.path / name)

    @property
    def results(self) -> Json:
        """The content of results.json; UsageError if the run has not finished."""
        self.check_finished()
        results: Json = self.read_json(RESULTS)
        return results

    @property
    def environment(self) -> Json:
        """The content of environment.json; empty if the run was killed before it was written."""
        environment: Json = self.read_json(ENVIRONMENT) if (self.path / ENVIRONMENT).is_file() else {}
        return environment

    @property
    def settings(self) -> Json:
        """The manifest with dotted keys ('config.outer.lr')."""
        return flatten(self.manifest)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl; RunError if a number is not finite or the write fails."""
        self._writer.append(record)

    @property
    def position(self) -> int:
        """Bytes of metrics.jsonl so far."""
        return self._writer.position

    def sync(self) -> int:
        """Force metrics.jsonl to the disk and return its position, to be kept in a checkpoint."""
        return self._writer.sync()

    def truncate(self, position: int) -> None:
        """Cut metrics.jsonl back to what a checkpoint knew (0: no record); RunError if it is shorter."""
        self._writer.truncate(position)

    def read_metrics(self) -> list[Json]:
        """Every complete record; a last line cut off by a kill is left out, a damaged one is a DataError."""
        return read_lines(self.path / METRICS)

    def earlier_wall_s(self) -> float:
        """Seconds that earlier sessions of this run took, each until its last record."""
        return float((self.environment["resumed"] or [{}])[-1].get("earlier_wall_s", 0.0))

    def close(self) -> None:
        """Close the files and let other processes write this run."""
        if self._metrics:
            self._metrics.close()
        if self._lock:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _writer(self) -> JsonLines:
        if self._metrics is None:
            raise RunError(f"{self.path}: the run is open for reading only or has finished")
        return self._metrics

    def _write_environment(self, now: Mapping[str, Any]) -> None:
        """Write where the run started, or add where it resumed and how long it had taken until then."""
        started = {"started": time.time()}
        if not (self.path / ENVIRONMENT).is_file():
            self.write_json(ENVIRONMENT, {**now, **started, "resumed": []})
            return
        environment = self.environment
        last = environment["resumed"][-1] if environment["resumed"] else environment
        seen = os.stat(self.path / METRICS)  # its time is that of the last record before this session
        active = max(0.0, seen.st_mtime - last["started"]) if seen.st_size else 0.0
        earlier = {"earlier_wall_s": last.get("earlier_wall_s", 0.0) + active}
        changed = {key: value for key, value in normal(now).items() if environment.get(key) != value}
        environment["resumed"].append({**started, **earlier, **changed})
        self.write_json(ENVIRONMENT, environment)


def refuse_taken(path: Path) -> None:
    """Raise UsageError if the folder holds a run or anything else."""
    held = holdings(path)
    if CONFIG in held:
        raise UsageError(f"{path}: holds another run; continue it with --resume or give another --out")
    if held:
        raise UsageError(f"{path}: is not empty (it holds {min(held)}); give another --out")


def _read_manifest(path: Path) -> Json:
    if not (path / CONFIG).is_file():
        raise UsageError(f"{path}: holds no run ({CONFIG} is missing)")
    manifest: Json = read_json_file(path / CONFIG)
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise UsageError(f"{path / CONFIG}: expected a run of format {FORMAT!r}, got {found!r}")
    return manifest


def read_json_file(path: Path) -> Any:
    """What a JSON file holds; DataError, which names it, if it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path}: is not valid JSON: {error}") from error
