"""Writing the HDF5 cache: complete or not at all."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from metasynth.data.digests import ITEMS, OPENING, content_digest, item_digest, opening_of
from metasynth.data.schema import FORMAT, CacheInfo, check_views
from metasynth.data.validation import (
    ArrayLike,
    Contents,
    LabelList,
    check_generation,
    check_names,
    check_structure,
    check_values,
)
from metasynth.errors import DataError
from metasynth.files import write_atomically

CHECKED_WHOLE_BYTES = 512 * 2**20
"""A cache whose labels and images take more in memory carries the digest of each, see `metasynth.data.digests`."""


def write_cache(
    path: str | Path,
    *,
    labels: ArrayLike,
    subject: np.ndarray | Sequence[int],
    subjects: Sequence[str],
    slice_index: np.ndarray | Sequence[int],
    info: CacheInfo,
    images: ArrayLike | None = None,
    view: np.ndarray | Sequence[int] | None = None,
) -> str:
    """Check the arrays and write them as a cache; a file already at `path` is replaced as a whole.

    Labels and images are read once, in blocks of items, so that they need not be in memory: anything with ``shape``,
    ``dtype`` and ``[start:stop]`` will do, such as a dataset of another HDF5 file. The file itself is put together in
    memory.

    Parameters
    ----------
    path : str or Path
        The file to make; its folder must exist.
    labels : ArrayLike
        (N, *S) generation labels, integers in 0..G-1 (classes in 0..K-1 where the description names no generation
        labels), kept as uint8 where their number allows it, else int16.
    subject : numpy.ndarray or sequence of int
        (N,) index into `subjects`.
    subjects : sequence of str
        Names of the subjects, each of which must have a slice.
    slice_index : numpy.ndarray or sequence of int
        (N,) index along the slicing axis.
    info : CacheInfo
        The description; its digest is computed here. Generation labels that are the classes are left out.
    images : ArrayLike or None
        (N, *S) floats in [0, 1]; float16 is kept, anything else becomes float32.
    view : numpy.ndarray, sequence of int or None
        (N,) index into the slicing axes of the description, where it has several.

    Returns
    -------
    str
        The digest written in the file.

    Raises
    ------
    DataError
        The arrays are not a valid cache, or the file cannot be written (disk full, folder not writable). No temporary
        file is then left and an existing file at `path` is untouched.
    """
    path = Path(path)
    where, info = str(path), _shortest(info)
    contents = Contents(
        labels=_array(labels),
        images=None if images is None else _array(images),
        subject=np.asarray(subject),
        subjects=tuple(subjects),
        slice_index=np.asarray(slice_index),
        view=None if view is None else np.asarray(view),
    )
    check_names(where, info.class_names, contents.subjects)
    check_generation(where, info.class_names, info.generation_names, info.target)
    check_structure(where, contents, info.spacing_mm)
    check_views(where, info.axes, info.views, contents)
    stored = _as_stored(where, contents, info.stored)
    # The HDF5 library does not survive a failed write (it crashes when the process ends), so it is given
    # memory to write to, less than the arrays take, and the disk is left to plain file operations.
    buffer = io.BytesIO()
    # File format 1.10 carries checksums in its own records, so that damage is noticed and not followed.
    with h5py.File(buffer, "w", libver=("v110", "v110")) as file:
        digest = _fill(file, where, stored, info)
    write_atomically(path, buffer.getbuffer(), failure=DataError, make_folder=False)
    return digest


def _array(given: Any) -> ArrayLike:
    """What is read like an array of NumPy's types, or such an array of a list or a tensor."""
    found: ArrayLike = given if isinstance(getattr(given, "dtype", None), np.dtype) else np.asarray(given)
    return found


def _shortest(info: CacheInfo) -> CacheInfo:
    """The description without generation labels that say nothing new, as every version of the program can read it."""
    plain = info.generation_names == info.class_names and info.target == tuple(range(len(info.class_names)))
    return replace(info, generation_names=(), target=()) if plain else info


@dataclass(frozen=True)
class _Stored:
    """An array in a type of the format; its values are checked, as they were given, whenever they are read."""

    where: str
    name: str
    given: ArrayLike
    dtype: np.dtype
    listed: LabelList

    @property
    def shape(self) -> tuple[int, ...]:
        return self.given.shape

    def __getitem__(self, key: Any) -> np.ndarray:
        block = np.asarray(self.given[key])
        check_values(self.where, self.name, key.start, block, self.listed)
        return block.astype(self.dtype, copy=False)


def _as_stored(where: str, contents: Contents, listed: LabelList) -> Contents:
    """The arrays in the types of the format."""
    labels, images = contents.labels, contents.images
    label_type = np.dtype(np.uint8 if len(listed.names) <= 256 else np.int16)
    if images is not None:
        image_type = np.dtype(np.float16 if images.dtype == np.float16 else np.float32)
        images = _Stored(where, "images", images, image_type, listed)
    return Contents(
        labels=_Stored(where, "labels", labels, label_type, listed),
        images=images,
        subject=np.asarray(contents.subject, dtype=np.int32),
        subjects=contents.subjects,
        slice_index=np.asarray(contents.slice_index, dtype=np.int32),
        view=None if contents.view is None else np.asarray(contents.view, dtype=np.int32),
    )


def _fill(file: h5py.File, where: str, stored: Contents, info: CacheInfo) -> str:
    """Fill an empty file and return the digest of its content."""
    arrays = {name: array for name in ITEMS if (array := getattr(stored, name)) is not None}
    for name, array in arrays.items():
        # One chunk per slice, so that reading a slice decompresses that slice alone.
        file.create_dataset(
            name,
            shape=array.shape,
            dtype=array.dtype,
            chunks=(1, *array.shape[1:]),
            compression="gzip",
            compression_opts=4,
            shuffle=True,
            fletcher32=True,
            track_times=False,
        )
    large = sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays.values()) > CHECKED_WHOLE_BYTES
    items = {name: np.empty((array.shape[0], 32), np.uint8) for name, array in arrays.items()} if large else {}

    def write(name: str, start: int, block: np.ndarray) -> None:
        if name in arrays:
            file[name][start : start + len(block)] = block
        for i, item in enumerate(block if name in items else ()):
            items[name][start + i] = item_digest(item)

    digest = content_digest(where, stored, info.described(), seen=write)
    for name, array in (
        ("subject", stored.subject),
        ("subjects", _fixed_text(stored.subjects)),
        ("slice", stored.slice_index),
        ("view", stored.view),
        *((f"{name}_sha256", each) for name, each in items.items()),
    ):
        if array is not None:
            file.create_dataset(name, data=array, fletcher32=True, track_times=False)
    if large:
        file.attrs[OPENING] = _fixed_text([opening_of(stored, info.described(), digest, items)])[0]
    file.attrs["format"] = _fixed_text([FORMAT])[0]
    file.attrs["version"] = info.version
    file.attrs["class_names"] = _fixed_text(info.class_names)
    if info.version > 2:
        file.attrs["shows"] = _fixed_text([info.shows])[0]
    if info.has_generation:
        file.attrs["generation_names"] = _fixed_text(info.generation_names)
        file.attrs["target"] = np.asarray(info.target, dtype=np.int64)
    file.attrs["spacing_mm"] = np.asarray(info.spacing_mm, dtype=np.float64)
    for name in ("mapping", "axis", "orientation", "source", "created_by"):
        file.attrs[name] = _fixed_text([getattr(info, name)])[0]
    file.attrs["digest"] = _fixed_text([digest])[0]
    return digest


def _fixed_text(texts: Sequence[str]) -> np.ndarray:
    """Texts as UTF-8 of fixed length, which unlike free length lies within the checksummed records."""
    encoded = [text.encode() for text in texts]
    length = max(1, *(len(text) for text in encoded))
    return np.array(encoded, dtype=h5py.string_dtype(length=length))
