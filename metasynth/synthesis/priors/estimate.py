"""The intensities of structures, estimated robustly from labelled images of a few people."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from metasynth.errors import DataError
from metasynth.synthesis.priors.field import log_field
from metasynth.synthesis.priors.structure_priors import EROSIONS, Prior, StructurePriors, average

# Of a person; with fewer voxels left, less is taken off.
LEAST_VOXELS = 50
# Of a person; fewer say nothing of a texture.
LEAST_TEXTURE = 10
# Median absolute deviation to standard deviation, of many normal values.
_NORMAL = 1.4826
# The same of 2 to 9 values, times the above (Croux and Rousseeuw, Computational Statistics 1 (1992) 411).
_FEW = (1.196, 1.495, 1.363, 1.206, 1.200, 1.140, 1.129, 1.107)

Array = NDArray[Any]


@final
@dataclass(frozen=True, eq=False)
class Estimate:
    """What was estimated, and from what values of each person.

    Attributes
    ----------
    priors : StructurePriors
    medians : numpy.ndarray
        (P, G) median intensity of each person's structures, without the field; NaN where a person has none.
    fields : numpy.ndarray
        (P,) standard deviation of the logarithm of each person's field over the brain.
    """

    priors: StructurePriors
    medians: Array
    fields: Array


class _Seen(NamedTuple):
    """One structure of one person."""

    median: float
    texture: float
    voxels: int
    erosion: int
    cut: int


def estimate_priors(people: Iterable[tuple[Array, Array]], names: Sequence[str], classes: Sequence[str]) -> Estimate:
    """Mean, spread and texture of every generation label.

    Each person's images are first divided by their bias field, whose geometric mean over the brain is 1 (see
    `metasynth.synthesis.priors.field.log_field`). Of each person and structure these are then taken: the median m and
    the texture t = 1.4826 MAD of the voxels that partial volume leaves alone, whose neighbours are of the structure
    too. Where that leaves fewer than 50, neighbours with a common face suffice, and in structures that are smaller
    still all voxels count. Over people, the mean is the median of m, at most 1, and the texture that of t, of people
    with at least 10 voxels. The spread is 1.4826 MAD of m, times the factor that makes this unbiased for few normal
    values (see `spread_of`); of one person there is none.

    A structure of which more than half of the voxels that count, all people's together, lie at an end of the scale was
    cut there: how bright it is beyond, and how rough, nobody shows.

    What nobody shows, be it a structure, its spread or its texture, is that of its class: the mean of those of its
    structures, by their voxels, or of all structures where nobody shows its class. A spread that nobody at all shows,
    as when there is one person, is 0; so are label 0 and what has its class, where nobody shows that.

    Parameters
    ----------
    people : iterable of tuple (numpy.ndarray, numpy.ndarray)
        Of each person images (N, *S) in [0, 1] and generation labels (N, *S), 0..G-1.
    names, classes : sequence of str
        (G,) the generation labels, and the class that each is part of.

    Raises
    ------
    DataError
        (a ValueError) when there is nobody, or images and labels have different shapes.
    """
    found = [_of_person(images, labels, len(names)) for images, labels in people]
    if not found:
        raise DataError("people: expected at least 1, got none")
    seen, strengths = zip(*found, strict=True)
    each = [[one[label] for one in seen if label in one] for label in range(len(names))]
    voxels = [sum(one.voxels for one in of) for of in each]
    cut = [2 * sum(one.cut for one in of) > own for of, own in zip(each, voxels, strict=True)]
    rows = [_over_people(*of) for of in zip(each, cut, strict=True)]
    columns = [_completed([row[at] for row in rows], voxels, classes) for at in range(3)]
    erosions = [EROSIONS[max((one.erosion for one in of), default=-1)] for of in each]
    fields = zip(names, classes, *columns, map(len, each), voxels, erosions, cut, strict=True)
    medians = [[one[label].median if label in one else np.nan for label in range(len(names))] for one in seen]
    return Estimate(StructurePriors(tuple(Prior(*field) for field in fields)), np.array(medians), np.array(strengths))


def spread_of(values: Sequence[float]) -> float:
    """Standard deviation of normal values, robustly: 1.4826 MAD times a factor that makes it unbiased for few.

    The factors are those of Croux and Rousseeuw (Computational Statistics 1 (1992) 411); of n > 9 values n / (n - 0.8).

    Parameters
    ----------
    values : sequence of float
        One of each person; NaN of fewer than 2.
    """
    n = len(values)
    if n < 2:
        return math.nan
    factor = _FEW[n - 2] if n <= len(_FEW) + 1 else n / (n - 0.8)
    return factor * _deviation(np.array(values))


def _deviation(values: Array) -> float:
    return float(_NORMAL * np.median(np.abs(values - np.median(values))))


def _of_person(images: Array, labels: Array, n_labels: int) -> tuple[dict[int, _Seen], float]:
    """What a person shows of each label but 0, without the field, and the strength of that."""
    if images.shape != labels.shape:
        raise DataError(f"images: must have the shape of the labels, {labels.shape}, got {images.shape}")
    masks = _masks(labels)
    field = log_field(images, labels, masks[0])
    without, cut = images / np.exp(field), (images <= 0) | (images >= 1)
    sizes = np.bincount(labels.ravel(), minlength=n_labels)
    of = {label: _of_structure(without, cut, labels == label, masks) for label in range(1, n_labels) if sizes[label]}
    return of, float(field[labels > 0].std()) if of else 0.0


def _masks(labels: Array) -> list[Array]:
    """Where each erosion leaves a voxel, (N, *S) bool; beyond the edge of an image its labels go on."""
    axes = range(1, labels.ndim)
    low = high = labels
    faces = np.ones(labels.shape, bool)
    for axis in axes:
        along = minimum_filter1d(labels, 3, axis, mode="nearest"), maximum_filter1d(labels, 3, axis, mode="nearest")
        faces &= along[0] == along[1]
        low = minimum_filter1d(low, 3, axis, mode="nearest")
        high = maximum_filter1d(high, 3, axis, mode="nearest")
    return [low == high, faces, np.ones(labels.shape, bool)]


def _of_structure(images: Array, cut: Array, own: Array, masks: Sequence[Array]) -> _Seen:
    candidates = (own & mask for mask in masks)
    erosion, counted = next(
        (at, mask) for at, mask in enumerate(candidates) if mask.sum() >= LEAST_VOXELS or at == len(masks) - 1
    )
    values = images[counted].astype(np.float64)
    texture = _deviation(values) if len(values) >= LEAST_TEXTURE else math.nan
    return _Seen(float(np.median(values)), texture, len(values), erosion, int(cut[counted].sum()))


def _over_people(seen: Sequence[_Seen], cut: bool) -> tuple[float, float, float]:
    """Mean, spread and texture of one label; NaN of what nobody shows."""
    medians, textures = [one.median for one in seen], [one.texture for one in seen if not math.isnan(one.texture)]
    mean = min(_median(medians), 1.0)  # full scale, which what lies where the field is weak may be beyond without it
    return mean, math.nan if cut else spread_of(medians), math.nan if cut else _median(textures)


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan


def _completed(values: Sequence[float], voxels: Sequence[int], classes: Sequence[str]) -> list[float]:
    """The values of all labels, with those that nobody shows."""
    shown = [label for label, value in enumerate(values) if not math.isnan(value)]
    found = list(values)
    for label, own in enumerate(classes):
        if label not in shown:
            peers = [other for other in shown if classes[other] == own]
            if not peers and (voxels[label] or own != classes[0]):
                peers = shown
            found[label] = average([values[peer] for peer in peers], [voxels[peer] for peer in peers])
    return [0.0, *found[1:]]
