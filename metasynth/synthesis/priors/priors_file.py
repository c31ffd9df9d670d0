"""A file of priors: JSON, written by this program or by hand, and checked when it is read."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Any

from metasynth.errors import DataError
from metasynth.files import require_file, write_atomically
from metasynth.outputs import Kind
from metasynth.schema import COUNT, FLAG, NUMBER, TEXT, entries, expect, json_value, listing, mapping, one_of
from metasynth.synthesis.priors.structure_priors import EROSIONS, Prior, StructurePriors
from metasynth.text import parse_json

FORMAT = "metasynth-priors/1"
UNITS = "intensity: 0 and 1 are the 1 and 99 % quantiles of a scan's brain, as in a cache"

_LABEL = entries(
    {"name": TEXT, "class": TEXT, "mean": NUMBER, "spread": NUMBER, "texture": NUMBER},
    {"people": COUNT, "voxels": COUNT, "erosion": one_of(*EROSIONS), "cut": FLAG},
)
_FILE = entries(
    {"format": one_of(FORMAT), "labels": listing(_LABEL, least=2)}, {"units": TEXT, "from": mapping(json_value)}
)


def write_priors(path: Path, priors: StructurePriors, origin: Mapping[str, Any]) -> None:
    """Write a file of priors.

    Parameters
    ----------
    path : Path
        The file.
    priors : StructurePriors
        What goes into it.
    origin : mapping
        What they were estimated from: names and digests.

    Raises
    ------
    RunError
        The file cannot be written.
    """
    write_atomically(path, (dumps(as_json(priors, origin), indent=1, ensure_ascii=False) + "\n").encode())


def as_json(priors: StructurePriors, origin: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a file of priors."""
    labels = [{"class" if key == "of_class" else key: v for key, v in asdict(label).items()} for label in priors.labels]
    return {"format": FORMAT, "units": UNITS, "from": dict(origin), "labels": labels}


def read_priors(path: Path) -> StructurePriors:
    """What a file of priors holds. Entries ``people``, ``voxels``, ``erosion`` and ``cut`` of a label may be left out.

    Raises
    ------
    DataError
        It cannot be read, or an entry is not what it must be; file and entry are named.
    """
    require_file(path, f"a file of priors ({FORMAT})")
    try:
        value = parse_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected a file of priors, which is JSON: {error}") from error
    return priors_of(value, str(path))


def priors_of(value: Any, where: str) -> StructurePriors:
    """Priors from the content of a file; DataError, which names ``where`` and the entry, if there are none."""
    expect(value, _FILE, where)
    known = {"name", "class", *(key for key in Prior.__dataclass_fields__ if key != "of_class")}
    for at, label in enumerate(value["labels"]):
        unknown = sorted(label.keys() - known)
        if unknown:
            raise DataError(f"{where}: labels.{at}: expected entries {', '.join(sorted(known))}, got {unknown[0]!r}")
    try:
        labels = (
            Prior(**{"of_class" if key == "class" else key: v for key, v in each.items()}) for each in value["labels"]
        )
        return StructurePriors(tuple(labels))
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def digest_of_priors(path: Path) -> str:
    """SHA-256 of a file of priors."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_priors(path: Path) -> bool:
    try:
        read_priors(path)
    except DataError:
        return False
    return True


PRIORS = Kind("file of priors", (".json",), _is_priors)
