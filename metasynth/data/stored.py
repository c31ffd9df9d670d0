"""How the datasets of a cache lie in its file: values of its own, all there, and no more at once than memory holds."""

import math
from collections.abc import Iterable
from typing import Any

import h5py

from metasynth.errors import DataError, UsageError
from metasynth.sizes import require_memory
from metasynth.text import by


def require_own_values(file: h5py.File, where: str, names: Iterable[str]) -> None:
    """Refuse datasets whose values are not in the file: a cache of somebody else must not read other files of mine.

    Raises
    ------
    DataError
        A dataset is a link, or has its values elsewhere.
    """
    for name in names:
        links, key = file.id.links, name.encode()
        if not links.exists(key):  # unlike `in`, this follows no link
            continue
        if links.get_info(key).type != h5py.h5l.TYPE_HARD:
            raise DataError(f"{where}: dataset '{name}' is a link; expected its values in this file")
        found = file[name]
        if isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
            raise DataError(f"{where}: dataset '{name}' has its values in other files; expected them in this file")


def check_stored(dataset: h5py.Dataset, where: str, name: str, by_slice: bool) -> None:
    """Require, before anything is read, that what is read at once fits into memory, and that the file holds it all.

    Raises
    ------
    DataError
        It does not.
    """
    if dataset.shape is None:
        raise DataError(f"{where}: dataset '{name}' has no shape")
    at_once = dataset.shape[1:] if by_slice else dataset.shape
    what = f"dataset '{name}' claims {'a slice' if by_slice else 'an array'} of {by(at_once) or 1}, which"
    try:
        require_memory(math.prod(at_once) * dataset.dtype.itemsize, what, where)
    except UsageError as error:
        raise DataError(str(error)) from error
    if dataset.size and not dataset.id.get_storage_size():
        raise DataError(f"{where}: dataset '{name}' claims {by(dataset.shape) or 1} values and holds none")
    if dataset.chunks is not None:
        claimed = math.prod(-(-n // chunk) for n, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        held = dataset.id.get_num_chunks()
        if held < claimed:
            raise DataError(f"{where}: dataset '{name}' is incomplete: holds {held} of its {claimed} chunks")


def as_text(value: Any) -> str | None:
    """A text attribute as str, None when it is something else."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(value) if isinstance(value, str) else None
