"""Files of what was learned: an augmenter as it ended, to be trained with again, frozen.

A file holds tensors and plain values only: the name of the augmenter's line in the table, where it started, and its
state. The line makes the augmenter again.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from metasynth.augment.augmenter import Augmenter
from metasynth.augment.entry import Start
from metasynth.augment.learned_synthesis import Priors
from metasynth.augment.table import entry_of
from metasynth.data.cache import Cache
from metasynth.errors import DataError, RunError, UsageError
from metasynth.files import LEARNED, first_line
from metasynth.running.prepared import PreparedData
from metasynth.schema import TEXT, WHOLE, entries, expect, listing, mapping, one_of, scalar
from metasynth.tensor_files import load_tensors, sealed_tensors

FORMAT = "metasynth-augmenter/1"
SUFFIX = ".augmenter"
FROZEN = "learned.frozen"
"""The setting that names one."""

_BEFORE = {"varying": 0.0, "by_structure": False}
"""What starts were that files from before there was such a value do not have."""
_STATE = mapping(scalar("a tensor", torch.is_tensor))
_CONTENT = entries(
    {
        "format": one_of(FORMAT),
        "name": TEXT,
        "start": entries({"ndim": WHOLE}),  # the line checks the rest
        "labels": listing(TEXT, least=2),
        "state": _STATE,
    },
    {"began": _STATE},
)


@dataclass(frozen=True, eq=False)
class Learned:
    """An augmenter as it was learned.

    Attributes
    ----------
    name : str
        Of its line in the table.
    labels : tuple of str
        (G,) names of the generation labels of the maps that it was learned on.
    ndim : int
        Spatial axes of its images.
    augmenter : Augmenter
        On the CPU.
    start : Augmenter
        The same where it started. In files from before this was kept, weights are drawn anew.
    """

    name: str
    labels: tuple[str, ...]
    ndim: int
    augmenter: Augmenter[Any]
    start: Augmenter[Any]


def augmenter_name(stage: str) -> str:
    """What a run calls the file of what a stage ("n=5/synthesis_estimated") learned, with its folder."""
    return f"{LEARNED}/{stage.replace('/', '-')}{SUFFIX}"


def priors_name(stage: str) -> str:
    """What a run calls the file of the priors that a stage learned, which ``synthesis.priors`` takes."""
    return f"{LEARNED}/{stage.replace('/', '-')}.priors.json"


def augmenter_bytes(
    name: str, start: Start, labels: Sequence[str], augmenter: Augmenter[Any], began: Augmenter[Any]
) -> memoryview:
    """What a file of an augmenter holds, sealed (see `metasynth.sealed`).

    Parameters
    ----------
    name : str
        Of its line in the table.
    start : Start
        Where it started.
    labels : sequence of str
        (G,) names of the generation labels.
    augmenter, began : Augmenter
        As it is now, and as it was at first.
    """
    kept = {field.name: getattr(start, field.name) for field in fields(start) if field.name != "generator"}
    kept["priors"] = None if start.priors is None else [list(values) for values in start.priors]
    states = {"state": _state_of(augmenter), "began": _state_of(began)}
    return sealed_tensors({"format": FORMAT, "name": name, "start": kept, "labels": list(labels), **states})


def _state_of(augmenter: Augmenter[Any]) -> dict[str, torch.Tensor]:
    return {key: value.detach().cpu() for key, value in augmenter.state_dict().items()}


def load_augmenter(path: Path) -> Learned:
    """Read an augmenter.

    Raises
    ------
    DataError
        When the file is missing, damaged or none of an augmenter, its parts do not fit together, or what it holds was
        learned of images that are made no more.
    RunError
        When the package that has its line cannot be loaded.
    """
    content = load_tensors(path, "the augmenter", DataError, otherwise=f" or no {FORMAT} file")
    expect(content, _CONTENT, f"{path}: is no file of an augmenter")
    kept, name = {**_BEFORE, **content["start"]}, content["name"]
    try:
        priors = None if kept.get("priors") is None else Priors(*kept["priors"])
        begin = Start(generator=torch.Generator(), **{**kept, "priors": priors})
        augmenter, start = (entry_of(name).made(begin).eval() for _ in range(2))
        augmenter.load_state_dict(content["state"])
        start.load_state_dict(content.get("began", start.state_dict()))
    except RunError as error:
        raise RunError(f"{path}: {error}") from error
    except (DataError, UsageError) as error:
        raise DataError(f"{path}: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise DataError(f"{path}: its parts do not fit together ({first_line(error)})") from error
    return Learned(name, tuple(content["labels"]), kept["ndim"], augmenter, start)


def check_frozen(path: Path, maps: Path) -> PreparedData:
    """A file of what was learned, for images of a cache's label maps.

    Raises
    ------
    DataError
        When there is none that can be read, or it is for other images.
    """
    learned = load_augmenter(path)
    with Cache(maps, check_values=False) as cache:  # checked before
        ndim, names = len(cache.shape), tuple(cache.generation_names)
    if learned.ndim != ndim:
        raise DataError(f"{path}: {learned.name} is for images of {learned.ndim} axes, {maps} has {ndim}")
    if learned.augmenter.takes == "structures" and learned.labels != names:
        raise DataError(
            f"{path}: {learned.name} was learned of the generation labels {', '.join(learned.labels)}, {maps} has "
            f"{', '.join(names)}"
        )
    return PreparedData(path, hashlib.sha256(path.read_bytes()).hexdigest())
