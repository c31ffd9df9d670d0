"""Reading the HDF5 cache of labelled slices or volumes; `schema` describes the format, `writer` makes one."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from metasynth.data.schema import (
    FORMAT,
    VERSIONS,
    CacheInfo,
    as_text,
    damage_named,
    open_readonly,
    read_contents,
)
from metasynth.data.validation import (
    Contents,
    check_contents,
    check_generation,
    check_names,
    check_structure,
    content_digest,
)
from metasynth.data.writer import write_cache
from metasynth.errors import DataError
from metasynth.files import first_line
from metasynth.lines import logger

_LOG = logger(__name__)

__all__ = ["FORMAT", "VERSIONS", "Cache", "CacheInfo", "verify_digest", "write_cache"]


class Cache:
    """A cache opened for reading.

    The file is opened once per process: a copy that was pickled or inherited by a fork opens its own handle.

    Parameters
    ----------
    path : str or Path
        The file.
    check_values : bool
        Also read every label and image and check their values. The structure is always checked.
    check_digest : bool
        With the values, check that they and the description have the digest that the file carries.

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
        where = str(self.path)
        file = open_readonly(self.path)
        try:
            with damage_named(where):
                self.info, contents = read_contents(file, where)
                check_names(where, self.info.class_names, contents.subjects)
                check_generation(where, self.info.class_names, self.info.generation_names, self.info.target)
                check_structure(where, contents, self.info.spacing_mm)
                if check_values:
                    self._check(contents, check_digest)
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

    def _check(self, contents: Contents, check_digest: bool) -> None:
        """Read and check all values, once."""
        where = str(self.path)
        if not check_digest:
            check_contents(where, contents, self.info.stored)
        elif content_digest(where, contents, self.info.described(), self.info.stored) != self.info.digest:
            raise DataError(
                f"{where}: its content was changed after it was written (it no longer has the digest that it carries); "
                "make it again"
            )

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
        for row, index in enumerate(wanted):
            try:
                out[row] = dataset[index]
            except OSError as error:
                raise DataError(
                    f"{self.path}: dataset '{name}' is damaged: slice {index} cannot be read ({first_line(error)})"
                ) from error
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


def verify_digest(path: str | Path) -> bool:
    """True when the content of the cache still has the digest written in it; `DataError` when unreadable."""
    where = str(path)
    with open_readonly(Path(path)) as file, damage_named(where):
        info, contents = read_contents(file, where)
        return content_digest(where, contents, info.described()) == info.digest
