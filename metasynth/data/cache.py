"""Reading the HDF5 cache of labelled slices or volumes; `schema` describes the format, `writer` makes one."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from metasynth.data.digests import Seen, is_as_written
from metasynth.data.opening import open_checked, require_unchanged, verify_digest
from metasynth.data.schema import FORMAT, VERSIONS, CacheInfo, damage_named, open_readonly, read_contents
from metasynth.data.stored import as_text
from metasynth.data.validation import check_values as require_values
from metasynth.data.writer import write_cache
from metasynth.errors import DataError
from metasynth.files import first_line
from metasynth.lines import logger

_LOG = logger(__name__)

__all__ = ["FORMAT", "VERSIONS", "Cache", "CacheInfo", "verify_digest", "write_cache"]


class Cache:
    """A cache opened for reading.

    The file is opened once per process: a copy that was pickled or inherited by a fork opens its own handle. It is only
    ever read, and neither locked nor marked: any number of processes read one at a time.

    Labels and images are checked when they are read. A large file carries a digest of each (see
    `metasynth.data.digests`), by which one that was changed is refused then; opening one reads no label and no image.

    Parameters
    ----------
    path : str or Path
        The file.
    check_values : bool
        Of a file without such digests, also read every label and image at once and check their values. The structure
        is always checked.
    check_digest : bool
        Check that the content has the digests that the file carries: of one without digests of its items with the
        values, else of what is read.

    Attributes
    ----------
    path : str or Path
        The file.
    info : CacheInfo
        What the file says about itself.
    n : int
        Number of slices or volumes, N.
    shape : tuple of int
        Spatial shape, S.
    class_names : tuple of str
        Names of the K classes.
    generation_names : tuple of str
        Names of the G generation labels, from which images are synthesised: the classes, where the file has no others.
    target : numpy.ndarray
        (G,) int64, the class that each generation label is part of.
    subjects : tuple of str
        Names of the subjects.
    subject_index : numpy.ndarray
        (N,) int64, index into `subjects`.
    slice_index : numpy.ndarray
        (N,) int64, index along the slicing axis.
    view : numpy.ndarray or None
        (N,) int64, index into the slicing axes (`CacheInfo.axes`); None where there is one.
    has_images : bool
        Whether the cache holds images.
    bytes_per_item : int
        Size in memory of one label map and its image, as stored.

    Raises
    ------
    DataError
        The file cannot be opened, is of another format, or its contents are not valid.
    """

    def __init__(self, path: str | Path, *, check_values: bool = True, check_digest: bool = True) -> None:
        self.path = Path(path)
        self._closed = False
        self._handle: h5py.File | None = None
        self._pid = -1
        file, self.info, contents, self._items = open_checked(self.path, check_values, check_digest)
        try:
            with damage_named(str(self.path)):
                self.subject_index = np.asarray(contents.subject[:], dtype=np.int64)
                self.slice_index = np.asarray(contents.slice_index[:], dtype=np.int64)
                self.view = None if contents.view is None else np.asarray(contents.view[:], dtype=np.int64)
        except BaseException:
            file.close()
            raise
        self.n = int(contents.labels.shape[0])
        self.shape = tuple(int(n) for n in contents.labels.shape[1:])
        self.class_names = self.info.class_names
        self.generation_names = self.info.stored.names
        self.target = np.array(self.info.target or range(self.n_classes), dtype=np.int64)
        self.subjects = contents.subjects
        self.has_images = contents.images is not None
        self.bytes_per_item = int(np.prod(self.shape)) * sum(
            array.dtype.itemsize for array in (contents.labels, contents.images) if array is not None
        )
        self._handle, self._pid = file, os.getpid()
        _LOG.debug("%s: opened, %d items of %s", self.path, self.n, " x ".join(map(str, self.shape)))

    def is_as_written(self, seen: Seen | None = None) -> bool:
        """Read and check everything, at most 32 MB at a time; whether it has all the digests that the file carries.

        Parameters
        ----------
        seen : callable or None
            Shown what passed, see `metasynth.data.digests`.

        Raises
        ------
        DataError
            A value is not valid, or the file cannot be read any more.
        """
        where, file = str(self.path), self._file()
        with damage_named(where):
            info, contents = read_contents(file, where)
            return is_as_written(file, where, info, contents, info.stored, seen)

    @property
    def n_classes(self) -> int:
        """Number of classes, K."""
        return len(self.class_names)

    @property
    def generation_classes(self) -> tuple[str, ...]:
        """(G,) name of the class that each generation label is part of."""
        return tuple(self.class_names[k] for k in self.target)

    @property
    def n_generation(self) -> int:
        """Number of generation labels, G; K where the file has no others than the classes."""
        return len(self.generation_names)

    def read_labels(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Classes (B, *S) int64 of the given items, in the given order.

        Raises
        ------
        DataError
            As `read_structures`.
        """
        structures = self.read_structures(indices)
        return self.target[structures] if self.info.has_generation else structures

    def read_structures(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Generation labels (B, *S) int64 of the given items, in the given order; `target` of them are the classes.

        Raises
        ------
        DataError
            An index is out of range, or the file cannot be read any more.
        """
        return self._read("labels", indices).astype(np.int64)

    def read_images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Images (B, *S) float32 in [0, 1] of the given items, in the given order.

        Raises
        ------
        DataError
            The cache holds labels only, an index is out of range, or the file cannot be read any more.
        """
        if not self.has_images:
            raise DataError(f"{self.path}: holds labels only; images were asked for")
        return self._read("images", indices).astype(np.float32)

    def read_stored(self, name: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Items of dataset "labels" or "images" (B, *S) in the type they are stored in.

        Raises
        ------
        DataError
            An index is out of range, or the file cannot be read any more.
        """
        return self._read(name, indices)

    def close(self) -> None:
        """Close this process's handle; reading afterwards raises `DataError`."""
        self._closed = True
        handle, self._handle = self._handle, None
        if handle is not None and self._pid == os.getpid():
            handle.close()

    def _read(self, name: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self.n):
            bad = int(wanted[(wanted < 0) | (wanted >= self.n)][0])
            raise DataError(f"{self.path}: index {bad} is out of range; 0 to {self.n - 1} are allowed")
        dataset = self._file()[name]
        out = np.empty((wanted.size, *self.shape), dtype=dataset.dtype)
        for row, index in enumerate(wanted.tolist()):
            try:
                out[row] = dataset[index]
            except OSError as error:
                raise DataError(
                    f"{self.path}: dataset '{name}' is damaged: slice {index} cannot be read ({first_line(error)})"
                ) from error
            require_values(str(self.path), name, index, out[row : row + 1], self.info.stored)
            if self._items is not None:
                same = self._items.has(name, index, out[row])
                require_unchanged(same, str(self.path), f"{name} of slice {index} no longer have")
        return out

    def _file(self) -> h5py.File:
        """The handle of the running process, opened when the one at hand belongs to another process."""
        if self._closed:
            raise DataError(f"{self.path}: this cache was closed and cannot be read any more")
        if self._handle is None or self._pid != os.getpid():
            if self._handle is not None:
                self._handle.close()  # a copy inherited by a fork: this does not touch the parent's
                self._handle = None
            file = open_readonly(self.path)
            if as_text(file.attrs.get("digest")) != self.info.digest:
                file.close()
                raise DataError(f"{self.path}: the file was replaced by another one while it was in use")
            self._handle, self._pid = file, os.getpid()
        return self._handle

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None, "_pid": -1}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
