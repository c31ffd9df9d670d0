"""The paper's generator: cornucopia's `SynthFromLabelTransform` behind a seeded adapter."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import cornucopia
import torch
from torch import Tensor

from metasynth.errors import RunError, UsageError
from metasynth.synthesis.config import PAPER, CornucopiaConfig
from metasynth.synthesis.generator import SeededGenerator
from metasynth.synthesis.intensity import scaled_heads

# Quantile scaling leaves ordinary images within a few units; beyond this it has failed.
_SCALED_LIMIT = 10.0


@final
class CornucopiaGenerator(SeededGenerator):
    """Affine and elastic deformation, a textured Gaussian per class, gamma and blur.

    The last step maps the 1 % and 99 % quantiles of the non-zero voxels to 0 and 1. Hence some voxels lie a
    little outside [0, 1], and the background, 0 before that step, ends near 0 but not always at 0. Neither
    is clamped: this is the image that the paper's Eq. 8 adds noise to. Where the foreground is so small that
    the quantiles almost meet and a voxel ends beyond 10 in magnitude, the image is scaled by its minimum and
    maximum instead. A label map with no foreground, before or after its deformation, gives an image of zeros.
    Images of whole heads are then scaled as scans of heads are (`head_ends`), which is the same as
    if that were done in place of it, and cut to [0, 1].

    Works on the CPU; results return to the device of the labels. It borrows Python's and torch's global
    random streams for the length of a call, so no other thread may draw from them meanwhile.

    Parameters
    ----------
    n_classes : int
        K, the number of classes, background included.
    config : CornucopiaConfig
        The steps and their strengths.
    head : bool
        Whether the label maps are of whole heads.

    Raises
    ------
    UsageError
        (a ValueError) when `n_classes` is less than 2, or `config` names priors.
    """

    def __init__(self, n_classes: int, config: CornucopiaConfig = PAPER, head: bool = False) -> None:
        super().__init__(n_classes)
        if config.priors:
            raise UsageError(
                f"config.priors: must be empty, as cornucopia draws random contrasts, got {config.priors!r}"
            )
        self.config, self.head = config, head
        self._transform: Any = None

    def __getstate__(self) -> dict[str, Any]:
        # cornucopia's samplers can be neither pickled nor deep-copied: each process builds its own transform.
        return {**self.__dict__, "_transform": None}

    def synthesise(self, labels: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Images whose randomness is drawn (see `SeededGenerator`)."""
        self.check(labels)
        if self._transform is None:
            self._transform = cornucopia.SynthFromLabelTransform(**self.config.options())
        deformed = labels.detach().to("cpu", torch.int64, copy=True)
        images = torch.zeros(len(deformed), 1, *deformed.shape[1:])
        with _global_streams_restored(), torch.no_grad():
            for index, seed in enumerate(seeds.tolist()):
                if bool(deformed[index].any()):
                    images[index], deformed[index] = self._one(deformed[index], seed)
        if self.head:
            images = scaled_heads(images[:, 0])[:, None]
        return images.to(labels.device), deformed.to(labels.device)

    def _one(self, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Image (1, *S) and deformed labels (*S) of one label map (*S)."""
        random.seed(seed)
        torch.default_generator.manual_seed(seed)  # unlike torch.manual_seed, leaves the streams of GPUs alone
        # The transform's own stages, in its order and with its draws: called whole, it raises in the quantile
        # when the deformation has moved every label out of the field of view.
        deformed = self._transform.deform(labels[None])
        if not bool(deformed.any()):
            return torch.zeros(deformed.shape), deformed[0]
        image = _rescued(self._transform.intensity(self._transform.gmm(deformed)))
        if not bool(torch.isfinite(image).all()):
            raise RunError(f"cornucopia gave a voxel that is not finite (label map drawn with seed {seed})")
        return image, deformed[0]


def _rescued(image: Tensor) -> Tensor:
    """`image`, or the same scaled by its minimum and maximum where quantile scaling has failed."""
    low, high = torch.aminmax(image)
    if max(-float(low), float(high)) <= _SCALED_LIMIT:
        return image
    return (image - low) / (high - low)


@contextmanager
def _global_streams_restored() -> Iterator[None]:
    """Put the global random states of Python and of torch (CPU) back at the end."""
    python_state = random.getstate()
    torch_state = torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(python_state)
        torch.default_generator.set_state(torch_state)
