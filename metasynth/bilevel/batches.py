"""Samples of a batch, whatever a batch is made of."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor


def batch_size(batch: Any) -> int:
    """B, the common length of the first axis of all tensors in ``batch``.

    Looked for in a tensor and in tuples, lists, mappings and dataclasses of such, nested at will; tensors without axes
    and other values belong to no sample.

    Raises
    ------
    ValueError
        If there is no tensor with an axis, or their first axes differ.
    """
    sizes = sorted(set(_sizes(batch)))
    if len(sizes) != 1:
        found = "no tensor with an axis" if not sizes else f"first axes of lengths {', '.join(map(str, sizes))}"
        raise ValueError(f"a batch must hold tensors (B, ...) of one B to be taken apart, got {found}")
    return sizes[0]


def take_samples(batch: Any, indices: Tensor) -> Any:
    """The samples ``indices`` (n,) int64 of every tensor in ``batch``, in a container of the same type."""
    if isinstance(batch, Tensor):
        return batch if batch.ndim == 0 else batch.index_select(0, indices.to(batch.device))
    if isinstance(batch, Mapping):
        return type(batch)({key: take_samples(value, indices) for key, value in batch.items()})  # type: ignore[call-arg]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(take_samples(value, indices) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(take_samples(value, indices) for value in batch)
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{f.name: take_samples(getattr(batch, f.name), indices) for f in fields(batch)})
    return batch


def _sizes(batch: Any) -> list[int]:
    if isinstance(batch, Tensor):
        return [] if batch.ndim == 0 else [batch.shape[0]]
    if isinstance(batch, Mapping):
        parts = list(batch.values())
    elif isinstance(batch, list | tuple):
        parts = list(batch)
    elif is_dataclass(batch) and not isinstance(batch, type):
        parts = [getattr(batch, f.name) for f in fields(batch)]
    else:
        return []
    return [size for part in parts for size in _sizes(part)]
