"""The steps that make images from label maps and draws: of whole images, or of a window of larger ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self, final

import torch
from torch import Tensor

from metasynth.errors import RunError
from metasynth.synthesis import deformation, intensity
from metasynth.synthesis.acquisition import acquired
from metasynth.synthesis.config import CornucopiaConfig
from metasynth.synthesis.contrast import Contrast
from metasynth.synthesis.draws import either_way, generators_of, normal, shapes_of, uniforms, whole
from metasynth.synthesis.mixture import mixture
from metasynth.synthesis.smoothing import reach_of

# What `cornucopia.SynthFromLabelTransform` sets where this package's options say nothing else.
_BIAS_STRENGTH = 0.5

Draws = dict[str, Tensor]
Geometry = tuple[Tensor, Tensor, Tensor | None, Tensor, int]
"""What `deformation.warped` takes beside label maps."""


class Known(NamedTuple):
    """What all of an image says of a part of it.

    Attributes
    ----------
    ends : Tensor (B, 2) or None
        Minimum and maximum before intensities are raised to a power; None: those of the part.
    scale : Tensor (B, ...) or None
        What it is scaled by, of `Contrast.scale`; None: that of the part.
    """

    ends: Tensor | None = None
    scale: Tensor | None = None


class Part(NamedTuple):
    """A window of larger images.

    Attributes
    ----------
    shape : tuple of int
        S of the larger images.
    window : sequence of slice
        Along each axis.
    known : Known
        Of the larger images.
    """

    shape: tuple[int, ...]
    window: Sequence[slice]
    known: Known = Known()


@final
@dataclass(frozen=True)
class Steps:
    """The steps of `metasynth.synthesis.batched.BatchedGenerator`, of draws that were made before.

    A window of larger images is deformed and has the bias field as these; textures and noise are drawn for it alone.

    Attributes
    ----------
    n_classes : int
        K, background included.
    config : CornucopiaConfig
    contrast : Contrast
    """

    n_classes: int
    config: CornucopiaConfig
    contrast: Contrast

    def thinned(self, every: int) -> Self:
        """The same steps for every n-th voxel along each axis."""
        config = self.config.at_spacing(every)
        if config.resolution:
            config = replace(config, resolution=max(1.0, config.resolution / every))
        return replace(self, config=config)

    def drawn(self, labels: Tensor, seeds: Tensor) -> tuple[Draws, list[torch.Generator]]:
        """U(0, 1) by name for label maps (B, *S), and what draws their textures and noise."""
        generators = generators_of(seeds, labels.device)
        return uniforms(shapes_of(self.config, self.n_classes, labels.ndim - 1), generators), generators

    def geometry(self, draws: Draws, shape: Sequence[int]) -> Geometry | None:
        """How label maps of a shape are deformed; None where they are not."""
        config, device = self.config, draws["means"].device
        if not any((config.translations, config.rotation, config.shears, config.zooms, config.elastic)):
            return None
        linear, offset = deformation.affine_matrices(
            either_way(draws["translations"], config.translations),
            either_way(draws["rotation"], config.rotation),
            either_way(draws["shears"], config.shears),
            either_way(draws["zooms"], config.zooms),
            shape,
        )
        ndim = len(shape)
        nodes = whole(draws["elastic_nodes"], 2, config.elastic_nodes)
        controls = None
        if config.elastic:
            bound = draws["elastic"][:, None] * config.elastic * torch.tensor(shape, device=device)
            controls = either_way(draws["controls"], 1) * bound.reshape(-1, ndim, *(1,) * ndim)
        return linear, offset, controls, nodes, config.order

    def deformed(self, labels: Tensor, draws: Draws, window: Sequence[slice] | None = None) -> Tensor:
        """Label maps (B, *S) int64 deformed; a window of them alone where one is given."""
        geometry = self.geometry(draws, labels.shape[1:])
        if geometry is None:
            return labels if window is None else labels[(slice(None), *window)]
        return deformation.warped(labels, *geometry, window=window)

    def moved(
        self, images: Tensor, labels: Tensor, draws: Draws, window: Sequence[slice] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Images (B, *S), interpolated linearly, and their label maps, to the nearest, deformed alike."""
        geometry = self.geometry(draws, labels.shape[1:])
        if geometry is None:
            seen = (slice(None), *(window or ()))
            return images[seen], labels[seen]
        at = deformation.positions(*geometry, labels.shape[1:], window)
        return deformation.interpolated(images, at), deformation.nearest(labels, at)

    def mixed(self, labels: Tensor, draws: Draws, generators: Sequence[torch.Generator]) -> Tensor:
        """Means and textures (B, *S) of label maps."""
        widest = self.config.gmm_fwhm
        fwhms = draws["fwhms"] * widest
        sds = self.contrast.sds(draws["sds"], fwhms, widest, labels.ndim - 1)
        return self.contrast.cut(mixture(labels, draws["means"], sds, fwhms, widest, generators))

    def powers(self, draws: Draws) -> Tensor:
        """What intensities are raised to, (B,)."""
        return torch.exp(self.config.gamma * normal(draws["gamma"]))

    def uneven(self, images: Tensor, draws: Draws, part: Part | None = None) -> Tensor:
        """Images (B, *S) times their bias field."""
        if not self.config.bias:
            return images
        shape, window = (images.shape[1:], None) if part is None else (part.shape, part.window)
        nodes = whole(draws["bias_nodes"], 2, int(self.config.bias))
        strength = _BIAS_STRENGTH * draws["bias_strength"].reshape(-1, *(1,) * len(shape))
        field = intensity.smooth_fields(draws["bias"], nodes, shape, self.config.order, window)
        return images * (1 - strength + 2 * strength * field)

    def scanned(
        self, images: Tensor, draws: Draws, generators: Sequence[torch.Generator], part: Part | None = None
    ) -> Tensor:
        """Images (B, *S) with field, power, blur, larger voxels and noise."""
        images = self.uneven(images, draws, part)
        return self._acquired(self._raised(images, draws, part.known.ends if part else None), draws, generators)

    def imaged(
        self,
        labels: Tensor,
        draws: Draws,
        seeds: Tensor,
        generators: Sequence[torch.Generator],
        part: Part | None = None,
    ) -> Tensor:
        """Images (B, 1, *S) of label maps that are not deformed any more.

        Raises
        ------
        RunError
            When an image has a voxel that is not finite.
        """
        mixed = self.mixed(labels, draws, generators)
        images = self.scanned(mixed, draws, generators, part)
        scale = part.known.scale if part else None
        images = self.contrast.scaled(images, self.contrast.scale(images, mixed, labels) if scale is None else scale)
        images *= labels.flatten(1).any(1).reshape(-1, *(1,) * (labels.ndim - 1))
        for seed, finite in zip(seeds.tolist(), torch.isfinite(images.flatten(1).sum(1)).tolist(), strict=True):
            if not finite:
                raise RunError(f"synthesis gave a voxel that is not finite (label map drawn with seed {seed})")
        return images[:, None]

    def known(self, labels: Tensor, draws: Draws, generators: Sequence[torch.Generator]) -> Known:
        """What images of deformed label maps say of any part of them."""
        mixed = self.mixed(labels, draws, generators)
        uneven = self.uneven(mixed, draws)
        ends = intensity.extremes(uneven)
        images = self._acquired(self._raised(uneven, draws, ends), draws, generators)
        return Known(ends, self.contrast.scale(images, mixed, labels))

    def reach(self) -> int:
        """Voxels from which on nothing reaches another voxel by blur or larger voxels."""
        widths = (self.config.motion_fwhm, float(self.config.resolution))
        return sum(reach_of(width) for width in widths if width)

    def _raised(self, images: Tensor, draws: Draws, ends: Tensor | None) -> Tensor:
        return intensity.raised(images, self.powers(draws), ends) if self.config.gamma else images

    def _acquired(self, images: Tensor, draws: Draws, generators: Sequence[torch.Generator]) -> Tensor:
        config = self.config
        if config.motion_fwhm:
            images = intensity.blurred(images, config.motion_fwhm * draws["motion_fwhm"], config.motion_fwhm)
        if config.resolution or config.snr:
            images = torch.stack(
                [
                    acquired(image, {name: draw[i] for name, draw in draws.items()}, config, generators[i])
                    for i, image in enumerate(images)
                ]
            )
        return images
