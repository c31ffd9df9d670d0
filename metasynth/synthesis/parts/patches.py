"""Where patches of volumes are taken: anywhere, and a share of them about a structure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from metasynth.errors import UsageError

Window = tuple[slice, ...]
"""Along each axis, what is taken of it."""


@final
@dataclass(frozen=True)
class Patches:
    """Patches of one size, drawn at random within images.

    Most of a head's volume is background, and small structures are in few random patches. So a share of the patches is
    centred, as far as the image reaches, on a random voxel of a random class that is there, as nnU-Net's are (Isensee
    et al. 2021, foreground oversampling).

    Attributes
    ----------
    size : tuple of int
        Voxels along each axis.
    foreground : float
        The share, in [0, 1].

    Raises
    ------
    UsageError
        (a ValueError) for a size below 1, or a share out of range.
    """

    size: tuple[int, ...]
    foreground: float = 1 / 3

    def __post_init__(self) -> None:
        if not self.size or min(self.size) < 1:
            raise UsageError(f"size: must be at least 1 along each axis, got {self.size}")
        if not 0 <= self.foreground <= 1:
            raise UsageError(f"foreground: must be in [0, 1], got {self.foreground}")

    def draw(self, classes: Tensor, shape: Sequence[int], generator: torch.Generator) -> Window:
        """One patch of an image.

        Parameters
        ----------
        classes : Tensor (*T), an integer dtype
            The image's classes, 0 for background; of thinned voxels where T is less than ``shape``.
        shape : sequence of int
            The image's voxels along each axis, at least those of the patch.
        generator : torch.Generator
            Gives as many numbers whatever is drawn.
        """
        share, which, voxel, *places = torch.rand(3 + len(shape), generator=generator).tolist()
        starts = [int(place * (n - size + 1)) for place, n, size in zip(places, shape, self.size, strict=True)]
        present = classes.unique()
        present = present[present > 0]
        if share < self.foreground and len(present):
            found = (classes == present[int(which * len(present))]).nonzero()
            centre = found[int(voxel * len(found))].tolist()
            starts = [
                min(max(int((at + 0.5) * n / thinned) - size // 2, 0), n - size)
                for at, n, thinned, size in zip(centre, shape, classes.shape, self.size, strict=True)
            ]
        return tuple(slice(start, start + size) for start, size in zip(starts, self.size, strict=True))

    def cut(self, images: Tensor, labels: Tensor, classes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A patch of each of images (B, 1, *S) and their labels (B, *S), about ``classes`` (B, *S) of these."""
        shape = labels.shape[1:]
        windows = [self.draw(own, shape, generator) for own in classes]
        return (
            torch.stack([image[(slice(None), *window)] for image, window in zip(images, windows, strict=True)]),
            torch.stack([own[window] for own, window in zip(labels, windows, strict=True)]),
        )


def widened(window: Window, reach: int, shape: Sequence[int]) -> tuple[Window, Window]:
    """A window with ``reach`` voxels more on every side, as far as the image goes, and where it lies in that."""
    wide = tuple(slice(max(0, w.start - reach), min(n, w.stop + reach)) for w, n in zip(window, shape, strict=True))
    inside = tuple(slice(w.start - o.start, w.stop - o.start) for w, o in zip(window, wide, strict=True))
    return wide, inside
