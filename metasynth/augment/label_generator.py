"""A learned generator of images from label maps: a contrast, drawn or learned, and what augments it."""

from typing import Any, final

import torch
from torch import Tensor, nn

from metasynth.augment.augmenter import Augmenter, Draws, Rate, joined_groups
from metasynth.augment.class_intensity import ClassIntensities
from metasynth.errors import UsageError


@final
class LabelGenerator(nn.Module):
    """G: images from label maps, in two steps, both with draws of their own.

    The first gives every class an intensity: learned (`ClassIntensities`), or that of a synthetic image that was made
    without learning. The second is an augmenter, which sees the image alone. Where a label map says background it
    changes nothing: scans cut to the brain have no noise outside of it.

    Parameters
    ----------
    contrast : ClassIntensities or None
        None: the synthetic images given to `draw` are what is augmented.
    augmenter : Augmenter
        Of images.

    Raises
    ------
    UsageError
        (a ValueError) when the augmenter takes structures, of which it makes a contrast itself, or both observe a value
        of the same name.
    """

    def __init__(self, contrast: ClassIntensities | None, augmenter: Augmenter[Any]) -> None:
        super().__init__()
        if augmenter.takes != "images":
            kind = type(augmenter).__name__
            raise UsageError(f"augmenter: must take images, as the contrast is made before, got {kind}, of structures")
        if both := sorted(set(contrast.observed() if contrast else ()) & augmenter.observed().keys()):
            raise UsageError(f"augmenter: expected other names of values than the contrast's, got {both[0]!r}")
        self.contrast = contrast
        self.augmenter = augmenter

    def draw(self, images: Tensor, generator: torch.Generator) -> Draws:
        """All randomness for synthetic images (B, 1, *S), these among it if there is no learned contrast."""
        first: Draws = images if self.contrast is None else self.contrast.draw(images, generator)
        return first, self.augmenter.draw(images, generator)

    def flat(self, labels: Tensor, draws: Draws) -> Tensor:
        """The images (B, 1, *S) of label maps (B, *S) before they are augmented."""
        images: Tensor = draws[0] if self.contrast is None else self.contrast(labels, draws[0])  # type: ignore[assignment]
        return images

    def forward(self, labels: Tensor, draws: Draws) -> Tensor:
        """Images (B, 1, *S) of label maps (B, *S) int64, from ``draws`` of `draw`.

        Raises
        ------
        ValueError
            When the shapes of ``draws`` do not belong to those of ``labels``.
        """
        flat = self.flat(labels, draws)
        return torch.where(labels[:, None] > 0, self.augmenter(flat, draws[1]), flat)

    def observed(self) -> dict[str, float]:
        """What contrast and augmenter observe."""
        return {**({} if self.contrast is None else self.contrast.observed()), **self.augmenter.observed()}

    def parameter_groups(self) -> dict[Rate, list[nn.Parameter]]:
        """Those of a learned contrast, which are values, and of the augmenter."""
        contrast: list[nn.Parameter] = [] if self.contrast is None else list(self.contrast.parameters())
        return joined_groups([{"values": contrast}, self.augmenter.parameter_groups()])
