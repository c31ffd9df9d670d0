"""A head of five classes in two or three dimensions, an atlas of several such, and images of one."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from metasynth.segment.atlas.segmenter import Atlas

MEANS = (0.15, 0.8, 0.5, 0.65, 0.3)  # background in the head, then classes 1 to 4
N_CLASSES = 5
SPACING = 2.0

Deformation = Callable[[np.ndarray], np.ndarray]


def labels(shape: Sequence[int], deform: Deformation = lambda p: p) -> np.ndarray:
    """Classes (*S) of the head whose points are taken to the standard one by `deform` (mm, (d, *S) to the same)."""
    half = SPACING * np.maximum(np.array(shape) - 1, 1) / 2
    axes = [SPACING * (np.arange(n) - (n - 1) / 2) for n in shape]
    at = deform(np.stack(np.meshgrid(*axes, indexing="ij"))) / half.reshape(-1, *[1] * len(shape))

    def ball(radii: Sequence[float], centre: Sequence[float]) -> np.ndarray:
        terms = [((a - c) / r) ** 2 for a, c, r in zip(at, centre, radii, strict=False)]
        return sum(terms) < 1

    found = np.zeros(tuple(shape), dtype=np.int64)
    found[ball((0.8, 0.7, 0.75), (0, 0, 0))] = 2
    found[ball((0.6, 0.5, 0.55), (0, 0, 0))] = 1
    for side in (-1, 1):
        found[ball((0.22, 0.16, 0.25), (0.15, 0.25 * side, 0))] = 3
    found[ball((0.26, 0.12, 0.3), (-0.15, 0.05, 0))] = 4
    return found


def people(shape: Sequence[int], pairs: int = 4, seed: int = 0) -> Tensor:
    """Label maps (2 pairs, *S) of heads that differ a little in size and place, on average as the standard one."""
    rng = np.random.default_rng(seed)
    maps = []
    for _ in range(pairs):
        size = rng.normal(0, 0.03, (len(shape), *[1] * len(shape)))
        place = rng.normal(0, 1.0, size.shape)
        maps += [
            labels(shape, lambda p, s=sign, size=size, place=place: p * (1 + s * size) + s * place) for sign in (1, -1)
        ]
    return torch.from_numpy(np.stack(maps))


def atlas(shape: Sequence[int], gaussians: Sequence[int] | None = None) -> Atlas:
    return Atlas.from_labels(people(shape), N_CLASSES, spacing=(SPACING,) * len(shape), gaussians=gaussians)


def brain(shape: Sequence[int], deform: Deformation = lambda p: p) -> Tensor:
    """Mask (*S) of a head and of the fluid around it."""
    return torch.from_numpy(labels(shape, lambda p: 0.88 * deform(p)) > 0)


def image(
    truth: np.ndarray, log_bias: np.ndarray | float = 0.0, sd: float = 0.06, means: Sequence[float] = MEANS
) -> Tensor:
    """Log-normal intensities (*S) float64 of a label map."""
    noise = np.random.default_rng(1).normal(0, sd, truth.shape)
    return torch.from_numpy(np.asarray(means)[truth] * np.exp(noise + log_bias))


def dice(found: Tensor, truth: np.ndarray) -> float:
    """Mean Dice of classes 1 to 4."""
    predicted = found.numpy()
    each = [
        ((predicted == k) & (truth == k)).sum() / ((predicted == k).sum() + (truth == k).sum()) for k in range(1, 5)
    ]
    return 2 * float(np.mean(each))
