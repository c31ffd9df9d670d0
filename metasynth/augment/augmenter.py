"""What all learned augmenters have in common, and the form of their random draws."""

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

Draws = Tensor | tuple["Draws", ...]
"""The randomness of one application: tensors with the batch as first axis, nested in tuples at will."""

DrawsT = TypeVar("DrawsT", bound=Draws)


class Augmenter(nn.Module, ABC, Generic[DrawsT]):
    """A learned augmentation of synthetic images: x <- A_θ(x, draws).

    Drawing is apart from applying. `draw` does not depend on the parameters and can be done ahead, in another process;
    `forward` draws nothing, so that equal draws give equal images, and is twice differentiable with respect to the
    parameters. What an image becomes depends on its own draws alone. Augmenters can be pickled.
    """

    @abstractmethod
    def draw(self, images: Tensor, generator: torch.Generator) -> DrawsT:
        """All randomness of one application to images of the shape, dtype and device of `images` (B, C, *S).

        Drawn on the generator's device and moved to that of the images, whose values are not looked at. The first
        axis of every tensor is the batch.
        """

    @abstractmethod
    def forward(self, images: Tensor, draws: DrawsT) -> Tensor:
        """Augmented images (B, C, *S) from `images` (B, C, *S) and `draws` of `draw`.

        Raises
        ------
        ValueError
            When the shapes of `draws` do not belong to those of `images`.
        """

    @abstractmethod
    def observed(self) -> dict[str, float]:
        """What is learned, by name and in natural units, such as {"sigma": 0.1}; for records."""


def check_draws(draws: Draws, expected: tuple[Any, ...]) -> None:
    """Raise ValueError unless `draws` has the shapes `expected`, nested in tuples alike."""
    found = shapes_of(draws)
    if found != expected:
        raise ValueError(f"draws: must have shapes {expected}, got {found}")


def shapes_of(draws: Draws) -> Any:
    """The shape of each tensor in `draws`, nested alike; of anything else the name of its type."""
    if isinstance(draws, Tensor):
        return tuple(draws.shape)
    return tuple(map(shapes_of, draws)) if isinstance(draws, tuple) else type(draws).__name__
