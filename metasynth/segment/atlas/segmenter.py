"""A SAMSEG-style segmenter: an atlas and a mixture of Gaussians, fitted to each image by itself (Puonti et al. 2016).

It learns where the classes lie from label maps and nothing of how they look, so it is the same for any contrast. It is
not SAMSEG: the atlas is a smoothed average and not a tetrahedral mesh, the deformation is one of cubic B-splines, and
the proportions of the classes are fitted too, as in SPM's unified segmentation (Ashburner & Friston 2005).
docs/reference/atlas.md says more.
"""

from collections.abc import Sequence
from typing import final

import torch
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from metasynth.interrupts import check
from metasynth.segment.atlas.fit import fit
from metasynth.segment.atlas.prior import Atlas, plane_atlases
from metasynth.segment.atlas.settings import AtlasFit, AtlasSettings, Level, Step, Stiffness

__all__ = [
    "Atlas",
    "AtlasFit",
    "AtlasSegmenter",
    "AtlasSettings",
    "Level",
    "Step",
    "Stiffness",
    "brain_mask",
    "fit",
    "plane_atlases",
]


@final
class AtlasSegmenter:
    """Segments each image by a fit of its own.

    Parameters
    ----------
    atlases : Atlas or sequence of Atlas
        The prior. Of several, such as those of different planes, the one under which the image is likeliest after the
        linear levels is fitted to the end.
    settings : AtlasSettings or None
        How it is fitted; the defaults when None.
    stripped : bool
        Whether images are 0 outside the brain: then only the brain, with the holes in it, is used (`brain_mask`).

    Raises
    ------
    ValueError
        When there is no atlas, or atlases differ in classes or number of axes.
    """

    def __init__(
        self, atlases: Atlas | Sequence[Atlas], settings: AtlasSettings | None = None, stripped: bool = True
    ) -> None:
        self.atlases = (atlases,) if isinstance(atlases, Atlas) else tuple(atlases)
        if not self.atlases:
            raise ValueError("atlases: must hold at least one, got none")
        if len({(atlas.n_classes, len(atlas.shape)) for atlas in self.atlases}) > 1:
            kinds = ", ".join(f"{atlas.n_classes} of {len(atlas.shape)}D" for atlas in self.atlases)
            raise ValueError(f"atlases: must have the same number of classes and axes, got {kinds}")
        self.settings = settings or AtlasSettings()
        self.stripped = stripped

    def segment(self, images: Tensor) -> Tensor:
        """Labels (B, *S) int64 of images (B, 1, *S) or (B, *S); an image of zeros is all background.

        Raises
        ------
        ValueError
            When `images` has another shape, or one of them cannot be fitted (see `fit`).
        """
        ndim = len(self.atlases[0].shape)
        if images.ndim == ndim + 2 and images.shape[1] == 1:
            images = images[:, 0]
        if images.ndim != ndim + 1:
            raise ValueError(
                f"images: must be (B, *S) or (B, 1, *S) with {ndim} voxel axes, as the atlas, got {tuple(images.shape)}"
            )
        labels = torch.zeros(images.shape, dtype=torch.int64, device=images.device)
        for image, found in zip(images, labels, strict=True):
            check()
            if bool((image != 0).any()):
                found.copy_(self.fit(image).labels)
        return labels

    def fit(self, image: Tensor) -> AtlasFit:
        """The fit of one image (*S)."""
        mask = brain_mask(image) if self.stripped else None
        return fit(self.choose(image), image, mask, self.settings)

    def choose(self, image: Tensor) -> Atlas:
        """The atlas under which an image (*S) is likeliest after the linear levels."""
        if len(self.atlases) == 1:
            return self.atlases[0]
        mask = brain_mask(image) if self.stripped else None
        linear = self.settings.up_to("affine")
        found = [fit(atlas, image, mask, linear).log_likelihood for atlas in self.atlases]
        return self.atlases[found.index(max(found))]


def brain_mask(image: Tensor) -> Tensor:
    """Where a stripped image (*S) is above 0, and the holes in that, (*S) bool: scaling may have cut fluid to 0."""
    return torch.from_numpy(binary_fill_holes((image > 0).cpu().numpy())).to(image.device)
