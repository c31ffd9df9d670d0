"""The interface of generators: label maps in, synthetic images and the labels they show out."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from metasynth.errors import DataError, UsageError
from metasynth.interrupts import check

_SEED_BOUND = 2**63 - 1
PIECE_VOXELS = 2**22  # made at once: more than a training batch has, and some 300 MB on the way


class ImageGenerator(ABC):
    """Makes synthetic images from label maps, with no learned weights."""

    @abstractmethod
    def __call__(self, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Synthesise one image per label map.

        Parameters
        ----------
        labels : Tensor (B, *S), an integer dtype
            Class indices 0..K-1; 0 is background.
        generator : torch.Generator
            The only source of randomness: equal labels and generator states give equal results, and the
            global random streams are left as they were.

        Returns
        -------
        images : Tensor (B, 1, *S) float32
            Synthetic images, intensities about [0, 1].
        labels : Tensor (B, *S) int64
            The label maps the images show (deformed with them where the generator deforms).

        Raises
        ------
        DataError
            (a ValueError) when the labels are not integers in 0..K-1.
        """

    def deformed(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """The label maps (B, *S) int64 that a call with the same generator state returns, which moves on as there.

        For whoever makes images of them by other means. Here the call's images are made and thrown away.
        """
        return self(labels, generator)[1]


class SeededGenerator(ImageGenerator):
    """A generator in two steps: draw one seed per image, then make each image from its label map and seed alone.

    Parameters
    ----------
    n_classes : int
        K, the number of classes, background included.

    Raises
    ------
    UsageError
        (a ValueError) when `n_classes` is less than 2.
    """

    def __init__(self, n_classes: int) -> None:
        if n_classes < 2:
            raise UsageError(f"n_classes: must be at least 2 (background and one more), got {n_classes}")
        self.n_classes = n_classes

    def __call__(self, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One image per label map (see `ImageGenerator`), from 2 or 3 voxel axes; of many, some at a time."""
        seeds = self.draw_seeds(len(labels), generator)
        size = max(1, PIECE_VOXELS // max(1, labels.shape[1:].numel()))
        if len(labels) <= size:
            return self.synthesise(labels, seeds)
        self.check(labels)
        shape = self.made_shape(labels)
        images = torch.empty(len(labels), 1, *shape, device=labels.device)
        deformed = torch.empty(len(labels), *shape, dtype=torch.int64, device=labels.device)
        for start in range(0, len(labels), size):
            check()
            part = slice(start, start + size)
            images[part], deformed[part] = self.synthesise(labels[part], seeds[part])
        return images, deformed

    def deformed(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """See `ImageGenerator`; without images where `deform` makes none."""
        return self.deform(labels, self.draw_seeds(len(labels), generator))

    def draw_seeds(self, batch_size: int, generator: torch.Generator) -> Tensor:
        """One 63-bit seed per image, (B,) int64."""
        return torch.randint(_SEED_BOUND, (batch_size,), generator=generator, device=generator.device)

    def made_shape(self, labels: Tensor) -> tuple[int, ...]:
        """Voxels along each axis of the images of label maps (B, *S): S, where nothing else is said."""
        return tuple(labels.shape[1:])

    @abstractmethod
    def synthesise(self, labels: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Images whose randomness is drawn: each depends on its own label map and seed alone.

        Parameters
        ----------
        labels : Tensor (B, *S), an integer dtype
            Class indices 0..K-1 on 2 or 3 voxel axes.
        seeds : Tensor (B,) int64
            From `draw_seeds`.

        Returns
        -------
        images : Tensor (B, 1, *S) float32
        labels : Tensor (B, *S) int64
            The deformed label maps.

        Raises
        ------
        DataError
            (a ValueError) when `labels` has another shape or dtype, or values outside 0..K-1.
        RunError
            When an image has a voxel that is not finite.
        """

    def deform(self, labels: Tensor, seeds: Tensor) -> Tensor:
        """The label maps that `synthesise` returns; here by making the images too. Parameters and errors as there."""
        return self.synthesise(labels, seeds)[1]

    def check(self, labels: Tensor) -> None:
        """Raise DataError (a ValueError) unless `labels` is what `synthesise` takes."""
        if labels.ndim not in (3, 4):
            raise DataError(f"labels: must have shape (B, *S) with 2 or 3 voxel axes, got shape {tuple(labels.shape)}")
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise DataError(f"labels: must be of an integer dtype, got {labels.dtype}")
        if labels.numel() == 0:
            return
        low, high = (int(value) for value in torch.aminmax(labels))
        if low < 0 or high >= self.n_classes:
            raise DataError(f"labels: must be in 0..{self.n_classes - 1}, got {low}..{high}")

    def check_pair(self, images: Tensor, labels: Tensor) -> None:
        """Raise DataError (a ValueError) unless `labels` are what `synthesise` takes and `images` have their shape."""
        self.check(labels)
        expected = (len(labels), 1, *labels.shape[1:])
        if images.shape != expected:
            raise DataError(f"images: must have shape {expected}, as the labels, got {tuple(images.shape)}")
