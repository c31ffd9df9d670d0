"""A file of one strict JSON object a line, which grows by whole lines and can be cut back."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from metasynth.errors import DataError, RunError
from metasynth.text import parse_json


def encode(value: Any, indent: int | None = None) -> bytes:
    """Strict JSON (no NaN, no infinity) and a line end; ValueError naming the entry that is not finite."""
    try:
        text = json.dumps(value, indent=indent, allow_nan=False, separators=None if indent else (",", ":"))
    except ValueError as error:
        where = _not_finite(value)
        raise ValueError(f"{where} is not a finite number" if where else str(error)) from error
    return (text + "\n").encode()


def _not_finite(value: Any, key: str = "") -> str | None:
    """The dotted key of the first number that is not finite."""
    if isinstance(value, float):
        return None if math.isfinite(value) else key or "the value"
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    found = (_not_finite(item, f"{key}.{name}" if key else str(name)) for name, item in items)
    return next((name for name in found if name), None)


class JsonLines:
    """The open file, at its end.

    Each line is handed to the operating system as it is appended, so that killing the process loses none. A running
    digest tells whether the file still holds what was appended. With ``end`` it is as if the file had so many bytes;
    it is cut back before anything is appended.

    Attributes
    ----------
    told : callable
        Called with the position after each change of it.
    """

    def __init__(self, path: Path, end: int | None = None) -> None:
        self.path = path
        self.told: Callable[[int], None] = lambda position: None
        try:
            self._file = path.open("ab", buffering=0)
            held = path.read_bytes()[:end]
        except OSError as error:
            raise self._failure(error) from error
        self._position, self._hash = len(held), hashlib.sha256(held)
        self._tail = end is not None  # whether more than that may be in the file

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return self._hash.hexdigest()

    @property
    def position(self) -> int:
        """Bytes in the file."""
        return self._position

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line, wholly or not at all; RunError if a number is not finite or the write fails."""
        try:
            line = encode(record)
        except ValueError as error:
            raise RunError(f"{self.path}: {error} in the record {dict(record)}") from error
        written = 0
        self._cut_back()
        try:
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._position)
            raise self._failure(error) from error
        self._position += len(line)
        self._hash.update(line)
        self.told(self._position)

    def records(self) -> list[dict[str, Any]]:
        """Every complete line; DataError if another program has changed the file."""
        held = _bytes(self.path, self._position)
        records = _records(self.path, held)
        self._require_own(held)
        return records

    def check(self) -> None:
        """Raise DataError if another program has changed the file."""
        self._require_own(_bytes(self.path, self._position))

    def sync(self) -> int:
        """Force every line to the disk and return the position; RunError if the file is no longer where it was."""
        self._check_there()
        self._cut_back()
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failure(error) from error
        return self._position

    def truncate(self, position: int) -> None:
        """Cut the file to ``position`` bytes; RunError if it is shorter."""
        if position > self._position:
            raise RunError(f"{self.path}: holds {self._position} bytes, fewer than the {position} of the checkpoint")
        try:
            held = self.path.read_bytes()[:position]
        except OSError as error:
            raise self._failure(error) from error
        self._position, self._hash, self._tail = len(held), hashlib.sha256(held), True
        self._cut_back()
        self.told(self._position)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _require_own(self, held: bytes) -> None:
        if hashlib.sha256(held).digest() != self._hash.digest():
            raise DataError(f"{self.path}: was changed by another program while the run was writing it")

    def _cut_back(self) -> None:
        if self._tail:
            try:
                self._file.truncate(self._position)
            except OSError as error:
                raise self._failure(error) from error
            self._tail = False

    def _check_there(self) -> None:
        with suppress(OSError):
            if os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno())):
                return
        raise RunError(f"{self.path}: was deleted, moved or replaced while the run was writing it")

    def _failure(self, error: OSError) -> RunError:
        return RunError(f"{self.path}: cannot be written: {error.strerror or error}")


def read_lines(path: Path, until: int | None = None) -> list[dict[str, Any]]:
    """Every complete line, of the first bytes alone with ``until``; a last line without its end is left out.

    Raises
    ------
    DataError
        The file cannot be read, or a complete line is not a JSON object; the line is named.
    """
    return _records(path, _bytes(path, until))


def _bytes(path: Path, until: int | None) -> bytes:
    try:
        return path.read_bytes()[:until]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _records(path: Path, held: bytes) -> list[dict[str, Any]]:
    """The complete lines of what a file holds."""
    return [_record(path, number, line) for number, line in enumerate(held.split(b"\n")[:-1], start=1)]


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = parse_json(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: line {number} is not valid JSON: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"{path}: line {number}: expected a JSON object, got {type(record).__name__}")
    return record
