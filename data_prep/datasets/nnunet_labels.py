"""The labels of nnU-Net's `dataset.json` as classes of a cache."""

from collections.abc import Mapping, Sequence
from typing import Any

from metasynth.data_prep import label_tables as tables
from metasynth.data_prep.cohorts.template import CLASS_NAMES
from metasynth.data_prep.labels import LabelMapping
from metasynth.data_prep.mappings import LONGEST_NAME, MOST_CLASSES
from metasynth.data_prep.naming.names import as_name, listed

from metasynth.errors import DataError
from metasynth.text import shortened, shown, whole_number

NAME = "dataset.json"
IGNORED = "ignore"
Ids = int | list[int]
"""Of a label, or of a region."""


def ids_by_name(given: Mapping[str, Any], said: str) -> dict[str, Ids]:
    """The ids by name, whichever of the two the description has for keys: version 1 had the numbers.

    Raises
    ------
    DataError
        Which begins with ``said``: neither are the numbers, or a name is there twice.
    """
    texts = [isinstance(value, str) for value in given.values()]
    if not any(texts):
        return dict(given)
    numbers = {name: whole_number(key) for key, name in given.items()}
    if not all(texts) or None in numbers.values():
        raise DataError(f"{said} expected names with their numbers, got {_listed(given)}")
    if len(numbers) < len(given):
        raise DataError(f"{said} expected names that differ, got {_listed(given)}")
    return {name: number for name, number in numbers.items() if number is not None}


def mapping_of(labels: Mapping[str, Ids], said: str) -> LabelMapping:
    """The labels of a data set as classes; of regions, each id is of the last one that holds it.

    That is what nnU-Net makes of regions in the end: later ones are written over earlier ones, so that the whole comes
    before its parts.

    Parameters
    ----------
    labels : mapping
        Name -> id, or ids.
    said : str
        What messages begin with.

    Raises
    ------
    DataError
        The labels are not 0, 1, ... without a gap, one of them marks what has no label, a region would have no voxel,
        or there are too many.
    """
    if IGNORED in labels:
        raise DataError(f"{said} {IGNORED!r} is what has no label, and a cache needs all; expected --mapping CSV")
    ids = {name: [value] if isinstance(value, int) else value for name, value in labels.items()}
    background = next((name for name, own in ids.items() if own == [0]), None)
    named = [name for name in ids if name != background]
    if background is None or any(0 in ids[name] for name in named):
        raise DataError(f"{said} expected 0 for the background alone, got {_listed(labels)}")
    every = {i for own in ids.values() for i in own}
    if every != {*range(len(every))}:
        raise DataError(f"{said} expected the numbers 0, 1, ... without a gap, got {_listed(labels)}")
    regions = any(len(own) > 1 for own in ids.values())
    if not regions:
        named = sorted(named, key=lambda name: ids[name])
        if len(every) < len(ids):
            raise DataError(f"{said} expected one name a number, got {_listed(labels)}")
    names = ("background", *map(as_name, named))
    _check_names(names, said)
    classes = {0: 0} | {i: k for k, name in enumerate(named, 1) for i in ids[name]}
    empty = next((name for k, name in enumerate(named, 1) if k not in classes.values()), None)
    if empty is not None:
        raise DataError(f"{said} all of {shown(empty)} is in later regions; expected the whole before its parts")
    what = "regions, each without the later ones in it" if regions else "labels"
    t1 = tuple(tables.T1) if names == CLASS_NAMES else ()
    return LabelMapping(NAME, names, classes, f"{NAME}: {what} of an nnU-Net data set", head=frozenset(), t1=t1)


def _check_names(names: Sequence[str], said: str) -> None:
    if len(names) > MOST_CLASSES:
        raise DataError(f"{said} at most {MOST_CLASSES} classes are possible, got {len(names)}")
    wrong = next((name for name in names if not name or len(name) > LONGEST_NAME), None)
    if wrong is not None:
        raise DataError(f"{said} expected names of 1 to {LONGEST_NAME} characters, got {shown(wrong)}")
    if len({*names}) < len(names):
        raise DataError(f"{said} expected names that differ, got {listed(names, 6)}")


def _listed(labels: Mapping[str, Any]) -> str:
    return shortened(listed([f"{name}: {value}" for name, value in labels.items()], 6))
