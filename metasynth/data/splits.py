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

    Attributes
    ----------
    train : tuple of str
        Subjects to learn from.
    val : tuple of str
        Subjects to choose by.
    test : tuple of str
        Subjects to report on.
    seed : int
        The seed that made the division.

    Raises
    ------
    DataError
        A part is empty, or a subject is listed twice.
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

    Parameters
    ----------
    subjects : sequence of str
        Names, all different.
    seed : int
        Any integer.
    fractions : tuple (float, float, float)
        Shares of train, val and test: positive, adding to 1.

    Raises
    ------
    DataError
        Fewer than 3 subjects, or too few for the fractions; a name given twice; fractions that do not add to 1.
    """
    if len(fractions) != 3 or not all(f > 0 for f in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(f"fractions must be three positive numbers that add to 1, got {tuple(fractions)}")
    n = len(subjects)
    _check_different(subjects)
    n_val, n_test = (max(1, int(fraction * n + 0.5)) for fraction in fractions[1:])
    n_train = n - n_val - n_test
    if n_train < 1:
        raise DataError(
            f"a split into train, val and test needs at least 3 subjects and one of them left for training, "
            f"got {n} subjects for fractions {tuple(fractions)}"
        )
    ordered = _ordered(subjects, seed)
    return Split(
        train=tuple(sorted(ordered[:n_train])),
        val=tuple(sorted(ordered[n_train : n_train + n_val])),
        test=tuple(sorted(ordered[n_train + n_val :])),
        seed=seed,
    )


def rotated_split(subjects: Sequence[str], seed: int, n_val: int, n_test: int, rotation: int = 0) -> Split:
    """Divide subjects by numbers; rotations of one seed test other subjects each.

    The subjects stand in a circle, in the order of `make_split`. Rotation r tests the r-th `n_test` of them, takes the
    `n_val` that follow for validation and the rest, as they follow, for training: the first few of them are a training
    set as random as all of them.

    Parameters
    ----------
    subjects : sequence of str
        Names, all different.
    seed : int
        Any integer.
    n_val : int
        Validation subjects, at least 1.
    n_test : int
        Test subjects, at least 1.
    rotation : int
        Which of the groups of `n_test` whole ones to test, from 0.

    Raises
    ------
    DataError
        Too few subjects for these numbers, or for this rotation; a name given twice.
    """
    n = len(subjects)
    _check_different(subjects)
    if n_val < 1 or n_test < 1 or n - n_val - n_test < 1:
        raise DataError(
            f"a split needs at least 1 subject each for training, validation and test; got {n} subjects for "
            f"{n_val} of validation and {n_test} of test"
        )
    if not 0 <= rotation < n // n_test:
        raise DataError(f"rotation must be 0 to {n // n_test - 1} for {n_test} test subjects of {n}, got {rotation}")
    circle = _ordered(subjects, seed)
    at = rotation * n_test
    circle = circle[at:] + circle[:at]
    return Split(
        train=tuple(circle[n_test + n_val :]),
        val=tuple(circle[n_test : n_test + n_val]),
        test=tuple(circle[:n_test]),
        seed=seed,
    )


def _ordered(subjects: Sequence[str], seed: int) -> list[str]:
    return sorted(subjects, key=lambda name: hashlib.sha256(f"{seed}\n{name}".encode()).digest())


def _check_different(subjects: Sequence[str]) -> None:
    if len(set(subjects)) != len(subjects):
        twice = next(name for name in subjects if subjects.count(name) > 1)
        raise DataError(f"subjects must be different, got {twice!r} twice")
