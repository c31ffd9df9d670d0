"""How many levels nnU-Net has and what is halved between them, from the shape and spacing of the images."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import final

from metasynth.errors import ShapeError, UsageError
from metasynth.text import by

LEAST_EDGE = 4  # voxels of a feature map along every axis that is halved
ISOTROPIC = 2.0  # spacings that differ by less are alike


@final
@dataclass(frozen=True)
class NnunetPlan:
    """An nnU-Net, stage by stage, the finest first.

    Attributes
    ----------
    features : tuple of int
        Channels of each stage.
    strides : tuple of tuple of int
        By what each stage shortens the axes at its start; 1 everywhere in the first.
    kernel_sizes : tuple of tuple of int
        Of each stage's convolutions along each axis.
    residual : bool
        Residual encoder (Isensee et al. 2024) with 1, 3, 4, 6, 6, ... blocks a stage and one convolution a stage in the
        decoder; else two plain convolutions in each (Isensee et al. 2021).

    Raises
    ------
    UsageError
        (a ValueError) when the stages cannot be those of a U-Net.
    """

    features: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    residual: bool = False

    def __post_init__(self) -> None:
        axes = {len(numbers) for numbers in (*self.strides, *self.kernel_sizes)}
        if not 2 <= len(self.features) == len(self.strides) == len(self.kernel_sizes) or axes not in ({2}, {3}):
            raise UsageError(
                "features, strides and kernel_sizes: must be of the same 2 or more stages, with a number for each of 2 "
                f"or 3 axes, got {self.features}, {self.strides} and {self.kernel_sizes}"
            )
        if any(n < 1 for numbers in (self.features, *self.strides, *self.kernel_sizes) for n in numbers):
            raise UsageError(f"features, strides and kernel_sizes: must be at least 1, got {self}")

    @property
    def ndim(self) -> int:
        """Number of voxel axes."""
        return len(self.strides[0])

    @property
    def divisors(self) -> tuple[int, ...]:
        """What the number of voxels along each axis has to be a multiple of."""
        return tuple(prod(along) for along in zip(*self.strides, strict=True))

    def check(self, shape: Sequence[int]) -> None:
        """Raise `ShapeError` unless images of a shape can go through."""
        if any(n % divisor for n, divisor in zip(shape, self.divisors, strict=True)):
            nearest = [-(-n // divisor) * divisor for n, divisor in zip(shape, self.divisors, strict=True)]
            raise ShapeError(
                f"images of {by(shape)} cannot go through nnU-Net's {len(self.strides)} levels; expected sizes "
                f"divisible by {by(self.divisors)}, such as {by(nearest)}"
            )


def plan_nnunet(
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    residual: bool = False,
    base_features: int = 32,
    max_features: int | None = None,
) -> NnunetPlan:
    """Configure an nnU-Net by its rules (Isensee et al. 2021, supplementary note 2).

    From level to level every axis is halved that keeps 4 voxels, and whose spacing, as it is by then, is less than
    twice the finest of such axes; one axis alone has to keep 6. Kernels have 1 voxel along an axis until its spacing is
    less than twice the finest of all, and 3 from then on and at the deepest level. The channels double.

    Parameters
    ----------
    shape : sequence of int
        Voxels of the images along each of 2 or 3 axes; `NnunetPlan.check` requires that they can be halved so often.
    spacing_mm : sequence of float
        Distance between voxels along each.
    residual : bool
        See `NnunetPlan`.
    base_features, max_features : int
        Channels of the first level, and the most of any; None: 512 in 2D and 320 in 3D.

    Raises
    ------
    ShapeError
        When images are too small to be halved once.
    UsageError
        (a ValueError) for an argument out of range.
    """
    if len(shape) not in (2, 3) or len(spacing_mm) != len(shape):
        raise UsageError(
            f"shape and spacing_mm: must have 2 or 3 axes, the same of both, got {tuple(shape)} and {tuple(spacing_mm)}"
        )
    if min(shape) < 1 or not all(0 < spacing < float("inf") for spacing in spacing_mm):
        raise UsageError(f"shape and spacing_mm: must be above 0, got {tuple(shape)} and {tuple(spacing_mm)}")
    most = (512 if len(shape) == 2 else 320) if max_features is None else max_features
    if base_features < 1 or most < 1:
        raise UsageError(f"base_features and max_features: must be at least 1, got {base_features} and {most}")
    sizes, spacings = list(shape), list(spacing_mm)
    kernel = [1] * len(sizes)
    strides, kernels = [[1] * len(sizes)], []
    while halved := _halved(sizes, spacings):
        finest = min(spacings)
        kernel = [max(k, 3 if s < ISOTROPIC * finest else 1) for k, s in zip(kernel, spacings, strict=True)]
        kernels.append(kernel)
        strides.append([2 if axis in halved else 1 for axis in range(len(sizes))])
        for axis in halved:
            sizes[axis] = -(-sizes[axis] // 2)
            spacings[axis] *= 2
    kernels.append([3] * len(sizes))
    if len(strides) == 1:
        raise ShapeError(
            f"images of {by(shape)} are too small for nnU-Net, which halves them at least once; expected "
            f"{2 * LEAST_EDGE} voxels along two axes of like spacing, or {3 * LEAST_EDGE} along one"
        )
    return NnunetPlan(
        tuple(min(most, base_features * 2**level) for level in range(len(strides))),
        tuple(map(tuple, strides)),
        tuple(map(tuple, kernels)),
        residual,
    )


def _halved(sizes: Sequence[int], spacings: Sequence[float]) -> list[int]:
    """The axes that are halved next."""
    large = [axis for axis, n in enumerate(sizes) if n >= 2 * LEAST_EDGE]
    finest = min((spacings[axis] for axis in large), default=0.0)
    fine = [axis for axis in large if spacings[axis] < ISOTROPIC * finest]
    return [] if len(fine) == 1 and sizes[fine[0]] < 3 * LEAST_EDGE else fine
