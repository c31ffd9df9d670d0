"""SHA-256 of caches: of all that a file holds and, in large files, of each of its items.

A small file is read and checked whole when it is opened. Of a large one that would take minutes, so it carries the
digest of every item (`/labels_sha256` and `/images_sha256`, (N, 32) bytes), by which an item is checked whenever it is
read, and as attribute `opening_sha256` that of all else, which is checked when the file is opened: the description, the
(N,) arrays, the digest of the whole and those of the items.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import h5py
import numpy as np

from metasynth.data.info import CacheInfo
from metasynth.data.stored import as_text, check_stored, require_own_values
from metasynth.data.validation import ArrayLike, Contents, LabelList, blocks, check_values
from metasynth.errors import DataError

OPENING = "opening_sha256"
ITEMS = ("labels", "images")
_BYTES = 32  # of a SHA-256

Seen = Callable[[str, int, np.ndarray], None]
"""Called with the name of a dataset, the index of the first item and the items (n, *S), in order."""


def content_digest(
    where: str,
    contents: Contents,
    description: Mapping[str, Any],
    listed: LabelList | None = None,
    seen: Seen | None = None,
) -> str:
    """SHA-256 over the arrays and the description, whatever their compression or byte order.

    With ``listed``, values are checked as by `check_contents` in the same pass; ``seen`` is shown what passed.
    """
    digest = _begun(contents, description)
    arrays = {"labels": contents.labels, "images": contents.images, **_short(contents)}
    for name, array in arrays.items():
        if array is None:
            continue
        digest.update(_header(name, array))
        for start, block in blocks(array, where, name):
            if listed is not None:
                check_values(where, name, start, block, listed)
            digest.update(_as_hashed(block))
            if seen is not None:
                seen(name, start, block)
    return digest.hexdigest()


def item_digest(item: np.ndarray) -> np.ndarray:
    """SHA-256 (32,) uint8 of one label map or image (*S), whatever its byte order."""
    return np.frombuffer(hashlib.sha256(_as_hashed(item)).digest(), dtype=np.uint8)


@dataclass(frozen=True)
class ItemDigests:
    """The digests of a large file's items.

    Attributes
    ----------
    arrays : dict of str to numpy.ndarray
        (N, 32) uint8 of "labels" and, where there are any, "images".
    opening : str
        The digest of all that is read when the file is opened, see `opening_of`.
    """

    arrays: dict[str, np.ndarray]
    opening: str

    @classmethod
    def read(cls, file: h5py.File, where: str, contents: Contents) -> Self | None:
        """What an open file carries; None where it carries neither digests of items nor of its opening.

        Raises
        ------
        DataError
            It carries some of them only, or they are of another shape or type.
        """
        keys = {name: f"{name}_sha256" for name in ITEMS if getattr(contents, name) is not None}
        if OPENING not in file.attrs and not any(key in file for key in keys.values()):
            return None
        require_own_values(file, where, keys.values())
        arrays = {name: _read(file, where, key, contents.labels.shape[0]) for name, key in keys.items()}
        return cls(arrays, str(as_text(file.attrs.get(OPENING))))

    def are_as_written(self, contents: Contents, info: CacheInfo) -> bool:
        """Whether all that is read when the file is opened, these among it, has the digest of its opening."""
        return self.opening == opening_of(contents, info.described(), info.digest, self.arrays)

    def has(self, name: str, index: int, item: np.ndarray) -> bool:
        """Whether an item (*S) of "labels" or "images" has its digest."""
        return bool(np.array_equal(item_digest(item), self.arrays[name][index]))


def _read(file: h5py.File, where: str, key: str, n: int) -> np.ndarray:
    dataset = file.get(key)
    if not isinstance(dataset, h5py.Dataset):
        raise DataError(f"{where}: dataset '{key}' is missing")
    if dataset.shape != (n, _BYTES) or dataset.dtype != np.uint8:
        came = f"{dataset.dtype} of shape {dataset.shape}"
        raise DataError(f"{where}: {key} must be uint8 of shape ({n}, {_BYTES}), got {came}")
    check_stored(dataset, where, key, by_slice=False)
    return np.asarray(dataset[:])


def opening_of(contents: Contents, description: Mapping[str, Any], whole: str, items: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of all that is read when a file is opened.

    Parameters
    ----------
    contents : Contents
        Of whose labels and images types and shapes count, and no values.
    description : mapping
        As of `content_digest`.
    whole : str
        What `content_digest` is.
    items : mapping of str to numpy.ndarray
        (N, 32) uint8 of "labels" and, where there are any, "images": `item_digest` of each.
    """
    digest = _begun(contents, description)
    digest.update(f"{whole}\n".encode())
    for name, each in items.items():
        digest.update(_header(name, getattr(contents, name)))
        digest.update(_as_hashed(each))
    for name, array in _short(contents).items():
        if array is not None:
            digest.update(_header(name, array))
            digest.update(_as_hashed(np.asarray(array[:])))
    return digest.hexdigest()


def is_as_written(
    file: h5py.File,
    where: str,
    info: CacheInfo,
    contents: Contents,
    listed: LabelList | None = None,
    seen: Seen | None = None,
) -> bool:
    """Whether an open file has all the digests that it carries; reads everything, ``listed`` and ``seen`` as above."""
    items = ItemDigests.read(file, where, contents)
    opened = items is None or items.are_as_written(contents, info)
    return content_digest(where, contents, info.described(), listed, seen) == info.digest and opened


def _begun(contents: Contents, description: Mapping[str, Any]) -> Any:
    """A SHA-256 of the description so far."""
    header = {**description, "subjects": list(contents.subjects)}
    return hashlib.sha256(json.dumps(header, sort_keys=True, ensure_ascii=False).encode())


def _short(contents: Contents) -> dict[str, ArrayLike | None]:
    """The (N,) arrays by their names in the file."""
    return {"subject": contents.subject, "slice": contents.slice_index, "view": contents.view}


def _header(name: str, array: ArrayLike) -> bytes:
    return f"{name} {array.dtype.newbyteorder('<').str} {tuple(array.shape)}\n".encode()


def _as_hashed(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data
