"""Intensities to a common scale."""

import numpy as np
from numpy.typing import NDArray

from metasynth.errors import DataError

SCALE_PERCENT = (1.0, 99.0)


def scale(
    image: NDArray[np.float32], mask: NDArray[np.bool_], where: str, keep_outside: bool = False
) -> NDArray[np.float32]:
    """Intensities scaled linearly so that the mask's 1 and 99 % quantiles become 0 and 1, cut there.

    Parameters
    ----------
    image : numpy.ndarray
        (*S) any values; those that are not kept do not matter.
    mask : numpy.ndarray
        (*S) the brain.
    where : str
        The file, for messages.
    keep_outside : bool
        Scale what lies outside the mask in the same way, instead of setting it to 0.

    Raises
    ------
    DataError
        A value that is kept is not finite, or the quantiles are equal.
    """
    kept = np.ones_like(mask) if keep_outside else mask
    wrong = ~np.isfinite(image) & kept
    if wrong.any():
        first = tuple(int(n) for n in np.argwhere(wrong)[0])
        raise DataError(
            f"{where}: {int(wrong.sum())} of {int(kept.sum())} voxels are NaN, infinite or beyond single precision, "
            f"first at {first} (oriented to RAS)"
        )
    low, high = np.percentile(image[mask].astype(np.float64), SCALE_PERCENT)
    if not high > low:
        raise DataError(f"{where}: has no contrast, its 1 and 99 % quantiles are both {low:g}")
    out = np.zeros(image.shape, dtype=np.float32)
    out[kept] = np.clip((image[kept] - low) / (high - low), 0.0, 1.0)
    return out


def scale_head(image: NDArray[np.float32], where: str) -> NDArray[np.float32]:
    """Intensities of a whole head scaled linearly as `metasynth.synthesis.intensity.head_ends` says, cut to [0, 1].

    No mask is needed. Scans are scaled like this to learn from and to be segmented, and synthetic heads too.

    Parameters
    ----------
    image : numpy.ndarray
        (*S) any values; those that are not finite are air, of 0 or the least of the others if that is less.
    where : str
        The file, for messages.

    Raises
    ------
    DataError
        All of it is air: every voxel has one value, or is not finite.
    """
    from metasynth.synthesis.intensity import head_ends  # with torch, which nothing else here needs

    finite = np.isfinite(image)
    filled = image if finite.all() else np.where(finite, image, image.min(initial=0.0, where=finite))
    low, high = head_ends(filled.ravel(), _quantile)
    if not high > low:
        raise DataError(f"{where}: shows nothing but air, every voxel is {float(image.flat[0]):g}")
    return np.clip((filled - np.float32(low)) / np.float32(high - low), np.float32(0), np.float32(1))


def _quantile(values: NDArray[np.float32], share: float) -> float:
    return float(np.quantile(values, share))


def not_air(scaled: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Where a head (*S) that `scale_head` has scaled is more than air."""
    from metasynth.synthesis.intensity import AIR

    return scaled > AIR
