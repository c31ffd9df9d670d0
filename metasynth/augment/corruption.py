"""Known corruptions: what synthetic images are made "real" by, and an augmenter has to find."""

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from torch import Tensor

from metasynth.errors import UsageError


@runtime_checkable
class Corruption(Protocol):
    """Something known that is done to images."""

    def corrupt(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Corrupted images (B, C, *S) of `images` (B, C, *S), with fresh draws for every image.

        Drawn on the generator's device and moved to that of the images.
        """
        ...


@final
@dataclass(frozen=True)
class Corruptions:
    """Several corruptions, one after the other; none of them leaves images as they are.

    Raises UsageError (a ValueError) for a part that is no `Corruption`.
    """

    parts: tuple[Corruption, ...]

    def __post_init__(self) -> None:
        for part in self.parts:
            if not isinstance(part, Corruption):
                raise UsageError(f"parts: must all have a method corrupt(images, generator), got {part!r}")

    def corrupt(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Corrupted images (B, C, *S) of `images` (B, C, *S)."""
        for part in self.parts:
            images = part.corrupt(images, generator)
        return images
