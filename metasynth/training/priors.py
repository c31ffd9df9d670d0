"""Priors of a cache's structures: estimated from its images, or from files that settings of synthesis name."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metasynth.data.cache import Cache
from metasynth.data.dataset import SliceDataset
from metasynth.errors import DataError
from metasynth.interrupts import check
from metasynth.running.prepared import PreparedData
from metasynth.synthesis.priors.estimate import Array, Estimate, estimate_priors
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


def estimate_from(dataset: SliceDataset) -> Estimate:
    """The priors of the subjects of a dataset, for the labels of its cache; see `estimate_priors`.

    Raises
    ------
    DataError
        The cache holds labels only.
    """
    cache = dataset.cache
    if not cache.has_images:
        raise DataError(f"{cache.path}: holds labels only; priors are estimated from images")
    return estimate_priors(_people(dataset), cache.generation_names, cache.generation_classes)


def _people(dataset: SliceDataset) -> Iterator[tuple[Array, Array]]:
    """Images and generation labels of each subject, (N, *S)."""
    for subject in range(len(dataset.subjects)):
        check()
        batch = dataset.read(np.flatnonzero(dataset.subject_index.numpy() == subject).tolist())
        if batch.images is not None:  # as was checked
            yield batch.images[:, 0].numpy(), batch.structures.numpy()


def origin_of(dataset: SliceDataset) -> dict[str, Any]:
    """What a file says of the dataset that its priors are estimated from."""
    cache = dataset.cache
    return {"cache": cache.path.name, "digest": cache.info.digest, "subjects": list(dataset.subjects)}


def _named(settings: Any, group: str) -> str:
    """The file that a group of settings names; empty where it names none, or a study has no such group."""
    return str(getattr(getattr(settings, group, None), "priors", ""))
