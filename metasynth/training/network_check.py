"""Whether images fit an augmenting network."""

from collections.abc import Sequence

from metasynth.augment.residual import check_halvings
from metasynth.data.cache import Cache
from metasynth.errors import DataError, ShapeError


def check_network(cache: Cache, widths: Sequence[int], setting: str) -> None:
    """DataError, which names ``setting``, unless images of the cache fit an augmenting network of ``widths``."""
    try:
        check_halvings(widths, cache.shape)
    except ShapeError as error:
        raise DataError(f"{cache.path}: {error} ({setting})") from error
