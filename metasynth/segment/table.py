"""The table of networks: what settings call each, how it is made, and how a model file gives it back.

Settings and model files decide nothing by a name; they ask the line of the table. A network is added by one line in
`built_in`, by an entry point of the group `GROUP`, or in a program by `register`.
"""

from collections.abc import Mapping
from typing import Any

import torch

from metasynth.errors import PackageError, UsageError
from metasynth.plugins import EntryTable
from metasynth.segment.built_in import ENTRIES
from metasynth.segment.entry import BackboneEntry, Segmenter

GROUP = "metasynth.backbones"
"""The group of entry points by which a package adds networks; each is a `BackboneEntry`."""
UNNAMED = "unet"  # the kind of a recipe without one: model files began with this network alone

TABLE = EntryTable("network", BackboneEntry, GROUP, ENTRIES)


def register(entry: BackboneEntry) -> None:
    """Add a network to the table of this process, for a program that runs studies itself.

    Raises
    ------
    UsageError
        (a ValueError) when the name is taken.
    """
    TABLE.register(entry)


def names() -> tuple[str, ...]:
    """All networks, ours first; no package of others is imported."""
    return TABLE.names()


def entry_of(name: str) -> BackboneEntry:
    """The line of that name.

    Raises
    ------
    UsageError
        (a ValueError) when there is none.
    RunError
        When the package that declares it cannot be loaded.
    """
    return TABLE.entry_of(name)


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
    return _entry_of_recipe(recipe).from_recipe(recipe, generator)


def settings_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a `Backbone.recipe`: ``network``, and what of the others its weights depend on; plain values.

    Raises what `from_recipe` does.
    """
    return _entry_of_recipe(recipe).settings_of(recipe)


def _entry_of_recipe(recipe: Mapping[str, Any]) -> BackboneEntry:
    kind = recipe.get("kind", UNNAMED)
    if not isinstance(kind, str):
        raise UsageError(f"kind: must be the name of a network, got {kind!r}")
    if kind not in names():
        raise PackageError(
            f"the network {kind!r} is of a package that is not installed here, which has {', '.join(names())}"
        )
    return entry_of(kind)
