"""Probabilistic atlases: how often each class lies at each place, averaged over label maps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self, final

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn.functional import grid_sample

SIGMA_MM, FLOOR = 1.5, 1e-4


@final
@dataclass(frozen=True, eq=False)
class Atlas:
    """Prior probability of each class at each voxel, and how many Gaussians describe each class's intensities.

    Attributes
    ----------
    probabilities : Tensor (K, *S)
        Positive, adding to 1 over the classes; class 0 is the background. S has two or three axes.
    spacing : tuple of float
        Distance in mm between voxel centres along each axis of S.
    gaussians : tuple of K int
        Gaussians of each class.

    Raises
    ------
    ValueError
        When the probabilities are not such, or the tuples do not match them.
    """

    probabilities: Tensor
    spacing: tuple[float, ...]
    gaussians: tuple[int, ...]

    def __post_init__(self) -> None:
        shape = tuple(self.probabilities.shape)
        if len(shape) not in (3, 4) or shape[0] < 2:
            raise ValueError(f"probabilities: must be (K, H, W) or (K, D, H, W) with K of at least 2, got {shape}")
        total = self.probabilities.sum(0)
        if not bool((self.probabilities > 0).all()) or not bool(((total - 1).abs() < 1e-4).all()):
            raise ValueError("probabilities: must be above 0 and add to 1 over the classes at every voxel")
        if len(self.spacing) != len(shape) - 1 or not all(0 < s < float("inf") for s in self.spacing):
            raise ValueError(f"spacing: must be {len(shape) - 1} numbers of mm above 0, got {self.spacing}")
        if len(self.gaussians) != shape[0] or not all(n >= 1 for n in self.gaussians):
            raise ValueError(f"gaussians: must be {shape[0]} numbers of at least 1, one a class, got {self.gaussians}")

    @classmethod
    def from_labels(
        cls,
        labels: Tensor,
        n_classes: int,
        *,
        spacing: Sequence[float] | None = None,
        sigma_mm: float = SIGMA_MM,
        floor: float = FLOOR,
        gaussians: Sequence[int] | None = None,
    ) -> Self:
        """The smoothed average of aligned label maps.

        With y the one-hot maps and G a Gaussian, probabilities = (1 - K floor) G * mean(y) + floor.

        Parameters
        ----------
        labels : Tensor (N, *S), integer
            Class indices 0..K-1 of N people, in one space.
        n_classes : int
            K, background included.
        spacing : sequence of float, or None
            Distance in mm between voxel centres along each axis of S; 1 mm by default.
        sigma_mm : float
            Standard deviation of the Gaussian: the fewer the people, the more of it is needed.
        floor : float
            Least probability, so that no class is ever impossible.
        gaussians : sequence of K int, or None
            Gaussians of each class; 1 each by default. Classes that hold several shades need more: the background of
            an image that is not stripped (air, skull, scalp), say, or white matter with the brain stem.

        Raises
        ------
        ValueError
            When an argument is out of range or the labels are not such.
        """
        _check_labels(labels, n_classes)
        if not 0 <= sigma_mm < float("inf"):
            raise ValueError(f"sigma_mm: must be a number of mm of at least 0, got {sigma_mm}")
        if not 0 < floor < 1 / n_classes:
            raise ValueError(f"floor: must be above 0 and below 1 / n_classes, got {floor}")
        spacing = tuple(float(s) for s in spacing) if spacing is not None else (1.0,) * (labels.ndim - 1)
        if len(spacing) != labels.ndim - 1:
            raise ValueError(f"spacing: must be {labels.ndim - 1} numbers of mm, got {spacing}")
        maps = labels.cpu().numpy()
        average = np.stack([(maps == k).mean(axis=0) for k in range(n_classes)])
        smooth = torch.from_numpy(_smoothed(average, sigma_mm, spacing))
        return cls(
            (1 - n_classes * floor) * smooth + floor,
            spacing,
            tuple(gaussians) if gaussians is not None else (1,) * n_classes,
        )

    @property
    def n_classes(self) -> int:
        """K."""
        return int(self.probabilities.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """S."""
        return tuple(self.probabilities.shape[1:])

    def to(self, like: Tensor) -> Self:
        """The atlas on the device and in the precision of a tensor."""
        return replace(self, probabilities=self.probabilities.to(like))

    def smoothed(self, sigma_mm: float) -> Self:
        """The atlas after one more Gaussian, of standard deviation `sigma_mm`; beyond its edge all is as there."""
        if sigma_mm == 0:
            return self
        smooth = _smoothed(self.probabilities.cpu().numpy(), sigma_mm, self.spacing)
        return replace(self, probabilities=torch.from_numpy(smooth).to(self.probabilities))

    def centroid(self) -> Tensor:
        """Centre of mass (len(S),) of all classes but the background, mm from the middle of the grid."""
        weight = 1 - self.probabilities[0]
        axes = [s * (torch.arange(n).to(weight) - (n - 1) / 2) for n, s in zip(self.shape, self.spacing, strict=True)]
        grids = torch.meshgrid(*axes, indexing="ij")
        return torch.stack([(weight * grid).sum() for grid in grids]) / weight.sum()

    def at(self, points: Tensor) -> Tensor:
        """Probabilities (K, P) at points (P, len(S)), mm from the middle of the grid.

        Linear interpolation, differentiable in the points; beyond the edge as at the edge.
        """
        half = points.new_tensor([s * (n - 1) / 2 for n, s in zip(self.shape, self.spacing, strict=True)])
        scaled = (points / half.clamp(min=1e-6)).flip(-1)  # grid_sample wants the last axis first
        grid = scaled.reshape(1, *[1] * (len(self.shape) - 1), *scaled.shape)
        found = grid_sample(self.probabilities[None], grid, padding_mode="border", align_corners=True)
        return found.reshape(self.n_classes, -1)


def plane_atlases(
    labels: Tensor,
    positions: Sequence[float] | np.ndarray,
    planes: int,
    n_classes: int,
    *,
    spacing: Sequence[float] | None = None,
    sigma_mm: float = SIGMA_MM,
    floor: float = FLOOR,
    gaussians: Sequence[int] | None = None,
) -> tuple[Atlas, ...]:
    """Atlases of slices: one for each of several ranges of position, each from about as many label maps.

    Parameters
    ----------
    labels : Tensor (N, H, W), integer
        Slices of aligned people.
    positions : sequence of N float
        Where each lies along the slicing axis, in any unit.
    planes : int
        Number of ranges; some may be left out where many slices have one position.
    n_classes, spacing, sigma_mm, floor, gaussians
        Of `Atlas.from_labels`.

    Raises
    ------
    ValueError
        When an argument is out of range or the labels are not such.
    """
    where = np.asarray(positions, dtype=float)
    if where.shape != (len(labels),):
        raise ValueError(f"positions: must be {len(labels)} numbers, one a label map, got shape {where.shape}")
    if not 1 <= planes <= len(labels):
        raise ValueError(f"planes: must be 1 to {len(labels)}, the number of label maps, got {planes}")
    bounds = np.quantile(where, np.arange(1, planes) / planes)
    found = np.searchsorted(bounds, where, side="right")
    return tuple(
        Atlas.from_labels(
            labels[torch.from_numpy(np.flatnonzero(found == plane))],
            n_classes,
            spacing=spacing,
            sigma_mm=sigma_mm,
            floor=floor,
            gaussians=gaussians,
        )
        for plane in np.unique(found)
    )


def _smoothed(maps: np.ndarray, sigma_mm: float, spacing: tuple[float, ...]) -> np.ndarray:
    """Maps (K, *S) smoothed along S; sums over K stay as they are."""
    return gaussian_filter(maps, (0.0, *[sigma_mm / s for s in spacing]), mode="nearest")


def _check_labels(labels: Tensor, n_classes: int) -> None:
    if n_classes < 2:
        raise ValueError(f"n_classes: must be at least 2 (background and one more), got {n_classes}")
    if labels.ndim not in (3, 4) or not labels.shape[0]:
        raise ValueError(f"labels: must be (N, H, W) or (N, D, H, W), got {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels: must be of an integer dtype, got {labels.dtype}")
    low, high = (int(value) for value in torch.aminmax(labels))
    if low < 0 or high >= n_classes:
        raise ValueError(f"labels: must be in 0..{n_classes - 1}, got {low}..{high}")
