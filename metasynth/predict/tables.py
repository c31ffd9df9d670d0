"""CSV tables with one heading and a row a record; what is absent is an empty field."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metasynth.errors import DataError
from metasynth.files import write_atomically
from metasynth.outputs import csv_cell
from metasynth.text import read_lines

DIGITS = 6


def write_table(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write records as `encoded` has them; RunError if the file cannot be written."""
    write_atomically(path, encoded(records))


def encoded(records: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None, delimiter: str = ",") -> bytes:
    """A table of records that share their keys: numbers to six digits, None and NaN empty, no cell a formula.

    Parameters
    ----------
    records : sequence of mapping
        A row each.
    columns : sequence of str or None
        The heading; by default the first record's keys.
    delimiter : str
        What stands between columns.
    """
    text = io.StringIO()
    keys = columns or (list(records[0]) if records else [])
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n" if delimiter == "\t" else "\r\n")
    writer.writerow(map(csv_cell, keys))
    writer.writerows([_cell(record.get(key)) for key in keys] for record in records)
    return text.getvalue().encode()


def read_table(path: Path) -> list[dict[str, str]]:
    """The records of a table as text, which another program may have saved; none if there is no such file.

    Raises
    ------
    DataError
        The file cannot be read.
    """
    if not path.exists():
        return []
    try:
        return list(csv.DictReader(read_lines(path), delimiter=_delimiter(path)))
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as a table: {error}") from error


def read_heading(path: Path) -> list[str]:
    """The heading of a table; empty where the file is no table."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return next(csv.reader(file, delimiter=_delimiter(path)), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _delimiter(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else csv_cell(value)
