"""Dice per subject and class, counted exactly over a whole split, and the distance between two surfaces."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor


@final
class DiceAccumulator:
    """Counts voxels batch by batch and gives Dice per subject and class.

    Dice = 2 |P and T| / (|P| + |T|), where P and T hold all voxels of a subject, over all its slices, that
    are predicted and truly of a class. It is NaN where a class is in neither (nothing to score; nnU-Net's
    convention too) and 0 where it is in only one. Means leave NaN out.

    Parameters
    ----------
    n_classes : int
        K, background included.
    n_subjects : int
        Number of subjects; `update` takes indices below it.

    Raises
    ------
    ValueError
        When either is too small.
    """

    def __init__(self, n_classes: int, n_subjects: int) -> None:
        if n_classes < 2:
            raise ValueError(f"n_classes: must be at least 2 (background and one more), got {n_classes}")
        if n_subjects < 1:
            raise ValueError(f"n_subjects: must be at least 1, got {n_subjects}")
        self.n_classes = n_classes
        self.n_subjects = n_subjects
        self._overlap = torch.zeros(n_subjects, n_classes, dtype=torch.int64)
        self._predicted = torch.zeros_like(self._overlap)
        self._true = torch.zeros_like(self._overlap)

    def update(self, predicted: Tensor, target: Tensor, subject: Tensor) -> None:
        """Count one batch.

        Parameters
        ----------
        predicted, target : Tensor (B, *S) int64
            Class indices 0..K-1.
        subject : Tensor (B,) int64
            The subject of each item, 0..n_subjects-1.

        Raises
        ------
        ValueError
            When shapes do not match or an index is out of range.
        """
        if predicted.shape != target.shape:
            raise ValueError(
                f"predicted: must have the target's shape {tuple(target.shape)}, got {tuple(predicted.shape)}"
            )
        if subject.shape != target.shape[:1]:
            raise ValueError(f"subject: must have shape {tuple(target.shape[:1])}, got {tuple(subject.shape)}")
        _check_range("predicted", predicted, self.n_classes)
        _check_range("target", target, self.n_classes)
        _check_range("subject", subject, self.n_subjects)
        offset = (subject * self.n_classes).to(target.device).reshape(-1, *[1] * (target.ndim - 1))
        predicted_bins, true_bins = predicted + offset, target + offset
        self._predicted += self._count(predicted_bins)
        self._true += self._count(true_bins)
        self._overlap += self._count(true_bins[predicted == target])

    def result(self) -> NDArray[np.float64]:
        """Dice (n_subjects, K), NaN where a class is in neither prediction nor truth."""
        size = (self._predicted + self._true).numpy()
        overlap = self._overlap.numpy()
        return np.divide(2.0 * overlap, size, out=np.full(size.shape, math.nan), where=size > 0)

    def summary(self, class_names: Sequence[str], subject_names: Sequence[str]) -> dict[str, Any]:
        """Means for a results file; every number is a float, or None where there is nothing to average.

        Parameters
        ----------
        class_names : sequence of K str
            Background first.
        subject_names : sequence of n_subjects str
            In the order of the indices given to `update`.

        Returns
        -------
        dict
            `mean`: over foreground classes (1..K-1) per subject, then over subjects; `sd`: the standard
            deviation of the subjects' means (n - 1 in the denominator); `per_class`: class name -> mean over
            subjects; `per_subject`: subject name -> mean over foreground classes.

        Raises
        ------
        ValueError
            When the numbers of names do not match, or a name is repeated.
        """
        _check_names("class_names", class_names, self.n_classes)
        _check_names("subject_names", subject_names, self.n_subjects)
        dice = self.result()
        per_subject = [mean_of_present(row[1:]) for row in dice]
        return {
            "mean": mean_of_present(per_subject),
            "sd": sd_of_present(per_subject),
            "per_class": dict(zip(class_names, (mean_of_present(column) for column in dice.T), strict=True)),
            "per_subject": dict(zip(subject_names, per_subject, strict=True)),
        }

    def _count(self, bins: Tensor) -> Tensor:
        counts = torch.bincount(bins.reshape(-1), minlength=self.n_subjects * self.n_classes)
        return counts.reshape(self.n_subjects, self.n_classes).cpu()


def hausdorff_distance(
    predicted: NDArray[np.bool_], true: NDArray[np.bool_], spacing: Sequence[float], percentile: float = 95.0
) -> float:
    """Percentile of the distances between the surfaces of two structures, the larger of both directions.

    With dP the distances from every surface voxel of P to the nearest one of T, and dT those of T to P,

        HD = max(percentile(dP), percentile(dT))

    which is the Hausdorff distance for the 100th percentile and less sensitive to single voxels for the 95th (HD95).
    Surface voxels have a face-neighbour outside the structure, or lie at the border of the field; distances are those
    of voxel centres.

    Parameters
    ----------
    predicted, true : array (*S) bool
        The structures.
    spacing : sequence of float
        Distance between voxel centres along each axis, in mm.
    percentile : float
        0 to 100.

    Returns
    -------
    float
        In mm; NaN where both structures are empty, infinite where only one is.

    Raises
    ------
    ValueError
        When shapes do not match, a distance is not above 0, or the percentile is out of range.

    Examples
    --------
    >>> row = np.arange(10)
    >>> hausdorff_distance(row < 4, row < 6, [1.5], percentile=100)  # their ends are two voxels apart
    3.0
    """
    if predicted.shape != true.shape:
        raise ValueError(f"predicted: must have the shape of true, {true.shape}, got {predicted.shape}")
    if len(spacing) != true.ndim or not all(0 < step < math.inf for step in spacing):
        raise ValueError(f"spacing: must be {true.ndim} numbers above 0, got {tuple(spacing)}")
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile: must be from 0 to 100, got {percentile}")
    if not predicted.any() or not true.any():
        return math.nan if predicted.any() == true.any() else math.inf
    surfaces = [_surface(mask) for mask in _boxed(predicted, true)]
    distances = [ndimage.distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    both = (distances[1][surfaces[0]], distances[0][surfaces[1]])
    return max(float(np.percentile(values, percentile)) for values in both)


def _boxed(*masks: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The masks in the box that holds them all; what lies outside is as background as what is beyond the field."""
    box = ndimage.find_objects(np.logical_or.reduce(masks).astype(np.uint8))[0]
    return [mask[box] for mask in masks]


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask & ~ndimage.binary_erosion(mask, border_value=0)


def _check_range(name: str, values: Tensor, bound: int) -> None:
    if values.numel() == 0:
        return
    low, high = (int(value) for value in torch.aminmax(values))
    if low < 0 or high >= bound:
        raise ValueError(f"{name}: must be in 0..{bound - 1}, got {low}..{high}")


def _check_names(name: str, names: Sequence[str], count: int) -> None:
    if len(names) != count or len(set(names)) != count:
        raise ValueError(f"{name}: must be {count} different names, got {list(names)}")


def mean_of_present(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are there, so neither None nor NaN nor infinite; None if none is."""
    present = _present(values)
    return math.fsum(present) / len(present) if present else None


def sd_of_present(values: Iterable[float | None]) -> float | None:
    """Sample standard deviation of the values that are there; None for fewer than two."""
    present = _present(values)
    return float(np.std(present, ddof=1)) if len(present) > 1 else None


def _present(values: Iterable[float | None]) -> list[float]:
    return [float(value) for value in values if value is not None and math.isfinite(value)]
