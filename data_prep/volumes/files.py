"""NIfTI and MGH files: the one place that opens them.

Whatever a file holds and whatever a library makes of that, it is read, or refused in one `DataError` that names it.
What its header claims is compared with its size and with the memory there is before anything else is read.
"""

import gzip
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import nibabel as nib
import numpy as np
from metasynth.data_prep.volumes.memory import require_memory
from nibabel import imageglobals
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from metasynth.errors import DataError
from metasynth.files import require_file
from metasynth.sizes import readable
from metasynth.text import by

Unit = Literal["mm", "um", "m"]
_UNITS: dict[int, Unit] = {1: "m", 2: "mm", 3: "um"}  # the lowest three bits of NIfTI's xyzt_units
_GZIP = b"\x1f\x8b"
_MOST_COMPRESSED = 1032  # bytes that one byte of deflate can stand for
_HEADER = 540  # bytes of the longest header, NIfTI-2's
_BEHIND = 1 << 16  # bytes that may follow the voxels
_MGH_DATA = 284  # where they begin in an MGH file


@dataclass(frozen=True)
class Header:
    """What a file says about its volume.

    Attributes
    ----------
    path : Path
        The file that was named.
    data_path : Path
        The file of the voxels; another one for a pair of .hdr and .img.
    fields : Any
        nibabel's header: of NIfTI-1, of NIfTI-2, or of an MGH file.
    shape : tuple of int
        Lengths of all axes, none of them 0.
    affine : numpy.ndarray
        (4, 4) from voxel indices to the file's unit.
    unit : Unit or None
        That unit; None where the file does not say.
    """

    path: Path
    data_path: Path
    fields: Any
    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    unit: Unit | None

    @property
    def is_mgh(self) -> bool:
        """Whether it is of FreeSurfer's format."""
        return isinstance(self.fields, nib.freesurfer.mghformat.MGHHeader)

    @property
    def scaling(self) -> tuple[float, float]:
        """Slope and intercept of stored numbers; a slope of 0 or NaN stands for none, as the format says."""
        found: tuple[Any, Any] = (None, None) if self.is_mgh else self.fields.get_slope_inter()
        return (1.0, 0.0) if found[0] is None else found


def read_header(path: Path) -> Header:
    """The header of a NIfTI-1, NIfTI-2 or MGH file, plain or compressed, or of a pair of .hdr and .img.

    Raises
    ------
    DataError
        It cannot be read, or claims more voxels than the file can hold.
    """
    with reading(path):
        header_path, data_path = _pair(path)
        for each in (path, header_path, data_path):
            require_file(each, "a NIfTI or MGH file", "" if each == path else f", which belongs to {path}")
        with _opened(header_path) as file:
            block = file.read(_HEADER)
        fields = _fields(block, path, alone=header_path == data_path)
        shape = tuple(int(n) for n in fields.get_data_shape())
        if not shape or min(shape) < 1:
            raise DataError(f"{path}: holds no voxels, its shape is {by(shape) or 'none'}")
        _require_room(data_path, fields, shape)
        if not isinstance(fields, nib.Nifti1Header):
            with _opened(path) as file:  # fields behind the voxels
                fields = nib.freesurfer.mghformat.MGHHeader.from_fileobj(file)
            unit: Unit | None = "mm"
        else:
            unit = _UNITS.get(int(fields["xyzt_units"]) & 7)
        affine = np.asarray(fields.get_best_affine(), dtype=np.float64)
    return Header(path, data_path, fields, shape, affine, unit)


def read_voxels(header: Header) -> NDArray:
    """The numbers a file holds, scaled as its header says; all its axes.

    Raises
    ------
    DataError
        They cannot be read, or the memory cannot hold them.
    """
    with reading(header.path):
        dtype, voxels = header.fields.get_data_dtype(), math.prod(header.shape)
        n = _bytes(header.fields, header.shape)
        # What is stored, and beside it intensities as float32 or ids as int64.
        require_memory(n + voxels * 8, f"{header.path}: {_claims(header.fields, header.shape)}; reading it")
        with _opened(header.data_path) as file:
            file.seek(_offset(header.fields))
            stored = file.read(n)
            file.read(_BEHIND)  # so that the end is seen, and with it the checksum of a compressed file
        if len(stored) < n:
            raise ValueError(f"{readable(len(stored))} of voxels where its header asks for {readable(n)}")
        data = np.frombuffer(stored, dtype).reshape(header.shape, order="F")
        return data if dtype.kind not in "iuf" else apply_read_scaling(data, *header.scaling)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever is raised within into one `DataError` that names the file, and print nothing."""
    was_disabled, imageglobals.logger.disabled = imageglobals.logger.disabled, True
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{path}: is too large for the memory there is") from error
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        text = " ".join(str(error).split()) if not isinstance(error, KeyError) else f"unknown code {error}"
        text = text or type(error).__name__
        raise DataError(f"{path}: is truncated, damaged or no NIfTI or MGH file ({text})") from error
    finally:
        imageglobals.logger.disabled = was_disabled


def _pair(path: Path) -> tuple[Path, Path]:
    """Where header and voxels lie: two files for .hdr and .img (and .gz), else one."""
    stem, compressed = (path.name[:-3], path.name[-3:]) if path.name.lower().endswith(".gz") else (path.name, "")
    ending = stem[-4:].lower()
    if ending not in (".hdr", ".img"):
        return path, path
    other = ".img" if ending == ".hdr" else ".hdr"
    partner = path.with_name(stem[:-4] + (other.upper() if stem[-4:].isupper() else other) + compressed)
    return (path, partner) if ending == ".hdr" else (partner, path)


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def _opened(path: Path) -> BinaryIO | gzip.GzipFile:
    """The file, decompressed where it begins as compressed ones do, whatever it is called."""
    return gzip.open(path, "rb") if _is_compressed(path) else path.open("rb")


def _fields(block: bytes, path: Path, alone: bool) -> Any:
    """Nibabel's header of a file's first bytes; extensions of NIfTI headers are not read."""
    if block[:4] == b"\x00\x00\x00\x01" and alone:
        return nib.freesurfer.mghformat.MGHHeader(block[:_MGH_DATA])
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        if kind.may_contain_header(block):
            block = block[: kind.template_dtype.itemsize]
            found = kind(block, check=False)
            if (found["magic"] == kind.single_magic) != alone:
                raise ValueError(
                    "its header says that the voxels lie in " + ("another file" if alone else "the same file")
                )
            _require_sizes(found, path)
            return kind(block)
    raise ValueError("it is empty" if not block else "it begins like neither")


def _require_sizes(fields: nib.Nifti1Header, path: Path) -> None:
    """Refuse voxels without a size where the affine comes from it; nibabel would make them 1 mm large."""
    sizes = fields["pixdim"][1:4]
    if int(fields["sform_code"]) <= 0 and (sizes == 0).any():
        raise DataError(f"{path}: voxels must have a size above 0 along every axis, got {_sizes(sizes)} in its header")


def _require_room(data_path: Path, fields: Any, shape: tuple[int, ...]) -> None:
    """Compare what the header claims with the size of the file."""
    claimed, there = _offset(fields) + _bytes(fields, shape), data_path.stat().st_size
    compressed = _is_compressed(data_path)
    if claimed > there * (_MOST_COMPRESSED if compressed else 1):
        size = readable(there) + (", compressed" if compressed else "")
        raise ValueError(f"{_claims(fields, shape)}; the file has {size}")


def _claims(fields: Any, shape: tuple[int, ...]) -> str:
    size = readable(_bytes(fields, shape))
    return f"its header claims {by(shape)} voxels of {fields.get_data_dtype().name}, {size}"


def _bytes(fields: Any, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * int(fields.get_data_dtype().itemsize)


def _offset(fields: Any) -> int:
    """Where the voxels begin."""
    if not isinstance(fields, nib.Nifti1Header):
        return _MGH_DATA
    offset = int(fields["vox_offset"])
    if offset < 0:
        raise ValueError(f"voxels that begin at byte {offset}")
    return offset


def _sizes(sizes: NDArray) -> str:
    return " x ".join(f"{size:g}" for size in sizes)
