"""The HDF5 cache, format versions 1 to 4: what a file of this format holds and how it is recognised.

Datasets: `/images` (N, *S) float16 or float32 in [0, 1], absent in a label-only cache; `/labels` (N, *S)
uint8 or int16 class indices; `/subject` (N,) index into `/subjects` (names); `/slice` (N,) index along the
slicing axis. S is (H, W) for slices and (D, H, W) for volumes. Attributes of the file: `format`, `version`
and the fields of `CacheInfo`. `digest` is the SHA-256 of the content (see `content_digest`), so it does not
depend on compression.

In version 2 `/labels` holds generation labels, which are finer than the classes: images are synthesised from them.
Attributes name them and say which class each is part of. Version 3 shows whole heads, as attribute `shows` says, with
generation labels or without. Version 4 holds slices of several axes, whose names and orientations have commas between
them in the attributes, and `/view` (N,) index into these axes. What is written is the least version that can say what
there is to say.

A file of any version whose labels and images take more than 512 MB carries `/labels_sha256` and `/images_sha256`
(N, 32) and the attribute `opening_sha256`, see `digests`. Programs that know nothing of them read it as ever.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from metasynth.data.info import FORMAT, CacheInfo
from metasynth.data.stored import as_text, check_stored, require_own_values
from metasynth.data.validation import Contents
from metasynth.errors import DataError
from metasynth.files import first_line
from metasynth.outputs import Kind

VERSIONS = (1, 2, 3, 4)
SHOWS = ("brain", "head")
LOCKING = "HDF5_USE_FILE_LOCKING"
STORED_TYPES = {"labels": ("uint8", "int16"), "images": ("float16", "float32")}
_TEXT_ATTRIBUTES = ("mapping", "axis", "orientation", "source", "created_by", "digest")
_DATASETS = ("labels", "subject", "subjects", "slice")


@contextmanager
def damage_named(where: str) -> Iterator[None]:
    """Turn an error of the HDF5 library inside the block into a `DataError` that names the file."""
    try:
        yield
    except (OSError, RuntimeError, KeyError) as error:
        raise DataError(f"{where}: is damaged and cannot be read ({first_line(error)})") from error


def open_readonly(path: Path) -> h5py.File:
    """Open an HDF5 file for reading, or raise `DataError` saying why it cannot be."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DataError(f"{path}: is no regular file; expected a {FORMAT} file")  # a pipe would wait for ever
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise DataError(f"{path}: cannot be opened: {error.strerror}") from error
    if not h5py.is_hdf5(path):
        raise DataError(f"{path}: is not an HDF5 file; expected a {FORMAT} file")
    try:
        # Files are replaced as a whole and never written in place, so locks would only fail on shared disks. The
        # library asks for one all the same where its environment variable says so.
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        reason = first_line(error)
        if "already open for write" in reason:  # a mark in the file, which a program that is killed leaves there
            raise DataError(
                f"{path}: is open for writing in another program, or was when that was killed: close it there, or "
                "remove the mark it left with h5clear -s"
            ) from error
        if "locking flag" in reason:
            raise DataError(f"{path}: is open in this process already, by other means; close it first") from error
        if "unable to lock file" in reason:
            asked = os.environ.get(LOCKING, "")
            raise DataError(
                f"{path}: cannot be locked, as {LOCKING}={asked} asks for: another program holds a lock, or the file "
                "system has none. A cache is only read and needs no lock: unset the variable"
            ) from error
        raise DataError(f"{path}: is truncated or damaged ({reason})") from error


def read_contents(file: h5py.File, where: str) -> tuple[CacheInfo, Contents]:
    """Read the attributes and find the datasets of an open file; their values are not checked here.

    Raises
    ------
    DataError
        The file is of another format or version, or an attribute or dataset is missing or of another type.
    """
    found = as_text(file.attrs.get("format"))
    if found != FORMAT:
        came = f"format {found!r}" if found is not None else "no attribute 'format'"
        raise DataError(f"{where}: is not a {FORMAT} file ({came})")
    version = file.attrs.get("version")
    if not isinstance(version, int | np.integer) or int(version) not in VERSIONS:
        kind = " as text" if isinstance(version, str) else ""
        known = f"{VERSIONS[0]} to {VERSIONS[-1]}"
        raise DataError(f"{where}: format versions {known} are supported, got {version!s}{kind}")
    texts: dict[str, Any] = {name: as_text(_attribute(file, where, name)) for name in _TEXT_ATTRIBUTES}
    wrong = next((name for name, value in texts.items() if value is None), None)
    if wrong is not None:
        raise DataError(f"{where}: attribute '{wrong}' must be text, got {file.attrs[wrong]!r}")
    class_names = _names(file, where, "class_names")
    spacing = np.atleast_1d(np.asarray(_attribute(file, where, "spacing_mm")))
    if spacing.dtype.kind not in "fiu":
        raise DataError(f"{where}: attribute 'spacing_mm' must be a list of numbers")
    datasets = (*_DATASETS, "view") if int(version) > 3 else _DATASETS
    require_own_values(file, where, (*datasets, "images"))
    for name in (*datasets, "images"):
        if not (name == "images" and name not in file) and not isinstance(file.get(name), h5py.Dataset):
            raise DataError(f"{where}: dataset '{name}' is missing")
    for name, allowed in STORED_TYPES.items():
        if name in file and file[name].dtype.name not in allowed:
            raise DataError(f"{where}: {name} must be {' or '.join(allowed)}, got {file[name].dtype}")
    for name in (*datasets, "images"):
        if name in file:
            check_stored(file[name], where, name, by_slice=name in STORED_TYPES)
    names = [as_text(name) for name in np.atleast_1d(file["subjects"][()])]
    if None in names:
        raise DataError(f"{where}: dataset 'subjects' must hold text")
    generation: dict[str, Any] = _generation(file, where) if _has_generation(file, int(version)) else {}
    if int(version) > 2:
        generation["shows"] = _shows(file, where)
    info = CacheInfo(
        class_names=class_names,
        spacing_mm=tuple(float(s) for s in spacing),
        **generation,
        **texts,
    )
    contents = Contents(
        labels=file["labels"],
        images=file.get("images"),
        subject=file["subject"],
        subjects=tuple(str(name) for name in names),
        slice_index=file["slice"],
        view=file["view"] if int(version) > 3 else None,
    )
    check_views(where, info.axes, info.views, contents)
    return info, contents


def check_views(where: str, axes: Sequence[str], orientations: Sequence[str], contents: Contents) -> None:
    """Require an orientation for every slicing axis and, if they are several, a slice of each.

    Raises
    ------
    DataError
        They are not so.
    """
    view = np.zeros(0, dtype=int) if contents.view is None else np.asarray(contents.view[:])
    several = len(axes) > 1
    if several and (len(orientations) != len(axes) or not np.array_equal(np.unique(view), np.arange(len(axes)))):
        raise DataError(
            f"{where}: must have an orientation and slices of each axis, got axes {', '.join(axes)}, orientations "
            f"{', '.join(orientations)} and view {np.unique(view).tolist()}"
        )
    if view.size and not several:
        raise DataError(f"{where}: view must be of several axes, got {', '.join(axes)}")


def is_cache(path: Path) -> bool:
    """Whether a file says that it is a cache, of whatever version; it may be damaged beyond that."""
    try:
        with open_readonly(path) as file:
            return as_text(file.attrs.get("format")) == FORMAT
    except (DataError, OSError, RuntimeError):
        return False


CACHE = Kind("cache", (".h5", ".hdf5"), is_cache)


def _has_generation(file: h5py.File, version: int) -> bool:
    """Whether there are to be generation labels; from version 3 on there may be."""
    return version == 2 or (version > 2 and ("generation_names" in file.attrs or "target" in file.attrs))


def _shows(file: h5py.File, where: str) -> str:
    """What is shown, which version 3 says."""
    found = as_text(_attribute(file, where, "shows"))
    if found not in SHOWS:
        raise DataError(f"{where}: attribute 'shows' must be {' or '.join(SHOWS)}, got {found!r}")
    return found


def _generation(file: h5py.File, where: str) -> dict[str, Any]:
    """The two fields of `CacheInfo` that version 2 has beside those of version 1."""
    target = np.atleast_1d(np.asarray(_attribute(file, where, "target")))
    if target.dtype.kind not in "iu" or target.ndim != 1:
        raise DataError(f"{where}: attribute 'target' must be a list of whole numbers")
    names = _names(file, where, "generation_names")
    if not names:
        raise DataError(f"{where}: generation_names must hold at least 2 names, got 0")
    return {"generation_names": names, "target": tuple(target.tolist())}


def _names(file: h5py.File, where: str, name: str) -> tuple[str, ...]:
    """An attribute that is a list of text."""
    found = [as_text(each) for each in np.atleast_1d(_attribute(file, where, name))]
    if None in found:
        raise DataError(f"{where}: attribute '{name}' must be a list of text")
    return tuple(map(str, found))


def _attribute(file: h5py.File, where: str, name: str) -> Any:
    if name not in file.attrs:
        raise DataError(f"{where}: attribute '{name}' is missing")
    return file.attrs[name]
