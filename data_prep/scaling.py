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
