"""The folder of a run: what is written before the first step, the metrics of every step, and the results.

``config.json`` (the manifest) is the first file of a run and marks the folder as one. Whole files are written
atomically; ``metrics.jsonl`` grows by one line a record and is cut back to a checkpoint's position when a run
resumes. The files are listed in `metasynth.running.integrity.run_files`; what ties them together is in `checks` there.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from metasynth.errors import DataError, RunError, UsageError
from metasynth.files import write_atomically
from metasynth.running.integrity import checks
from metasynth.running.integrity.checks import METRICS, RESULTS, SPLIT
from metasynth.running.integrity.json_files import Json, digest_of, read_json_file, with_digest, without_digest
from metasynth.running.integrity.sessions import ENVIRONMENT, Sessions, further_session
from metasynth.running.jsonlines import JsonLines, encode, read_lines
from metasynth.running.lock import FolderLock, claimed, is_claimed_only, refuse_taken
from metasynth.running.manifest import CONFIG, FORMAT, flatten, normal, read_manifest, require_same


class RunFolder:
    """One run on disk. Made by ``create`` or ``resume`` (writers, one at a time) or ``open`` (reader).

    Attributes
    ----------
    path : Path
        The folder.
    manifest : Json
        ``{"format", "experiment", "preset", "seed", "config", "data", "digest"}``, as in ``config.json``.
    """

    def __init__(self, path: Path, manifest: Json, lock: FolderLock | None, records: int | None = None) -> None:
        self.path = path
        self.manifest = manifest
        self._lock = lock
        self._metrics = JsonLines(path / METRICS, records) if lock and not self.finished else None
        self._sessions = Sessions(path / ENVIRONMENT, sealed=self.sealed)
        self._split = checks.split_digest(path) if self._metrics else None
        self._written: set[str] = set()

    @classmethod
    def create(cls, path: Path | str, manifest: Mapping[str, Any], environment: Mapping[str, Any] = {}) -> Self:
        """Start a run in a folder that is absent or empty, and write its manifest and environment.

        Raises
        ------
        UsageError
            The folder holds a run or other files, is a file, or cannot be made or written.
        RunError
            Another process is writing it, or a file could not be written.
        """
        path = Path(path)
        refuse_taken(path)
        with claimed(path) as lock:
            refuse_taken(path)  # again, now that no other process can begin a run there
            checks.tidy(path)
            manifest = with_digest({**normal(manifest), "format": FORMAT})
            write_atomically(path / CONFIG, encode(manifest, indent=2))
            session = further_session({}, environment, path / METRICS)
            write_atomically(path / ENVIRONMENT, encode(with_digest(session), indent=2))
            return cls(path, manifest, lock)

    @classmethod
    def resume(
        cls, path: Path | str, manifest: Mapping[str, Any], environment: Mapping[str, Any] = {}, config: Any = None
    ) -> Self:
        """Take up a run that was made with the same manifest (the data may have moved, not changed).

        ``config``, the settings of the manifest where they are a dataclass, says what old names of settings became.

        Everything that it goes on from is checked before anything is written; that it was resumed is recorded with the
        first that it writes. A folder that a run had claimed and not yet begun is begun.

        Raises
        ------
        UsageError
            The folder holds no run, or one with other settings (each is named, old -> new).
        DataError
            A file of the run is damaged, or was changed since it was written.
        RunError
            So is a checkpoint, another process is writing the run, or a file could not be written.
        """
        path = Path(path)
        if is_claimed_only(path):
            return cls.create(path, manifest, environment)
        recorded = read_manifest(path)
        require_same(path, recorded, manifest, config)
        with claimed(path) as lock:
            if (path / RESULTS).is_file():
                return cls(path, recorded, lock)  # checked when it is reported
            known = checks.check_resumable(path, recorded)
            checks.tidy(path)
            folder = cls(path, recorded, lock, known)  # records that no checkpoint knows are made again
            folder._sessions.begin(environment, path / METRICS)
            return folder

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a run for reading; UsageError if the folder holds none."""
        return cls(Path(path), read_manifest(Path(path)), None)

    @property
    def sealed(self) -> bool:
        """Whether every file carries its digest, as in all but runs of an earlier version."""
        return checks.is_sealed(self.manifest)

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
        return self.path / checks.CHECKPOINTS

    def write_bytes(self, name: str, data: bytes | memoryview) -> Path:
        """Write one whole file, atomically; ``name`` may hold folders ('figures/sigma.png')."""
        if not (self.path / CONFIG).is_file():
            raise RunError(f"{self.path}: was deleted, moved or replaced while the run was writing it")
        self._record_session()
        write_atomically(self.path / name, data)
        self._written.add(name)
        return self.path / name

    def write_json(self, name: str, value: Any) -> Path:
        """Write one JSON file, atomically; RunError if a number in it is not finite.

        Environment and split carry the digest of their content; with the results go the digests of all files.
        """
        try:
            data = encode(with_digest(normal(value)) if name in (ENVIRONMENT, SPLIT) else value, indent=2)
        except ValueError as error:
            raise RunError(f"{self.path / name}: {error}") from error
        if name == SPLIT:
            self._split = digest_of(normal(value))
        if name == RESULTS:
            self.check_records()
            self._record_session()
            self.write_bytes(checks.SUMS, checks.sums_of(self.path, self._written - {checks.SUMS}, data))
        return self.write_bytes(name, data)

    def keep_split(self, split: Mapping[str, Any]) -> None:
        """Write who is for what, once; DataError if a resumed run has kept another division."""
        path = self.path / SPLIT
        kept = self.read_json(SPLIT) if path.is_file() else None
        if kept is not None and kept != normal(split) and self.sealed:
            raise DataError(f"{path}: is not how this run divides its subjects")
        if kept != normal(split):
            self.write_json(SPLIT, split)

    def read_json(self, name: str) -> Any:
        """The content of one JSON file, without its digest; DataError if it is missing or damaged."""
        return without_digest(read_json_file(self.path / name))

    @property
    def results(self) -> Json:
        """The content of results.json; UsageError if the run has not finished."""
        self.check_finished()
        results: Json = self.read_json(RESULTS)
        return results

    @property
    def environment(self) -> Json:
        """The content of environment.json; empty if the run was killed before it was written."""
        return self._sessions.environment

    @property
    def settings(self) -> Json:
        """The manifest with dotted keys ('config.outer.lr')."""
        return flatten(without_digest(self.manifest))

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl; RunError if a number is not finite or the write fails."""
        self._record_session()
        self._writer.append(record)

    def follow(self, told: Callable[[int], None]) -> None:
        """Have ``told`` called with the position of metrics.jsonl whenever it grows or is cut back."""
        self._writer.told = told

    @property
    def position(self) -> int:
        """Bytes of metrics.jsonl so far."""
        return self._writer.position

    def sync(self) -> int:
        """Force metrics.jsonl to the disk and return its position, to be kept in a checkpoint."""
        self._record_session()
        return self._writer.sync()

    def bound(self) -> Json:
        """What a checkpoint says of whose it is; see `metasynth.running.integrity.checks`."""
        return checks.bound_to(self.manifest, self._split, self._writer.digest)

    def truncate(self, position: int) -> None:
        """Cut metrics.jsonl back to what a checkpoint knew (0: no record); RunError if it is shorter."""
        self._record_session()
        self._writer.truncate(position)

    def read_metrics(self) -> list[Json]:
        """Every complete record, without one that a kill cut off; DataError if any is damaged or was changed."""
        return self._metrics.records() if self._metrics else read_lines(self.path / METRICS)

    def check_records(self) -> None:
        """Raise DataError if another program has changed the records that are being written."""
        if self._metrics:
            self._metrics.check()

    def check(self) -> None:
        """Raise DataError if a file of a finished run is not the one that it wrote; a writer tidies up then."""
        checks.check_sums(self.path, self.manifest)
        if self._lock:
            checks.tidy(self.path)

    def earlier_wall_s(self) -> float:
        """Seconds that earlier sessions of this run took, each until its last record."""
        return self._sessions.earlier_wall_s

    def close(self) -> None:
        """Close the files and let other processes write this run."""
        if self._metrics:
            self._metrics.close()
        if self._lock:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def _writer(self) -> JsonLines:
        if self._metrics is None:
            raise RunError(f"{self.path}: the run is open for reading only or has finished")
        return self._metrics

    def _record_session(self) -> None:
        """Write that the run was resumed, before the first that is written then."""
        session = self._sessions.take()
        if session is not None:
            self.write_json(ENVIRONMENT, session)
