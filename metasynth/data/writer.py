"""Writing the HDF5 cache: complete or not at all."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from metasynth.data.schema import FORMAT, CacheInfo, check_views
from metasynth.data.validation import (
    Contents,
    check_contents,
    check_generation,
    check_names,
    check_structure,
    content_digest,
)
from metasynth.errors import DataError
from metasynth.files import write_atomically


def write_cache(
    path: str | Path,
    *,
    labels: np.ndarray,
    subject: np.ndarray | Sequence[int],
    subjects: Sequence[str],
    slice_index: np.ndarray | Sequence[int],
    info: CacheInfo,
    images: np.ndarray | None = None,
    view: np.ndarray | Sequence[int] | None = None,
) -> str:
    """Check the arrays and write them as a cache; a file already at `path` is replaced as a whole.

    Parameters
    ----------
    path : str or Path
        The file to make; its folder must exist.
    labels : numpy.ndarray
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
    images : numpy.ndarray or None
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
        labels=np.asarray(labels),
        images=None if images is None else np.asarray(images),
        subject=np.asarray(subject),
        subjects=tuple(subjects),
        slice_index=np.asarray(slice_index),
        view=None if view is None else np.asarray(view),
    )
    check_names(where, info.class_names, contents.subjects)
    check_generation(where, info.class_names, info.generation_names, info.target)
    check_structure(where, contents, info.spacing_mm)
    check_views(where, info.axes, info.views, contents)
    check_contents(where, contents, info.stored)
    stored = _as_stored(contents, len(info.stored.names))
    digest = content_digest(where, stored, info.described())
    # The HDF5 library does not survive a failed write (it crashes when the process ends), so it is given
    # memory to write to, less than the arrays take, and the disk is left to plain file operations.
    buffer = io.BytesIO()
    # File format 1.10 carries checksums in its own records, so that damage is noticed and not followed.
    with h5py.File(buffer, "w", libver=("v110", "v110")) as file:
        _fill(file, stored, info, digest)
    write_atomically(path, buffer.getbuffer(), failure=DataError, make_folder=False)
    return digest


def _shortest(info: CacheInfo) -> CacheInfo:
    """The description without generation labels that say nothing new, as every version of the program can read it."""
    plain = info.generation_names == info.class_names and info.target == tuple(range(len(info.class_names)))
    return replace(info, generation_names=(), target=()) if plain else info


def _as_stored(contents: Contents, n_labels: int) -> Contents:
    """The arrays in the types of the format."""
    images = contents.images
    if images is not None and images.dtype != np.float16:
        images = np.asarray(images, dtype=np.float32)
    return Contents(
        labels=np.asarray(contents.labels, dtype=np.uint8 if n_labels <= 256 else np.int16),
        images=images,
        subject=np.asarray(contents.subject, dtype=np.int32),
        subjects=contents.subjects,
        slice_index=np.asarray(contents.slice_index, dtype=np.int32),
        view=None if contents.view is None else np.asarray(contents.view, dtype=np.int32),
    )


def _fill(file: h5py.File, stored: Contents, info: CacheInfo, digest: str) -> None:
    """Fill an empty file: one chunk per slice, so that reading a slice decompresses that slice alone."""
    for name, array in (("labels", stored.labels), ("images", stored.images)):
        if array is not None:
            file.create_dataset(
                name,
                data=array,
                chunks=(1, *array.shape[1:]),
                compression="gzip",
                compression_opts=4,
                shuffle=True,
                fletcher32=True,
                track_times=False,
            )
    for name, array in (
        ("subject", stored.subject),
        ("subjects", _fixed_text(stored.subjects)),
        ("slice", stored.slice_index),
        ("view", stored.view),
    ):
        if array is not None:
            file.create_dataset(name, data=array, fletcher32=True, track_times=False)
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


def _fixed_text(texts: Sequence[str]) -> np.ndarray:
    """Texts as UTF-8 of fixed length, which unlike free length lies within the checksummed records."""
    encoded = [text.encode() for text in texts]
    length = max(1, *(len(text) for text in encoded))
    return np.array(encoded, dtype=h5py.string_dtype(length=length))
