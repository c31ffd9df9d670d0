"""Learned contrast: images from label maps, with intensities of their classes that are learned."""

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv3d, interpolate, pad

from metasynth.augment.augmenter import check_draws
from metasynth.augment.bijections import Softplus
from metasynth.augment.noise import standard_normal
from metasynth.errors import UsageError

_LINEAR = {2: "bilinear", 3: "trilinear"}
_CONV = {2: conv2d, 3: conv3d}
_REACH = 2
_TEXTURE = "texture"
_POSITIVE = Softplus()

IntensityDraws = tuple[Tensor, Tensor]
"""z (B, K - 1) and the texture n (B, 1, *S), both of zero mean and unit variance."""


@final
class ClassIntensities(nn.Module):
    """A random image of a label map: class k > 0 has the intensity m_k + s_k z_k + t_k n, background 0, all blurred.

    z_k ~ N(0, 1) is one draw per image and class, n a smooth random texture of unit variance. The blur is Gaussian and
    makes partial volumes. Learned are the means m, the standard deviations s > 0 between images and t > 0 of the
    texture, one per class, and the width of the blur > 0 (softplus); in units of image intensity and in voxels. With
    equal means and large s it is SynthSeg's generator, in which every image has a contrast of its own; with small s all
    images have one contrast.

    Parameters
    ----------
    n_classes : int
        K, background included.
    ndim : int
        Number of voxel axes, 2 or 3.
    mean, spread, texture, blur : float
        The first values of m, s and t, of all classes alike, and of the blur's standard deviation (voxels). The blur
        reaches two voxels either way.
    grain : int
        Voxels from node to node of the texture, which is linear in between.

    Raises
    ------
    UsageError
        (a ValueError) for an argument out of range.
    """

    def __init__(
        self,
        n_classes: int,
        ndim: int = 2,
        mean: float = 0.5,
        spread: float = 0.25,
        texture: float = 0.05,
        blur: float = 0.4,
        grain: int = 3,
    ) -> None:
        super().__init__()
        if n_classes < 2 or grain < 1:
            raise UsageError(f"n_classes and grain: must be at least 2 and 1, got {n_classes} and {grain}")
        if ndim not in _LINEAR:
            raise UsageError(f"ndim: must be 2 or 3, got {ndim}")
        if not math.isfinite(mean):
            raise UsageError(f"mean: must be finite, got {mean}")
        self.n_classes, self.ndim, self.grain = n_classes, ndim, grain
        each = torch.ones(n_classes - 1)
        self.bijection = _POSITIVE
        self.means = nn.Parameter(mean * each)
        self.raw_spreads = nn.Parameter(_POSITIVE.inverse(spread * each, "spread"))
        self.raw_textures = nn.Parameter(_POSITIVE.inverse(texture * each, "texture"))
        self.raw_blur = nn.Parameter(_POSITIVE.inverse(blur * torch.ones(()), "blur"))

    def draw(self, images: Tensor, generator: torch.Generator) -> IntensityDraws:
        """The randomness for images of the shape, dtype and device of ``images`` (B, 1, *S), whose values do not count.

        Returns
        -------
        z : Tensor (B, K - 1)
        n : Tensor (B, 1, *S)
        """
        z = standard_normal(images.new_empty(len(images), self.n_classes - 1), generator)
        shape = images.shape[2:]
        return z, smooth_texture(texture_nodes(images, self.grain, generator), shape, self.grain)

    def forward(self, labels: Tensor, draws: IntensityDraws) -> Tensor:
        """Images (B, 1, *S) of label maps (B, *S) int64 with classes 0..K-1, from ``draws`` of `draw`.

        Raises
        ------
        ValueError
            When the shapes of ``draws`` do not belong to those of ``labels``.
        """
        check_draws(draws, ((len(labels), self.n_classes - 1), (len(labels), 1, *labels.shape[1:])))
        z, n = draws
        levels = self.means + _POSITIVE.forward(self.raw_spreads) * z
        textures = _POSITIVE.forward(self.raw_textures).expand_as(levels)
        at = labels.flatten(1)
        flat = _of_class(levels, at) + _of_class(textures, at) * n.flatten(1)
        return self._blurred(flat.unflatten(1, labels.shape[1:])[:, None])

    def observed(self) -> dict[str, float]:
        """Means, spreads and textures by number of class, and the blur: mean_1, spread_1, texture_1, ..., blur."""
        columns = {
            "mean": self.means,
            "spread": _POSITIVE.forward(self.raw_spreads),
            _TEXTURE: _POSITIVE.forward(self.raw_textures),
        }
        found = {f"{name}_{k}": v for name, values in columns.items() for k, v in enumerate(values.tolist(), start=1)}
        return {**found, "blur": _POSITIVE.forward(self.raw_blur).item()}

    def _blurred(self, images: Tensor) -> Tensor:
        steps = torch.arange(-_REACH, _REACH + 1, dtype=images.dtype, device=images.device)
        weights = torch.exp(-0.5 * (steps / _POSITIVE.forward(self.raw_blur)).square())
        weights = weights / weights.sum()
        for axis in range(self.ndim):
            shape, padding = [1] * self.ndim, [0] * self.ndim
            shape[axis], padding[axis] = len(weights), _REACH
            images = _CONV[self.ndim](images, weights.reshape(1, 1, *shape), padding=padding)
        return images


def texture_names(n_classes: int) -> tuple[str, ...]:
    """What `ClassIntensities.observed` calls the textures: texture_1 to texture_{K - 1} of ``n_classes`` K."""
    return tuple(f"{_TEXTURE}_{k}" for k in range(1, n_classes))


def _of_class(table: Tensor, labels: Tensor) -> Tensor:
    """Entries of a table (B, K - 1) at labels (B, N); 0 for background."""
    return pad(table, (1, 0)).gather(1, labels)


def texture_nodes(images: Tensor, grain: int, generator: torch.Generator) -> Tensor:
    """Normal draws (B, 1, *M) on nodes ``grain`` voxels apart, of the dtype and device of ``images`` (B, 1, *S)."""
    return standard_normal(images.new_empty(len(images), 1, *(2 + n // grain for n in images.shape[2:])), generator)


def smooth_texture(nodes: Tensor, shape: Sequence[int], grain: int) -> Tensor:
    """Linear between normal nodes (B, 1, *M), ``grain`` voxels apart, at voxels of ``shape``; of unit variance."""
    mode = _LINEAR[len(shape)]
    fine = [(n - 1) * grain + 1 for n in nodes.shape[2:]]
    field = interpolate(nodes, fine, mode=mode, align_corners=True)
    for axis, n in enumerate(shape):
        field = field.narrow(axis + 2, 0, n)
        fraction = (torch.arange(n, device=nodes.device) % grain / grain).to(nodes.dtype)
        sd = (fraction.square() + (1 - fraction).square()).sqrt()
        field = field / sd.reshape(-1, *[1] * (len(shape) - 1 - axis))
    return field
