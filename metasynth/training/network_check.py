"""Whether the images of a cache fit the networks that are to be given them, or patches of them."""

from collections.abc import Sequence

from metasynth.augment.residual import check_halvings
from metasynth.data.cache import Cache
from metasynth.errors import DataError, ShapeError, UsageError
from metasynth.text import by
from metasynth.training.segmenter_settings import SegmenterSettings


def check_network(cache: Cache, widths: Sequence[int], setting: str, patch: Sequence[int] = ()) -> None:
    """DataError, which names ``setting``, unless images of the cache fit an augmenting network of ``widths``.

    Of a ``patch`` that is not empty UsageError, unless that fits.
    """
    if patch:
        try:
            check_halvings(widths, patch)
        except ShapeError as error:
            raise UsageError(f"segmenter.patch_size: {error} ({setting})") from error
    try:
        check_halvings(widths, cache.shape)
    except ShapeError as error:
        raise DataError(f"{cache.path}: {error} ({setting})") from error


def check_segmenter(cache: Cache, segmenter: SegmenterSettings) -> None:
    """Require that the segmenter can be given images of the cache, or patches of them.

    Raises
    ------
    DataError
        If images of its shape cannot go through, or it is to be patches and it has slices, or smaller volumes.
    UsageError
        If patches cannot go through, or the network cannot be made.
    """
    window = segmenter.window
    if window and cache.info.axis != "volume":
        raise DataError(
            f"{cache.path}: holds {cache.info.axis} slices; segmenter.patch_size = {by(window)} is of volumes: prepare "
            "them with --3d, or leave patch_size empty"
        )
    if window and any(n > size for n, size in zip(window, cache.shape, strict=True)):
        raise DataError(
            f"{cache.path}: its volumes of {by(cache.shape)} are smaller than segmenter.patch_size = {by(window)}"
        )
    try:
        segmenter.check_images(cache.n_classes, window or cache.shape, cache.info.spacing_mm)
    except ShapeError as error:
        if window:
            raise UsageError(f"segmenter.patch_size: {error}") from error
        raise DataError(f"{cache.path}: {error}") from error


def require_cache(segmenter: SegmenterSettings, command: str) -> None:
    """UsageError, which names a ``command`` of `metasynth prep`, if the embedded cohorts do not serve."""
    if segmenter.window:
        raise UsageError(
            f"segmenter.patch_size = {by(segmenter.window)} needs --data, a cache of volumes, as what is embedded are "
            f"slices: metasynth prep {command} --3d --spacing 3 --out volumes.h5"
        )
