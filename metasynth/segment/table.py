"""The table of networks: what settings call each, how it is made, and how a model file gives it back.

Settings and model files decide nothing by a name; they ask the line of the table. A network is added by one line in
`built_in`, by an entry point of the group `GROUP`, or in a program by `register`.
"""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import torch

from metasynth.errors import MetasynthError, PackageError, RunError, UsageError
from metasynth.segment.built_in import ENTRIES
from metasynth.segment.entry import BackboneEntry, Segmenter

GROUP = "metasynth.backbones"
"""The group of entry points by which a package adds networks; each is a `BackboneEntry`."""
UNNAMED = "unet"  # the kind of a recipe without one: model files began with this network alone

_TABLE: dict[str, BackboneEntry] = {entry.name: entry for entry in ENTRIES}


def register(entry: BackboneEntry) -> None:
    """Add a network to the table of this process, for a program that runs studies itself.

    Raises
    ------
    UsageError
        (a ValueError) when the name is taken.
    """
    if entry.name in _TABLE or entry.name in _points():
        raise UsageError(f"network {entry.name!r}: the name is taken")
    _TABLE[entry.name] = entry


def names() -> tuple[str, ...]:
    """All networks, ours first; no package of others is imported."""
    return (*_TABLE, *_points())


def entry_of(name: str) -> BackboneEntry:
    """The line of that name.

    Raises
    ------
    UsageError
        (a ValueError) when there is none.
    RunError
        When the package that declares it cannot be loaded.
    """
    if name in _TABLE:
        return _TABLE[name]
    point = _points().get(name)
    if point is None:
        raise UsageError(f"unknown network {name!r}: expected one of {', '.join(names())}")
    return _loaded(point)


def from_recipe(recipe: Mapping[str, Any], generator: torch.Generator | None = None) -> Segmenter:
    """The network of a `Backbone.recipe`, with new weights.

    Raises
    ------
    PackageError
        When the package that declares or makes it is missing.
    UsageError
        (a ValueError) when the recipe is of no network.
    RunError
        When the package that declares it cannot be loaded, or it cannot be made.
    """
    kind = recipe.get("kind", UNNAMED)
    if not isinstance(kind, str):
        raise UsageError(f"kind: must be the name of a network, got {kind!r}")
    if kind not in names():
        raise PackageError(
            f"the network {kind!r} is of a package that is not installed here, which has {', '.join(names())}"
        )
    return entry_of(kind).from_recipe(recipe, generator)


def _points() -> dict[str, EntryPoint]:
    """What other packages declare; a name of ours stays ours."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in _TABLE}


def _loaded(point: EntryPoint) -> BackboneEntry:
    where = f"network {point.name!r} ({point.value})"
    try:
        found = point.load()
    except (MetasynthError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit too: a module that ends its process must not end this one
        raise RunError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(found, BackboneEntry):
        raise RunError(f"{where} is a {type(found).__name__}, no BackboneEntry")
    if found.name != point.name:
        raise RunError(f"{where} has the name {found.name!r}; its entry point must have it too")
    return found
