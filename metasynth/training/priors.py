"""Files of priors that settings of synthesis name: checked before a run, and read in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metasynth.data.cache import Cache
from metasynth.errors import DataError
from metasynth.running.prepared import PreparedData
from metasynth.synthesis.priors.priors_file import digest_of_priors, read_priors
from metasynth.synthesis.priors.structure_priors import StructurePriors

GROUPS = ("synthesis", "baseline")
FILES = tuple(f"{group}.priors" for group in GROUPS)
"""The settings that name files of priors, as far as a study has them."""


def check_priors(settings: Any, maps: Path) -> dict[str, PreparedData]:
    """The files of priors that settings name, by the settings.

    Parameters
    ----------
    settings : dataclass
        Of a study.
    maps : Path
        The cache whose label maps images are synthesised from; it was checked before.

    Raises
    ------
    DataError
        A file is no file of priors, or has none of a label of the cache and of its class.
    """
    named = {f"{group}.priors": _named(settings, group) for group in GROUPS}
    paths = {setting: Path(name) for setting, name in named.items() if name}
    if paths:
        with Cache(maps, check_values=False) as cache:
            for path in paths.values():
                priors_for(cache, path)
    return {setting: PreparedData(path, digest_of_priors(path)) for setting, path in paths.items()}


def priors_in(files: Mapping[str, Path], cache: Cache) -> dict[str, StructurePriors]:
    """The priors of a run, for the labels of a cache, by the group of settings that names their file."""
    return {name.partition(".")[0]: priors_for(cache, path) for name, path in files.items() if name in FILES}


def priors_for(cache: Cache, path: Path) -> StructurePriors:
    """What a file has for the labels of a cache; DataError, which names both, if it lacks one and its class."""
    try:
        return read_priors(path).of_labels(cache.generation_names, cache.generation_classes)
    except DataError as error:
        if str(error).startswith(str(path)):
            raise
        raise DataError(f"{path}: {error}; they are for {cache.path}") from error


def _named(settings: Any, group: str) -> str:
    """The file that a group of settings names; empty where it names none, or a study has no such group."""
    return str(getattr(getattr(settings, group, None), "priors", ""))
