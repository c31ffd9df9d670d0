"""Random draws of a batch, each image's from a generator of its own. `batched` says what is drawn."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from metasynth.synthesis.config import CornucopiaConfig

# The least distance from 0 and 1 of a draw that is made normal; float32 has nothing closer to 1.
_EDGE = 2.0**-24
GFACTOR_NODES = 5


def shapes_of(config: CornucopiaConfig, n_classes: int, ndim: int) -> dict[str, tuple[int, ...]]:
    """What is drawn per image, switched off or not: leaving a step out does not change the parameters of others."""
    planes, classes = ndim * (ndim - 1) // 2, n_classes - 1
    return {
        **{"translations": (ndim,), "rotation": (planes,), "shears": (planes,), "zooms": (ndim,)},
        **{"elastic": (), "elastic_nodes": (ndim,)},
        **{"means": (classes,), "sds": (classes,), "fwhms": (classes,)},
        **{"bias_strength": (), "bias_nodes": (ndim,), "gamma": (), "motion_fwhm": ()},
        **{"isotropic": (), "axis": (), "resolution": (), "thickness": ()},
        **{"sigma": (), "channels": (), "gfactor_nodes": (), "gfactor": (GFACTOR_NODES,) * ndim},
        **{"controls": (ndim, *(config.elastic_nodes,) * ndim), "bias": (int(config.bias),) * ndim},
    }


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
