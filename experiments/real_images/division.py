"""Who of the subjects of a comparison's caches is for what: names alone, which follow from settings and seed."""

from collections.abc import Mapping
from dataclasses import dataclass

from metasynth.experiments.real_images.settings import RealImageSettings

from metasynth.data.cache import Cache
from metasynth.data.splits import Split, rotated_split
from metasynth.errors import DataError

LABELS, TESTS = "labels", "tests"


@dataclass(frozen=True)
class Division:
    """Names of subjects by what they are for.

    Attributes
    ----------
    train, validation : tuple of str
        To learn from, and to choose by.
    tests : mapping
        Condition -> test subjects.
    maps : tuple of str
        Whose label maps images are synthesised from.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    tests: Mapping[str, tuple[str, ...]]
    maps: tuple[str, ...]


def split_of(config: RealImageSettings, cache: Cache, seed: int) -> Split:
    """The subjects of a cache, divided by numbers; DataError if there are too few."""
    n_val, n_test = config.subjects.counts(len(cache.subjects))
    try:
        return rotated_split(cache.subjects, seed, n_val, n_test, config.subjects.rotation)
    except DataError as error:
        raise DataError(f"{cache.path}: {error}") from error


def divide(config: RealImageSettings, cache: Cache, others: Mapping[str, Cache], split: Split) -> Division:
    """Who of all caches is for what; DataError if there are too few for something."""
    require_train(config, cache, split)
    seen = {*split.train, *split.val}
    tests = {config.domain: split.test}
    for name, other in others.items():
        if name != LABELS:
            tests[condition_of(name)] = _left(other, seen, f"that are for training or validation in {cache.path}")
    maps, source = split.train, cache
    if LABELS in others:
        source = others[LABELS]
        without = {*split.val, *(name for names in tests.values() for name in names)}
        maps = _left(source, without, f"that are for validation or tests in {cache.path}")
    if len(maps) == 1 and set(maps) <= set(split.train):
        raise DataError(
            f"{source.path}: synthetic and real examples of a step come from different people, which needs label "
            f"maps of at least 2 training subjects, got {maps[0]!r} alone"
        )
    return Division(split.train, split.val, tests, maps)


def require_train(config: RealImageSettings, cache: Cache, split: Split) -> None:
    """DataError unless as many subjects are left for training as the settings ask for."""
    most = max(config.subjects.train)
    if most > len(split.train):
        raise DataError(
            f"{cache.path}: subjects.train asks for {most} training subjects; {len(split.train)} of "
            f"{len(cache.subjects)} are left beside {len(split.val)} for validation and {len(split.test)} for tests"
        )


def is_cache(setting: str) -> bool:
    """Whether what a setting names is a cache, and not a file of what was estimated or learned."""
    return setting == LABELS or setting.startswith(f"{TESTS}.")


def condition_of(name: str) -> str:
    """Of a cache of further tests, known as tests.CONDITION."""
    return name.partition(".")[2]


def _left(cache: Cache, without: set[str], why: str) -> tuple[str, ...]:
    left = tuple(name for name in cache.subjects if name not in without)
    if not left:
        raise DataError(f"{cache.path}: all {len(cache.subjects)} subjects are left out, as ones {why}")
    return left
