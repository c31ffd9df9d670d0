"""Examples, and what makes them of items of a cache: synthetic, corrupted, augmented or real ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from metasynth.augment.augmenter import Augmenter, Draws, Takes
from metasynth.augment.corruption import Corruption
from metasynth.augment.noise import standard_normal
from metasynth.data.dataset import Batch, SliceDataset
from metasynth.errors import DataError, UsageError
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.generator import ImageGenerator
from metasynth.synthesis.parts.patch_generator import PatchGenerator
from metasynth.synthesis.parts.patches import Patches


class Example(NamedTuple):
    """Images with their truth.

    ``images`` (B, 1, *S) float32, or None where the augmenter is to make them of the structures; ``labels`` (B, *S)
    int64, the classes; ``draws`` what the augmenter is to apply, a tensor (B, ...) or a nested tuple of such, or None
    where the images are final; ``fine`` (B, *S) int64, the generation labels, or None where these are the classes.
    """

    images: Tensor | None
    labels: Tensor
    draws: Draws | None
    fine: Tensor | None = None

    @property
    def structures(self) -> Tensor:
        """(B, *S) int64 generation labels of what the images show."""
        return self.labels if self.fine is None else self.fine

    @property
    def given(self) -> Tensor:
        """What an augmenter is given, and whoever sees final images: the images, or of an example without structures.

        See `metasynth.augment.augmenter.Augmenter.takes`.
        """
        return self.structures if self.images is None else self.images

    @classmethod
    def of(cls, batch: Batch, images: Tensor | None, structures: Tensor, draws: Draws | None = None) -> "Example":
        """Images made of a batch, and the generation labels that they show, deformed or not, with their classes."""
        labels = batch.classes_of(structures)
        return cls(images, labels, draws, None if labels is structures else structures)

    def to(self, device: str) -> "Example":
        """The same example on another device."""
        return Example(*mapped(lambda x: x.to(device), self))


def mapped(function: Callable[[Any], Any], parts: Any) -> Any:
    """``function`` of every tensor or array in nested tuples; None stays, and tuples become plain ones."""
    if parts is None:
        return None
    return tuple(mapped(function, part) for part in parts) if isinstance(parts, tuple) else function(parts)


Draw = Callable[[Tensor, torch.Generator], Draws]
"""Makes an augmenter's draws for images; `metasynth.augment.augmenter.Augmenter.draw`."""

Source = Callable[[Batch, torch.Generator], Example]
"""Makes an example from items of a cache; picklable, so that workers can have it."""


Maker = BatchedGenerator | PatchGenerator
"""What makes images, or patches of them, also of contrasts and scans there are already."""


def in_patches(whole: BatchedGenerator, patches: Patches | None, target: Sequence[int]) -> Maker:
    """What makes patches of the images of a generator; itself, where there are to be none.

    ``target`` (G,) has the class of each generation label, which a share of the patches is about.
    """
    return whole if patches is None else PatchGenerator(whole, patches, target)


@dataclass(frozen=True)
class Synthetic:
    """What an augmenter takes, clean synthetic images or their structures alone, with draws for it to apply."""

    generator: ImageGenerator
    draw: Draw = standard_normal
    takes: Takes = "images"

    def __call__(self, batch: Batch, generator: torch.Generator) -> Example:
        """Images and deformed labels of a batch's label maps."""
        if self.takes == "structures":
            structures = self.generator.deformed(batch.structures, generator)
            return Example.of(batch, None, structures, self.draw(_shaped_as(structures), generator))
        images, structures = self.generator(batch.structures, generator)
        return Example.of(batch, images, structures, self.draw(images, generator))

    def like(self, real: Example, generator: torch.Generator) -> Example:
        """Clean images of a real example's own label maps, in its contrast, with draws for the augmenter.

        One that takes structures makes the contrast itself: it gets the label maps as they are.

        Raises
        ------
        UsageError
            If the generator cannot make images in a given contrast.
        """
        if self.takes == "structures":
            return real._replace(images=None, draws=self.draw(_shaped_as(real.structures), generator))
        if not isinstance(self.generator, Maker):
            raise UsageError(f"reference: 'matched' needs the batched generator, got {type(self.generator).__name__}")
        images = self.generator.matched(
            real.given, real.structures, self.generator.draw_seeds(len(real.labels), generator)
        )
        return real._replace(images=images, draws=self.draw(images, generator))


def _shaped_as(structures: Tensor) -> Tensor:
    """Images (B, 1, *S) float32 of the shape and device of structures (B, *S), whose values nobody is to look at."""
    return torch.empty(len(structures), 1, *structures.shape[1:], device=structures.device)


@dataclass(frozen=True)
class Corrupted:
    """Synthetic images with a known corruption: the "real" domain of the paper's section 4.1.

    From the same generator state it makes the same clean images as `Synthetic`.
    """

    generator: ImageGenerator
    corruption: Corruption

    def __call__(self, batch: Batch, generator: torch.Generator) -> Example:
        """Corrupted images and deformed labels of a batch's label maps."""
        images, structures = self.generator(batch.structures, generator)
        return Example.of(batch, self.corruption.corrupt(images, generator), structures)


@dataclass(frozen=True)
class Augmented:
    """Synthetic images as an augmenter that is no longer learned makes them."""

    generator: ImageGenerator
    augmenter: Augmenter

    def __call__(self, batch: Batch, generator: torch.Generator) -> Example:
        """Augmented images and deformed labels of a batch's label maps."""
        made = Synthetic(self.generator, self.augmenter.draw, self.augmenter.takes)(batch, generator)
        with torch.no_grad():
            return made._replace(images=self.augmenter(made.given, made.draws), draws=None)


@dataclass(frozen=True)
class LearnedImages:
    """The training images that a finished run ended with: of whose label maps they are, and what makes them.

    Attributes
    ----------
    dataset : SliceDataset
        The label maps.
    source : callable
        Makes examples without draws, whose images are final.
    """

    dataset: SliceDataset
    source: Source


@dataclass(frozen=True)
class Real:
    """The images of a cache with their labels, as they are; no randomness but in where ``patches`` of them lie."""

    patches: Patches | None = None

    def __call__(self, batch: Batch, generator: torch.Generator) -> Example:
        """The batch's own images and labels, or patches of them.

        Raises
        ------
        DataError
            If the cache holds labels only.
        """
        if batch.images is None:
            raise DataError("real examples need a cache with images, got one with labels only")
        if self.patches is None:
            return Example(batch.images, batch.labels, None, batch.fine)
        return Example.of(batch, *self.patches.cut(batch.images, batch.structures, batch.labels, generator))


ReferenceKind = Literal["random", "matched", "none"]


def reference_of(
    kind: ReferenceKind, synthetic: Source, items: Batch, real: Example, generator: torch.Generator
) -> Example | None:
    """The synthetic examples that real ones are compared with in a hypergradient.

    Both are of the same people, so that anatomy does not tell them apart. Most of what is left between two batches is
    the contrast that each image happens to have, which no augmentation has a part in. With 'matched' the reference
    has the contrasts of the real images (of an augmenter that makes the contrast itself, their label maps alone): the
    same differences of the domains, with less than half of the noise (docs/measurements/recovery.md).

    Parameters
    ----------
    kind : {'random', 'matched', 'none'}
        'random': deformed label maps in random contrasts; 'matched': see `Synthetic.like`; 'none': no reference.
    synthetic : callable
        What makes the inner examples; a `Synthetic` for 'matched'.
    items : Batch
        The items that the real examples were made of.
    real : Example
        The real ones.
    generator : torch.Generator
        Of the reference's draws.
    """
    if kind == "none":
        return None
    if kind == "random":
        return synthetic(items, generator)
    if not isinstance(synthetic, Synthetic):
        raise UsageError(f"reference: 'matched' needs clean synthetic examples, got {type(synthetic).__name__}")
    return synthetic.like(real, generator)
