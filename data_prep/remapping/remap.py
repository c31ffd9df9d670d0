"""REMAPPED images: those of a cache, with another contrast.

Not scans, though their anatomy is that of scans: intensities go through a curve (see `curves`), voxel by voxel.
Everything says so: the descriptions in the cache, its picture, and the reports on what was tested on it. People,
slices, labels and generation labels stay, so a split by subjects divides both caches alike.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from metasynth.data_prep.remapping.curves import Curve
from metasynth.data_prep.scaling import not_air
from numpy.typing import NDArray

from metasynth import __version__
from metasynth.data.cache import Cache, write_cache
from metasynth.data.info import REMAPPED, CacheInfo
from metasynth.errors import DataError
from metasynth.interrupts import check
from metasynth.sizes import require_memory


def remap(
    images: NDArray[np.floating], labels: NDArray[np.integer], curve: Curve, head: bool = False
) -> NDArray[np.floating]:
    """Images under a curve: y = f(x) inside, 0 elsewhere.

    Inside is what has a label or an intensity above 0. So fluid that no class names, and the head of scans that were
    not stripped, have the new contrast too, and what scaling has cut to 0 within a labelled structure is no hole. All
    else is 0 before and after: what was stripped off, air and bone. In a whole head, whose air is noise, what is not
    air takes the place of what is above 0.

    Noise goes along, times the slope of the curve. Mixtures of tissues do too: where the curve is no straight line
    between two tissues, a voxel that holds both gets what lies between them on the curve, not the mean of what they
    have become.

    Parameters
    ----------
    images : numpy.ndarray
        (*S) floats in [0, 1].
    labels : numpy.ndarray
        (*S) labels as stored: generation labels where there are any, else classes; 0 is background.
    curve : Curve
        f.
    head : bool
        Whether whole heads are shown.

    Returns
    -------
    numpy.ndarray
        (*S) in [0, 1], of the type of ``images``.
    """
    x, y = np.array(curve.points).T
    inside = (labels > 0) | (not_air(images) if head else images > 0)
    return np.where(inside, np.interp(images, x, y), 0.0).astype(images.dtype)


def remap_cache(
    path: Path, out: Path, curve: Curve, progress: Callable[[int, int], None] | None = None
) -> tuple[int, ...]:
    """Write the cache of the same people whose images are remapped; returns the shape (N, *S) of its images.

    Images keep the type that they are stored in. ``source`` keeps all that it says, notices and licences too.

    Raises
    ------
    DataError
        The cache is not valid or has no images, or the new one cannot be written.
    UsageError
        It does not fit into memory.
    Interrupted
        The process was asked to end; nothing is written then.
    """
    with Cache(path) as cache:
        if not cache.has_images:
            raise DataError(f"{path}: holds labels only; prep remap needs images, as prep nifti makes them")
        require_memory(cache.n * cache.bytes_per_item, f"a copy of its {cache.n} items", str(path))
        labels, images = (cache.read_stored(name, range(cache.n)) for name in ("labels", "images"))
        for item in range(cache.n):
            check()
            images[item] = remap(images[item], labels[item], curve, cache.info.shows_heads)
            if progress is not None:
                progress(item + 1, cache.n)
        write_cache(
            out,
            labels=labels,
            images=images,
            subject=cache.subject_index,
            subjects=cache.subjects,
            slice_index=cache.slice_index,
            view=cache.view,
            info=_described(cache.info, curve),
        )
        return (cache.n, *cache.shape)


def _described(info: CacheInfo, curve: Curve) -> CacheInfo:
    said = (
        f"{REMAPPED} images, not scans: what is not background went through the curve {curve.said}. "
        f"Made from the cache of digest {info.digest}: "
    )
    return replace(
        info,
        mapping=f"{REMAPPED}; {info.mapping}",
        source=said + info.source,
        created_by=f"metasynth {__version__} prep remap",
    )
