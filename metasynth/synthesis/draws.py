"""Random draws of a batch, each image's from a generator of its own. `batched` says what is drawn."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# The least distance from 0 and 1 of a draw that is made normal; float32 has nothing closer to 1.
_EDGE = 2.0**-24


def generators_of(seeds: Tensor, device: torch.device) -> list[torch.Generator]:
    """One generator per seed, on `device`."""
    return [torch.Generator(device=device).manual_seed(seed) for seed in seeds.tolist()]


def uniforms(shapes: Mapping[str, tuple[int, ...]], generators: Sequence[torch.Generator]) -> dict[str, Tensor]:
    """Draws from U(0, 1), by name, each (B, *shape): what one name gets does not depend on the shapes of later ones."""
    sizes = [math.prod(shape) for shape in shapes.values()]
    flat = torch.stack([torch.rand(sum(sizes), generator=g, device=g.device) for g in generators])
    parts = flat.split(sizes, dim=1)
    return {name: part.reshape(len(part), *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def either_way(uniform: Tensor, bound: float) -> Tensor:
    """U(-bound, bound)."""
    return (2 * uniform - 1) * bound


def whole(uniform: Tensor, low: int, high: int) -> Tensor:
    """A whole number from low to high, both included, int64."""
    return (low + (uniform * (high - low + 1)).floor()).clamp(max=high).long()


def normal(uniform: Tensor) -> Tensor:
    """N(0, 1)."""
    return torch.special.ndtri(uniform.clamp(_EDGE, 1 - _EDGE))
