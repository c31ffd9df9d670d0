"""The paper's generator: cornucopia's `SynthFromLabelTransform` behind a seeded adapter."""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, final

import cornucopia
import torch
from torch import Tensor

from metasynth.errors import DataError, RunError, UsageError
from metasynth.synthesis.generator import ImageGenerator

_SEED_BOUND = 2**63 - 1
# Quantile scaling leaves ordinary images within a few units; beyond this it has failed.
_SCALED_LIMIT = 10.0


@final
@dataclass(frozen=True)
class CornucopiaConfig:
    """Options of `cornucopia.SynthFromLabelTransform`, by its names; the defaults are the paper's.

    A strength is the bound of the distribution its value is drawn from for every image; False or 0 leaves the
    step out. Raises UsageError (a ValueError) when an option is out of range.
    """

    order: int = 1
    """Spline order of the elastic and bias fields, 1 (linear, fast) to 7."""
    translations: float = 0.1
    """Largest translation either way, as a fraction of the field of view."""
    rotation: float = 15.0
    """Largest rotation either way, in degrees."""
    shears: float = 0.012
    """Largest shear either way."""
    zooms: float = 0.15
    """Largest zoom either side of 1; less than 1."""
    elastic: float = 0.05
    """Largest bound of the elastic displacement, as a fraction of the field of view."""
    elastic_nodes: int = 10
    """Largest number of control points of the displacement along an axis, at least 2."""
    gmm_fwhm: float = 10.0
    """Largest full width at half maximum, in voxels, of the smoothing of a class's noise (its texture)."""
    gamma: float = 0.6
    """Standard deviation of the logarithm of the exponent that intensities are raised to."""
    motion_fwhm: float = 3.0
    """Largest full width at half maximum, in voxels, of the blur of the whole image."""
    bias: int | bool = False
    """Largest number of control points of a bias field along an axis, at least 2."""
    resolution: float | bool = False
    """Largest simulated voxel size, in voxels, at least 1."""
    snr: float | bool = False
    """Smallest signal-to-noise ratio of cornucopia's own noise, which is not the sigma of Eq. 8."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{name}: must be a finite number >= 0, got {value!r}")
        for name, least, value in (
            ("elastic_nodes", 2, self.elastic_nodes),
            ("bias", 2, self.bias or 2),
            ("resolution", 1, self.resolution or 1),
        ):
            if value < least:
                raise UsageError(f"{name}: must be at least {least}, got {value!r}")
        if self.order not in range(1, 8):
            raise UsageError(f"order: must be a whole number from 1 to 7, got {self.order!r}")
        if self.zooms >= 1:
            raise UsageError(f"zooms: must be less than 1, got {self.zooms!r}")

    def at_spacing(self, spacing_mm: float) -> "CornucopiaConfig":
        """The same configuration for voxels of another size.

        The widths `gmm_fwhm` and `motion_fwhm`, in voxels, are meant for voxels of 1 mm and keep their size in mm:
        a blur of three 3 mm voxels would leave no cortex. Everything else is relative to the field of view.

        Raises
        ------
        UsageError
            When `spacing_mm` is not a positive number.
        """
        if not 0 < spacing_mm < float("inf"):
            raise UsageError(f"spacing_mm: must be a positive number, got {spacing_mm!r}")
        return replace(self, gmm_fwhm=self.gmm_fwhm / spacing_mm, motion_fwhm=self.motion_fwhm / spacing_mm)


PAPER = CornucopiaConfig()
"""`SynthFromLabelTransform(order=1, resolution=False, snr=False, bias=False)`."""


@final
class CornucopiaGenerator(ImageGenerator):
    """Affine and elastic deformation, a textured Gaussian per class, gamma and blur.

    The last step maps the 1 % and 99 % quantiles of the non-zero voxels to 0 and 1. Hence some voxels lie a
    little outside [0, 1], and the background, 0 before that step, ends near 0 but not always at 0. Neither
    is clamped: this is the image that the paper's Eq. 8 adds noise to. Where the foreground is so small that
    the quantiles almost meet and a voxel ends beyond 10 in magnitude, the image is scaled by its minimum and
    maximum instead. A label map with no foreground, before or after its deformation, gives an image of zeros.

    Works on the CPU; results return to the device of the labels. It borrows Python's and torch's global
    random streams for the length of a call, so no other thread may draw from them meanwhile.

    Parameters
    ----------
    n_classes : int
        K, the number of classes, background included.
    config : CornucopiaConfig
        The steps and their strengths.

    Raises
    ------
    UsageError
        (a ValueError) when `n_classes` is less than 2.
    """

    def __init__(self, n_classes: int, config: CornucopiaConfig = PAPER) -> None:
        if n_classes < 2:
            raise UsageError(f"n_classes: must be at least 2 (background and one more), got {n_classes}")
        self.n_classes = n_classes
        self.config = config
        self._transform: Any = None

    def __getstate__(self) -> dict[str, Any]:
        # cornucopia's samplers can be neither pickled nor deep-copied: each process builds its own transform.
        return {**self.__dict__, "_transform": None}

    def __call__(self, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One image per label map (see `ImageGenerator`), from 2 or 3 voxel axes."""
        return self.synthesise(labels, self.draw_seeds(len(labels), generator))

    def draw_seeds(self, batch_size: int, generator: torch.Generator) -> Tensor:
        """One 63-bit seed per image, (B,) int64."""
        return torch.randint(_SEED_BOUND, (batch_size,), generator=generator, device=generator.device)

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
        self._check(labels)
        if self._transform is None:
            self._transform = cornucopia.SynthFromLabelTransform(**asdict(self.config))
        deformed = labels.detach().to("cpu", torch.int64, copy=True)
        images = torch.zeros(len(deformed), 1, *deformed.shape[1:])
        with _global_streams_restored(), torch.no_grad():
            for index, seed in enumerate(seeds.tolist()):
                if bool(deformed[index].any()):
                    images[index], deformed[index] = self._one(deformed[index], seed)
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

    def _check(self, labels: Tensor) -> None:
        if labels.ndim not in (3, 4):
            raise DataError(f"labels: must have shape (B, *S) with 2 or 3 voxel axes, got shape {tuple(labels.shape)}")
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise DataError(f"labels: must be of an integer dtype, got {labels.dtype}")
        if labels.numel() == 0:
            return
        low, high = (int(value) for value in torch.aminmax(labels))
        if low < 0 or high >= self.n_classes:
            raise DataError(f"labels: must be in 0..{self.n_classes - 1}, got {low}..{high}")


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
