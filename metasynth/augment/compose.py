"""Augmenters one after the other."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, TypeVar, final

import torch
from torch import Tensor, nn

from metasynth.augment.augmenter import Augmenter, Draws, Rate, joined_groups
from metasynth.augment.intensities import Priors
from metasynth.augment.residual import ResidualNetwork
from metasynth.augment.varying_noise import RandomAmplitudeNoise
from metasynth.errors import UsageError

ValueT = TypeVar("ValueT")


@final
class Compose(Augmenter[tuple[Draws, ...]]):
    """Augmenters applied in order.

    The joint model of the paper's section 3.3 is `Compose(BiasField(...), GaussianNoise(...))`.

    Parameters
    ----------
    *parts : Augmenter
        The first is applied first, to what it takes.

    Raises
    ------
    UsageError
        (a ValueError) when there is no part, one is no `Augmenter`, or one after the first takes structures.
    """

    def __init__(self, *parts: Augmenter[Any]) -> None:
        super().__init__()
        for part in parts:
            if not isinstance(part, Augmenter):
                raise UsageError(f"parts: must be augmenters, got {type(part).__name__}")
        if not parts:
            raise UsageError("parts: must be one or more augmenters, got none")
        for part in parts[1:]:
            if part.takes != "images":
                raise UsageError(f"parts: after the first must take images, got {type(part).__name__}, of {part.takes}")
        self.takes = parts[0].takes
        self.parts = nn.ModuleList(parts)

    def __iter__(self) -> Iterator[Augmenter[Any]]:
        """The parts in order."""
        return iter(self.parts)  # type: ignore[arg-type]

    def draw(self, images: Tensor, generator: torch.Generator) -> tuple[Draws, ...]:
        """The draws of each part, in order."""
        return tuple(part.draw(images, generator) for part in self)

    def forward(self, images: Tensor, draws: tuple[Draws, ...]) -> Tensor:
        """Augmented images (B, C, *S) from `images` (B, C, *S) and `draws` of `draw`.

        Raises
        ------
        ValueError
            When the shapes of `draws` do not belong to those of `images`.
        """
        if not isinstance(draws, tuple) or len(draws) != len(self.parts):
            got = f"one of {len(draws)}" if isinstance(draws, tuple) else type(draws).__name__
            raise ValueError(f"draws: must be a tuple of {len(self.parts)}, one for each part, got {got}")
        for part, own in zip(self, draws, strict=True):
            images = part(images, own)
        return images

    def observed(self) -> dict[str, float]:
        """What each part observes. Names that several of them have are numbered: sigma_1, sigma_2."""
        return _numbered(item for part in self for item in part.observed().items())

    def priors(self) -> Priors | None:
        """Those of the first part, which makes the image."""
        return self.parts[0].priors()  # type: ignore[operator]

    def parameter_groups(self) -> dict[Rate, list[nn.Parameter]]:
        """Those of the parts."""
        return joined_groups(part.parameter_groups() for part in self)

    def shown(self, images: Tensor, draws: tuple[Draws, ...]) -> dict[str, Tensor]:
        """What becomes visible of each part on its way, from `images` (B, C, *S) and `draws` of `draw`.

        Names that several of them have are numbered as in `observed`.
        """
        found: list[tuple[str, Tensor]] = []
        for part, own in zip(self, draws, strict=True):
            found += part.shown(images, own).items()
            images = part(images, own)
        return _numbered(found)


def nonparametric(network: nn.Module, sigma_start: float) -> Compose:
    """The paper's nonparametric model (section 3.4): a residual network (Eqs 10-11), then noise (Eq. 9).

    Parameters
    ----------
    network : torch.nn.Module
        Maps (B, C + 1, *S) to (B, C, *S); see `ResidualNetwork`.
    sigma_start : float
        The first value of sigma.

    Raises
    ------
    UsageError
        (a ValueError) when `sigma_start` is not positive and finite.
    """
    return Compose(ResidualNetwork(network), RandomAmplitudeNoise(sigma_start))


def _numbered(items: Iterable[tuple[str, ValueT]]) -> dict[str, ValueT]:
    """The union, in which names that occur more than once are numbered."""
    found = list(items)
    counts = Counter(name for name, _ in found)
    taken = set(counts)
    union = {}
    for name, value in found:
        own = name
        if counts[name] > 1:
            own = next(numbered for k in count(1) if (numbered := f"{name}_{k}") not in taken)
            taken.add(own)
        union[own] = value
    return union
