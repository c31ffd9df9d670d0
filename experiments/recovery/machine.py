"""Whether a recovery study fits the machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from metasynth.data.splits import make_split
from metasynth.running.prepared import PreparedData
from metasynth.sizes import require_memory
from metasynth.training.run_sizes import (
    FLOAT,
    LABEL,
    Items,
    Settings,
    require_horizon,
    require_network,
    require_nodes,
    require_run,
    step_bytes,
)


class RecoverySettings(Settings, Protocol):
    """That of a recovery study."""

    @property
    def test_repeats(self) -> int:
        """Synthetic test images of each test slice."""


def require_recovery(
    settings: RecoverySettings,
    prepared: PreparedData,
    out: Path,
    nodes: Sequence[int] = (),
    network: Sequence[int] = (),
) -> None:
    """`require_run` of a recovery study, with its test set and what is learned: fields of ``nodes``, or a network."""
    items, batch = Items.of(prepared.path), settings.segmenter.batch_size
    require_run(settings, items, out)
    seen = items.part(settings.segmenter.window)
    step = step_bytes(settings.segmenter, seen, batch)
    require_horizon(settings.outer, seen, batch, step, "segmenter.batch_size")
    require_test_set(items, settings.test_repeats)
    require_nodes(nodes, seen, batch, "nodes")
    require_network(network, seen, batch, "network")


def require_test_set(items: Items, repeats: int) -> None:
    """UsageError if the test images of a recovery study cannot be held."""
    everyone = list(map(str, range(len(items.per_subject))))
    count = repeats * items.fewest(len(make_split(everyone, 0).test))
    what = f"a test set of {count} images of {items.by}"
    require_memory(count * items.voxels * (FLOAT + LABEL), what, "test_repeats")
