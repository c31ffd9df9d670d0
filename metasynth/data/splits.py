"""Division of subjects into training, validation and test parts: seeded, saved, never overlapping."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from metasynth.errors import DataError

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Names of the subjects of each part; no subject is in two, and none of the parts is empty.

    Attributes:
        train: Subjects to learn from.
        val: Subjects to choose by.
        test: Subjects to report on.
        seed: The seed that made the division.

    Raises:
        DataError: A part is empty, or a subject is listed twice.

    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        home: dict[str, str] = {}
        for part in PARTS:
            names = getattr(self, part)
            if not names:
                raise DataError(f"split: part '{part}' is empty; train, val and test each need a subject")
            for name in names:
                if name in home:
                    raise DataError(f"split: subject {name!r} is in '{home[name]}' and again in '{part}'")
                home[name] = part

    def to_dict(self) -> dict[str, Any]:
        """A form that JSON holds; `from_dict` reads it back."""
        return {"seed": self.seed, **{part: list(getattr(self, part)) for part in PARTS}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read a saved split and check it; raises `DataError` when it is not one."""
        for key in ("seed", *PARTS):
            if key not in data:
                raise DataError(f"split: key '{key}' is missing; seed, train, val and test are needed")
        if not isinstance(data["seed"], int) or isinstance(data["seed"], bool):
            raise DataError(f"split: seed must be an integer, got {data['seed']!r}")
        for part in PARTS:
            names = data[part]
            if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
                raise DataError(f"split: '{part}' must be a list of subject names, got {names!r}")
        return cls(train=tuple(data["train"]), val=tuple(data["val"]), test=tuple(data["test"]), seed=data["seed"])


def make_split(subjects: Sequence[str], seed: int, fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)) -> Split:
    """Divide subjects at random, by default 60/20/20, whatever the order they are given in.

    The subjects are ordered by the SHA-256 of seed and name, which no library version changes. Validation and
    test receive their fraction rounded half up, at least one subject each; training receives the rest.

    Args:
        subjects: Names, all different.
        seed: Any integer.
        fractions: Shares of train, val and test: positive, adding to 1.

    Raises:
        DataError: Fewer than 3 subjects, or too few for the fractions; a name given twice; fractions that do
            not add to 1.

    """
    if len(fractions) != 3 or not all(f > 0 for f in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(f"fractions must be three positive numbers that add to 1, got {tuple(fractions)}")
    n = len(subjects)
    if len(set(subjects)) != n:
        twice = next(name for name in subjects if subjects.count(name) > 1)
        raise DataError(f"subjects must be different, got {twice!r} twice")
    n_val, n_test = (max(1, int(fraction * n + 0.5)) for fraction in fractions[1:])
    n_train = n - n_val - n_test
    if n_train < 1:
        raise DataError(
            f"a split into train, val and test needs at least 3 subjects and one of them left for training, "
            f"got {n} subjects for fractions {tuple(fractions)}"
        )
    ordered = sorted(subjects, key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode()).digest())
    return Split(
        train=tuple(sorted(ordered[:n_train])),
        val=tuple(sorted(ordered[n_train : n_train + n_val])),
        test=tuple(sorted(ordered[n_train + n_val :])),
        seed=seed,
    )
