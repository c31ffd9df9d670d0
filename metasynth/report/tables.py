"""Tables of a run: written as CSV for programs and as aligned Markdown for people."""

import csv
import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from metasynth.outputs import csv_cell
from metasynth.running.records import flatten

ABSENT = "–"


@dataclass(frozen=True)
class Table:
    """A table with a caption.

    Attributes
    ----------
    caption : str
        One sentence that says what the rows are.
    columns : tuple of str
        Headings.
    rows : tuple of tuple of Any
        One value a column; numbers, text, or None where there is none.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows, start=1):
            if len(row) != len(self.columns):
                raise ValueError(f"rows: row {number} has {len(row)} values for {len(self.columns)} columns")

    @classmethod
    def from_records(
        cls, caption: str, records: Sequence[Mapping[str, Any]], columns: Mapping[str, str] | None = None
    ) -> Self:
        """A table of records, nested ones under dotted keys.

        Parameters
        ----------
        caption : str
            One sentence.
        records : sequence of mapping
            One a row; a key that a record lacks is None there.
        columns : mapping of str to str or None
            Key -> heading of the columns wanted, in order; all by default, in order of appearance.
        """
        flat = [flatten(record) for record in records]
        keys = columns or {key: key for record in flat for key in record}
        rows = tuple(tuple(record.get(key) for key in keys) for record in flat)
        return cls(caption, tuple(keys.values()), rows)

    def csv(self) -> str:
        """Comma-separated values (RFC 4180) at full precision, with an empty field for None; no cell is a formula."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerows([csv_cell(value) for value in row] for row in (self.columns, *self.rows))
        return text.getvalue()

    def cells(self) -> list[list[str]]:
        """Every value as text; the numbers of a column share their decimals."""
        by_column = zip(*self.rows, strict=True) if self.rows else ()
        return [list(row) for row in zip(*map(format_column, by_column), strict=True)]

    def numeric(self) -> list[bool]:
        """Which columns hold numbers and nothing else, and so are aligned to the right."""
        return [all(_is_number(row[at]) or row[at] is None for row in self.rows) for at in range(len(self.columns))]

    def markdown(self) -> str:
        """A Markdown table whose columns are aligned in plain text too; what would be HTML is escaped."""
        lines = [list(self.columns), *self.cells()]
        lines = [[escaped(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
        widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
        right = self.numeric()
        rule = ["-" * (width - 1) + ":" if r else "-" * width for width, r in zip(widths, right, strict=True)]
        padded = [
            [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)] for line in lines
        ]
        return "\n".join(f"| {' | '.join(line)} |" for line in [padded[0], rule, *padded[1:]]) + "\n"


def escaped(text: str) -> str:
    """Text for Markdown: HTML in it shows as it is; what is none, such as '<0.05', is left alone."""
    return html.escape(text, quote=False) if re.search("<[A-Za-z/!?]", text) else text


def format_column(values: Sequence[Any]) -> list[str]:
    """The values of one column as text.

    Whole numbers stay whole. Other numbers of a column share their decimals: 3 if the largest is below 10, 2
    below 100, 1 below 1000, else 0; all in scientific notation if none reaches 0.001. None and NaN give a
    dash.
    """
    sizes = [abs(value) for value in values if isinstance(value, float) and math.isfinite(value)]
    largest = max(sizes, default=0.0)
    if 0 < largest < 1e-3:
        spec = ".2e"
    else:
        spec = f".{sum(largest < limit for limit in (10, 100, 1000))}f"
    return [_format(value, spec) for value in values]


def _format(value: Any, spec: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ABSENT
    if isinstance(value, float):
        return format(value, spec)
    if isinstance(value, list | tuple):
        return " – ".join(_format(item, spec) for item in value)
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
