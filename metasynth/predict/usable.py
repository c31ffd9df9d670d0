"""What scans can be segmented, and by which models: what is refused with a line, so that nothing is made of nothing."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from metasynth.data_prep.scaling import SCALE_PERCENT
from metasynth.data_prep.volumes.memory import require_memory
from metasynth.data_prep.volumes.resample import grid_of, resample_ids
from metasynth.data_prep.volumes.volumes import Volume, check_affine, matched
from metasynth.errors import DataError, UsageError
from metasynth.predict.geometry import stack_orientation
from metasynth.segment.model_description import ModelDescription, TrainedModel
from metasynth.text import by

AIR_HU, AIR_SPREAD, AIR_SHARE = -1000.0, 50.0, 0.05
SOFT_HU, SOFT_SHARE = 150.0, 0.2  # about 0 lie fat, brain and muscle, which are most of a head
LEAST_CORRELATION = 0.2  # of neighbours; of noise it is 0, of scans above .8
VOXELS = 1 << 20  # that are enough to tell
LEAST_INSIDE = 0.5
LEAST_BRAIN = 0.1  # of what is usual
THICK = 2.5  # times the spacing that a model was trained on
FEW_PLANES = 16


def check_usable(model: TrainedModel) -> None:
    """Require a model whose preprocessing is done here.

    Raises
    ------
    DataError
        It needs images of another kind.
    """
    description = model.description
    for view in description.views:
        stack_orientation(view)
    if tuple(description.percentiles) != SCALE_PERCENT:
        raise DataError(f"the model scales by the {description.percentiles} %, this version by {SCALE_PERCENT}")
    if model.in_channels != 1:
        raise DataError(f"the model takes images of {model.in_channels} channels, expected 1")


def check_together(models: Mapping[str, TrainedModel]) -> None:
    """Require models whose posteriors have a mean: of the same classes, and all for heads or all for brains.

    Parameters
    ----------
    models : mapping of str to TrainedModel
        By what they were given as.

    Raises
    ------
    UsageError
        Two of them do not go together.
    """
    (first, one), *others = models.items()
    for name, other in others:
        mine, its = (", ".join(model.description.class_names) for model in (one, other))
        if mine != its:
            raise UsageError(f"--model {name}: expected the classes of {first} ({mine}), got {its}")
        if one.description.takes_heads != other.description.takes_heads:
            kinds = ("heads", "brains") if one.description.takes_heads else ("brains", "heads")
            raise UsageError(f"--model {name}: expected a model of {kinds[0]} as {first} is, got one of {kinds[1]}")


def foreground(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where an image (X, Y, Z) is not background: a value, 0 or NaN mostly, that half of its outermost voxels have.

    Everywhere, if there is no such value.
    """
    faces = np.concatenate([image.take(at, axis).ravel() for axis in range(3) for at in (0, -1)])
    values, counts = np.unique(faces, return_counts=True)
    if 2 * counts.max() < faces.size:
        return np.ones(image.shape, dtype=bool)
    background = values[counts.argmax()]
    return ~np.isnan(image) if np.isnan(background) else image != background


def require_mr(image: Volume) -> None:
    """Refuse CT: a twentieth of the voxels or more have the Hounsfield units of air, and of others many those of
    soft tissue. An MR scan with an offset of -1000 has the former alone.

    Raises
    ------
    DataError
        Which names the scan.
    """
    count = np.count_nonzero(np.abs(image.data - AIR_HU) < AIR_SPREAD)
    soft, air = np.count_nonzero(np.abs(image.data) < SOFT_HU), count / image.data.size
    if air >= AIR_SHARE and soft > SOFT_SHARE * (image.data.size - count):
        raise DataError(
            f"{image.where}: looks like CT ({air:.0%} of its voxels are within {AIR_SPREAD:g} of {AIR_HU:g}, as air in "
            "Hounsfield units); expected an MR scan"
        )


def require_head(image: Volume) -> None:
    """Refuse air or noise alone, in which neighbours have nothing in common; one value throughout passes.

    Raises
    ------
    DataError
        Which names the scan.
    """
    alike = max(_neighbours(np.nan_to_num(image.data, posinf=0, neginf=0), axis) for axis in range(3))
    if alike < LEAST_CORRELATION:
        raise DataError(
            f"{image.where}: shows nothing but air or noise, as neighbouring voxels have nothing in common "
            f"(correlation {alike:.2f}); expected a head"
        )


def _neighbours(data: NDArray[np.float32], axis: int) -> float:
    """Correlation of the voxels of a volume with the next along an axis: 1 without contrast, -1 where none is next."""
    n = data.shape[axis]
    if n < 2:
        return -1.0
    lines = np.moveaxis(data, axis, 0)
    step = math.ceil(math.sqrt(data.size / VOXELS))  # of the lines, as neighbours say the same
    lines = lines[:, ::step, ::step]
    first, second = (lines[start : start + n - 1].ravel().astype(np.float64) for start in (0, 1))
    spread = first.std() * second.std()
    if not spread > 0:
        return 1.0
    return float(((first - first.mean()) * (second - second.mean())).mean() / spread)


def mask_on_grid_of(image: Volume, mask: Volume, seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask on the image's grid, by the nearest voxel where it has another.

    Parameters
    ----------
    image, mask : Volume
        Any two.
    seen : numpy.ndarray
        (X, Y, Z) where the image is not background.

    Raises
    ------
    DataError
        None of it lies in the image's field, or most of it where the image is background.
    """
    check_affine(mask, allow_shear=True)
    found = matched(mask, image)
    inside = found.data > 0 if found is not None else resample_ids(mask, grid_of(image)) > 0
    if not inside.any():
        raise DataError(f"{mask.where}: no voxel of the mask lies in the field of {image.where}")
    most = min(np.count_nonzero(inside), np.count_nonzero(seen))
    if most and np.count_nonzero(inside & seen) < LEAST_INSIDE * most:
        where = f"most of the mask lies where {image.where} is background"
        raise DataError(f"{mask.where}: {where}; is it of another scan?")
    return inside


def require_brain(
    posteriors: NDArray[np.floating],
    head: NDArray[np.bool_],
    share: float,
    allowed: NDArray[np.bool_] | None,
    image: Volume,
    mask: Volume | None,
) -> None:
    """Refuse a head in which a network finds no brain, or most of it outside of the mask.

    Parameters
    ----------
    posteriors : numpy.ndarray
        (K, D, H, W) of a window, background first.
    head : numpy.ndarray
        (D, H, W) what is not air.
    share : float
        Of it, what is brain in a head as the network has seen them; less than a tenth of that is none.
    allowed : numpy.ndarray or None
        (D, H, W) where the mask is, if there is one.
    image, mask : Volume
        For messages.

    Raises
    ------
    DataError
        Which names the scan, or the mask.
    """
    found = posteriors[0] < posteriors[1:].max(axis=0)
    count = int(np.count_nonzero(found))
    taken = count / max(1, int(np.count_nonzero(head)))
    if not count or taken < LEAST_BRAIN * share:
        raise DataError(
            f"{image.where}: no brain is found in it ({taken:.2%} of the head, {share:.0%} in those that the model has "
            "seen); expected a head with one"
        )
    if allowed is not None and mask is not None:
        inside = np.count_nonzero(found & allowed) / count
        if inside < LEAST_INSIDE:
            raise DataError(
                f"{mask.where}: {inside:.0%} of the brain that is found in {image.where} lies in the mask; is it of "
                "another scan?"
            )


def coarse(image: Volume, description: ModelDescription) -> str:
    """What is said of a scan that shows less than a model has seen: thick or few planes; empty of others."""
    finest = max(description.spacing_mm)
    for letter, n, size in zip("xyz", image.data.shape, image.spacing, strict=True):
        if size > THICK * finest or n < FEW_PLANES:
            return (
                f"{n} planes of {size:.3g} mm along {letter}, where the model has seen voxels of {finest:g} mm: expect "
                "errors"
            )
    return ""


def require_room(window: tuple[int, ...], own: tuple[int, ...], classes: int, keep: bool, where: str) -> None:
    """Raise `DataError` where the memory cannot hold a window's posteriors, and the scan's if they are kept."""
    voxels = math.prod(window) + (math.prod(own) if keep else 0)
    require_memory(4 * classes * voxels, f"{where}: a posterior of {classes} classes for {by(window)} voxels")
