"""An augmenter from outside the package: brightness of a learned width."""

import torch
from torch import Tensor, nn

from metasynth.augment.augmenter import Augmenter
from metasynth.augment.entry import AugmenterEntry, Start


class Brightness(Augmenter[Tensor]):
    """x <- x exp(w z) with z ~ N(0, 1) per image and a learned w."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log_width = nn.Parameter(torch.tensor(start).log())

    def draw(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(len(images), generator=generator).to(images)

    def forward(self, images: Tensor, draws: Tensor) -> Tensor:
        return images * (self.log_width.exp() * draws.reshape(-1, *[1] * (images.dim() - 1))).exp()

    def observed(self) -> dict[str, float]:
        return {"brightness": self.log_width.exp().item()}


def brightness(start: Start) -> Brightness:
    return Brightness(start.sigma)


AUGMENTER = AugmenterEntry("brightness", "brightness", brightness)
