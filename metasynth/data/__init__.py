"""Caches of slices or volumes: reading, writing, dividing by subject, and batches of them."""

from typing import TYPE_CHECKING, Any

from metasynth.data.cache import Cache
from metasynth.data.schema import CacheInfo
from metasynth.data.splits import Split, make_split, rotated_split
from metasynth.data.writer import write_cache

if TYPE_CHECKING:
    from metasynth.data.dataset import Batch, SliceDataset, draw_disjoint, draw_items

__all__ = [
    "Batch",
    "Cache",
    "CacheInfo",
    "SliceDataset",
    "Split",
    "draw_disjoint",
    "draw_items",
    "make_split",
    "rotated_split",
    "write_cache",
]


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is asked for: files can be prepared and inspected without."""
    if name in ("Batch", "SliceDataset", "draw_disjoint", "draw_items"):
        from metasynth.data import dataset

        return getattr(dataset, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
