"""What a recovery study recovers, by its names in rows, in the records of training and in reports over many runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metasynth.experiments.recovery.grid_figures import Truth
from metasynth.experiments.recovery.rows import Row, is_comparable

from metasynth.augment.entry import AugmenterEntry
from metasynth.augment.table import known_entry

Drawn = Callable[[AugmenterEntry | None], str | None]
"""(line of the table, None where the augmenter is missing) -> what records call the value whose course is drawn."""


@dataclass(frozen=True)
class Quantity:
    """A value that is recovered, by its names.

    Attributes
    ----------
    name : str
        In headings.
    truth, learned : str
        In rows; an empty truth: there is none.
    observed : str
        In names of figures, and in the records of runs that are older than the choice of an augmenter.
    start : str
        In the settings: where it starts; empty: they do not say.
    drawn : callable
        (line of the table, None where the augmenter is missing) -> what records call the value whose course is drawn,
        None if none is.
    item : int, str or None
        Which of a row's lists or mappings it is; None where rows hold the value itself.
    """

    name: str
    truth: str
    learned: str
    observed: str
    start: str
    drawn: Drawn
    item: int | str | None = None

    def learned_in(self, row: Row) -> float | None:
        """What was learned; None where it is not a single value."""
        return _number(self._of(row, self.learned))

    def course_in(self, row: Row) -> str | None:
        """What records of the row's run call the value whose course is drawn; None where there is none to draw."""
        if self._of(row, self.learned) is None:
            return None
        return self.drawn(known_entry(row["augmenter"])) if "augmenter" in row else self.observed

    def truth_in(self, row: Row) -> Truth:
        """A number, or a range (low, high); None where what is learned is not to be compared with it."""
        value = self._of(row, self.truth)
        if value is None or not is_comparable(row):
            return None
        return (float(value[0]), float(value[1])) if isinstance(value, list | tuple) else float(value)

    def error_in(self, row: Row) -> float | None:
        """|learned - true|, where both are numbers."""
        learned, truth = self.learned_in(row), self.truth_in(row)
        return abs(learned - truth) if isinstance(truth, float) and learned is not None else None

    def _of(self, row: Row, key: str) -> Any:
        value = row.get(key)
        if isinstance(value, Mapping):
            return value.get(self.item)
        return value[self.item] if isinstance(self.item, int) and value is not None else value


SIGMA = Quantity(
    "σ",
    "sigma_true",
    "sigma_learned",
    "sigma",
    "start",
    lambda entry: entry.sigma[-1] if entry and entry.sigma else None,
)
"""Of a range of it, the upper end is drawn."""


def exponents(names: Sequence[str]) -> tuple[Quantity, ...]:
    """The exponents of bias fields: items of ``c_true`` and ``c_learned``."""

    def one(name: str, item: int) -> Quantity:
        def drawn(entry: AugmenterEntry | None) -> str | None:
            return entry.exponents[item] if entry and entry.exponents else None

        return Quantity(name, "c_true", "c_learned", name, "start_c", drawn, item)

    return tuple(one(name, item) for item, name in enumerate(names))


def values(learned: Sequence[Row]) -> tuple[Quantity, ...]:
    """All that augmenters without a sigma observed, without a truth; what their lines leave undrawn has no course."""

    def one(name: str) -> Quantity:
        def drawn(entry: AugmenterEntry | None) -> str | None:
            return None if entry and name in entry.undrawn else name

        return Quantity(name, "", "learned", name, "", drawn, name)

    return tuple(map(one, dict.fromkeys(name for row in learned for name in row.get("learned", ()))))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
