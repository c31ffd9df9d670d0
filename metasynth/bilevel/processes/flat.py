"""Many tensors as a few flat ones, so that they travel in a few large messages."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def joined_by_type(tensors: Sequence[Tensor | None]) -> Iterator[tuple[Tensor, list[int]]]:
    """Copies of all elements, one flat tensor for each type and device, with the places of the tensors it is made of.

    None and tensors without elements are left out. Types come in the order in which they are met first.
    """
    places: dict[tuple[torch.dtype, torch.device], list[int]] = {}
    for i, tensor in enumerate(tensors):
        if tensor is not None and tensor.numel():
            places.setdefault((tensor.dtype, tensor.device), []).append(i)
    for held in places.values():
        yield torch.cat([t.reshape(-1) for i in held if (t := tensors[i]) is not None]), held


def split_like(flat: Tensor, tensors: Sequence[Tensor | None], places: Sequence[int]) -> dict[int, Tensor]:
    """Views of what `joined_by_type` gave, in the shapes of the tensors, by place."""
    shapes = [t.shape for i in places if (t := tensors[i]) is not None]
    parts = flat.split([shape.numel() for shape in shapes])
    return {i: part.view(shape) for i, part, shape in zip(places, parts, shapes, strict=True)}
