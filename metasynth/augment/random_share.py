"""A share of images that keeps what nothing is learned of."""

from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from metasynth.augment.augmenter import Augmenter, Draws, Rate, check_draws
from metasynth.augment.intensities import Priors
from metasynth.errors import UsageError


class SharedDraws(NamedTuple):
    """``random`` (B,), 1 where an image is made at random and 0 elsewhere; ``own``, the draws of either augmenter."""

    random: Tensor
    own: Draws


@final
class RandomShare(Augmenter[SharedDraws]):
    """Some images of every batch by an augmenter that stays as it is, all others by one that is learned.

    A segmenter that has seen other contrasts than those that are learned holds on them. How many images of a batch of B
    are random is ``share`` B, or, where this is no whole number, one of those next to it by chance, so that the share
    is exact in the mean; which ones is drawn.

    Parameters
    ----------
    learned, random : Augmenter
        Which take the same and draw the same. The parameters of ``random`` become buffers: they are saved, not learned.
    share : float
        In [0, 1).

    Raises
    ------
    UsageError
        (a ValueError) for a share out of range, or augmenters of which one takes images and one structures.
    """

    def __init__(self, learned: Augmenter[Any], random: Augmenter[Any], share: float) -> None:
        super().__init__()
        if not 0 <= share < 1:
            raise UsageError(f"random_share: must be at least 0 and less than 1, got {share}")
        if learned.takes != random.takes:
            raise UsageError(f"learned and random: must take the same, got {learned.takes} and {random.takes}")
        self.takes = learned.takes
        self.learned, self.random, self.share = learned, _frozen(random), share

    def draw(self, images: Tensor, generator: torch.Generator) -> SharedDraws:
        """Which of ``images`` (B, C, *S) are random, and the draws of the learned augmenter for all of them."""
        b = len(images)
        chance = torch.rand((), generator=generator, dtype=torch.float64, device=generator.device)
        count = (self.share * b + chance).floor()
        ranks = torch.randperm(b, generator=generator, device=generator.device)
        return SharedDraws((ranks < count).to(images), self.learned.draw(images, generator))

    def forward(self, given: Tensor, draws: SharedDraws) -> Tensor:
        """Images (B, C, *S) from images or structures, whatever the two take, and ``draws`` of `draw`.

        Raises
        ------
        ValueError
            When the shapes of ``draws`` do not belong to those of ``given``.
        """
        own, random = self._parted(given, draws)
        return torch.where(random, self.random(given, own), self.learned(given, own))

    def observed(self) -> dict[str, float]:
        """What the learned one observes."""
        return self.learned.observed()

    def priors(self) -> Priors | None:
        """Those of the learned one."""
        return self.learned.priors()

    def parameter_groups(self) -> dict[Rate, list[nn.Parameter]]:
        """Those of the learned one."""
        return self.learned.parameter_groups()

    def shown(self, given: Tensor, draws: SharedDraws) -> dict[str, Tensor]:
        """What the learned one makes visible, and the 'augmented' images: of all images, as if none were random."""
        own, _ = self._parted(given, draws)
        return {**self.learned.shown(given, own), "augmented": self.learned(given, own)}

    def _parted(self, given: Tensor, draws: SharedDraws) -> tuple[Draws, Tensor]:
        """The draws of either augmenter, and which images are random, to be set beside images."""
        if not isinstance(draws, tuple) or len(draws) != 2:
            got = f"one of {len(draws)}" if isinstance(draws, tuple) else type(draws).__name__
            raise ValueError(f"draws: must be a tuple of 2, which images are random and the draws of all, got {got}")
        random, own = draws
        check_draws(random, (len(given),))
        axes = given.ndim - 1 if self.takes == "images" else given.ndim
        return own, (random > 0).reshape(-1, *[1] * axes)


def _frozen(module: Augmenter[Any]) -> Augmenter[Any]:
    """The module, with its parameters as buffers."""
    for part in module.modules():
        for name, value in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, value.detach())
    return module
