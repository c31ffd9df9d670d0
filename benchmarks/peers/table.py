"""The rows, and the table that is made of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

HEADINGS = ("problem", "library", "error of h", "ms a step", "times {ours}", "peak MiB", "MiB more after", "lines")


@dataclass
class Row:
    """What was measured of a library on a problem; None is what was not.

    Attributes
    ----------
    problem, library : str
    error : float or None
        Of the hypergradient, relative to central differences in float64.
    seconds : float or None
        Of the processor for an outer step, median.
    peak_mib : float or None
        Above what was held before the first step.
    growth_mib : float or None
        What is held more after ``steps`` steps.
    steps : int
    lines : int or None
        Of user code.
    reason : str or None
        Why the row, or the rest of it, is empty.
    """

    problem: str
    library: str
    error: float | None = None
    seconds: float | None = None
    peak_mib: float | None = None
    growth_mib: float | None = None
    steps: int = 0
    lines: int | None = None
    reason: str | None = None


def markdown(rows: Sequence[Row], ours: str) -> str:
    """One table; the least time, peak and number of lines of a problem are bold, whoever has them."""
    lines = [" | ".join(HEADINGS).format(ours=ours), " | ".join(["---", "---", *["---:"] * (len(HEADINGS) - 2)])]
    for problem in dict.fromkeys(row.problem for row in rows):
        those = [row for row in rows if row.problem == problem]
        our_seconds = next((row.seconds for row in those if row.library == ours), None)
        lines += [" | ".join(_cells(row, those, our_seconds)) for row in those]
    notes = [f"{row.library}, {row.problem}: {row.reason}" for row in rows if row.reason is not None]
    return "\n".join([*(f"| {line} |" for line in lines), *([""] if notes else []), *(f"- {note}" for note in notes)])


def _cells(row: Row, those: Sequence[Row], our_seconds: float | None) -> list[str]:
    def best(value: Callable[[Row], float | None], form: str, factor: float = 1) -> str:
        own = value(row)
        if own is None:
            return "–"
        shown = [form.format(factor * v) for each in those if (v := value(each)) is not None]
        text = form.format(factor * own)
        return f"**{text}**" if float(text) == min(map(float, shown)) else text

    timed = row.seconds is not None and our_seconds is not None
    return [
        row.problem,
        row.library,
        "–" if row.error is None else "not a number" if math.isnan(row.error) else f"{row.error:.1e}",
        best(lambda each: each.seconds, "{:.2f}", 1000),
        f"{row.seconds / our_seconds:.2f}" if timed else "–",
        best(lambda each: each.peak_mib, "{:.1f}"),
        "–" if row.growth_mib is None else f"{row.growth_mib:.1f} ({row.steps:,})",
        best(lambda each: each.lines, "{:.0f}"),
    ]
