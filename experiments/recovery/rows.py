"""The rows of a recovery study, and what is read of the files of its runs.

A row has ``model`` (N, L or O), ``sigma_true``, ``sigma_learned``, ``sigma_sd`` and ``dice`` by test condition, each a
summary with ``mean``, ``per_class`` and ``per_subject``.
"""

from collections.abc import Callable, Mapping
from typing import Any

from metasynth.augment.noise import NoiseLevel
from metasynth.augment.table import known_entry
from metasynth.running.records import METRICS, RESULTS
from metasynth.schema import NUMBER, TEXT, Problem, either, entries, listing, mapping, maybe, one_of, scalar

Row = Mapping[str, Any]
Label = Callable[[Any], str]

MODELS = {"N": "naive", "L": "Learn2Synth", "O": "optimised"}

LEVEL = either(listing(NUMBER, length=2), NUMBER)
"""A sigma, or a range of it."""

DICE = entries({"mean": maybe(NUMBER), "per_class": mapping(maybe(NUMBER)), "per_subject": mapping(maybe(NUMBER))})
_TESTED = entries(
    {"model": one_of(*MODELS), "sigma_true": LEVEL, "dice": mapping(DICE, least=1)},
    {"augmenter": TEXT, "c_true": listing(NUMBER)},
)
_LEARNED = entries({"sigma_learned": LEVEL, "sigma_sd": LEVEL})
_VALUES = entries({name: mapping(NUMBER, least=1) for name in ("learned", "learned_sd")})
_EXPONENTS = entries({name: listing(NUMBER) for name in ("c_true", "c_learned", "c_sd")})


def _row(value: Any) -> Problem | None:
    """What is wrong with a row."""
    learned = isinstance(value, Mapping) and value.get("model") == "L"
    exponents = isinstance(value, Mapping) and "c_learned" in value
    of_model = _VALUES if isinstance(value, Mapping) and "learned" in value else _LEARNED
    return _TESTED(value) or (of_model(value) if learned else None) or (_EXPONENTS(value) if exponents else None)


def _rows(value: Any) -> Problem | None:
    found = listing(_row, least=1)(value)
    learned = scalar("rows with at least one of model L", lambda rows: any(row["model"] == "L" for row in rows))
    return found or learned(value)


CONTENTS = {METRICS: listing(entries({"stage": TEXT}), least=1), RESULTS: entries({"rows": _rows})}
"""What is read of the files of a run; an ``Experiment.contents``."""


def level_label(value: Any) -> str:
    """The label of a ``sigma_true``: '0.1', or 'U[0.025, 0.2]' of a range."""
    return NoiseLevel.from_json(value).label


def error_of(row: Row) -> float | None:
    """|learned - true|; None where one of them is a range, or the augmenter's sigma means something else."""
    truth = truth_of(row)
    return abs(row["sigma_learned"] - truth) if truth is not None else None


def is_comparable(row: Row) -> bool:
    """Whether what was learned means what the preset means; rows that name no augmenter are older than the choice."""
    entry = known_entry(row.get("augmenter", "fixed"))
    return entry is not None and entry.comparable


def truth_of(row: Row) -> float | None:
    """The preset sigma, where it is a single value that the learned one should have."""
    truth = row["sigma_true"]
    return float(truth) if is_comparable(row) and isinstance(truth, int | float) else None
