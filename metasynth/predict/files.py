"""Writing label maps and posteriors with the header of the scan they belong to."""

import fcntl
import gzip
import hashlib
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from metasynth.data_prep.volumes.files import Header, read_header, reading
from metasynth.data_prep.volumes.volumes import Volume
from metasynth.errors import DataError
from metasynth.files import require_file, write_atomically
from metasynth.outputs import SOFTWARE

_FAST = 4  # of gzip's levels 1 to 9; label maps are small anyway


def output_suffix(scan: Path) -> str:
    """The ending of what is made of a scan: .mgz for FreeSurfer's format, .nii.gz for any other."""
    return ".mgz" if scan.name.lower().endswith((".mgz", ".mgh")) else ".nii.gz"


def write_like(path: Path, data: NDArray, scan: Path) -> None:
    """Write (X, Y, Z) labels or (X, Y, Z, K) posteriors in the geometry of a scan: its affine, codes and units.

    Parameters
    ----------
    path : Path
        The file, ending as `output_suffix` says.
    data : NDArray
        uint8, int16 or float32; X, Y, Z are those of the scan.
    scan : Path
        A file that could be read; axes of length 1 that it has beyond three are kept for labels.

    Raises
    ------
    DataError
        The scan cannot be read any more, or its header cannot be written.
    RunError
        The file cannot be written.
    """
    source = read_header(scan)
    with reading(scan):
        image = _image_like(data.reshape(source.shape) if data.ndim == 3 else data, source)
        content = image.to_bytes()
    write_atomically(path, gzip.compress(content, compresslevel=_FAST, mtime=0))


def _image_like(data: NDArray, source: Header) -> Any:
    """An image with a scan's header, as far as that says where and how large the voxels are."""
    if source.is_mgh:
        header = source.fields.copy()
        header.set_data_dtype(data.dtype)
        return nib.MGHImage(data, source.affine, header)
    kind = nib.Nifti2Image if isinstance(source.fields, nib.Nifti2Header) else nib.Nifti1Image
    header = kind.header_class(source.fields.binaryblock, source.fields.endianness, check=False)
    header["magic"], header["vox_offset"] = header.single_magic, 0  # of a pair, too
    header.set_data_dtype(data.dtype)
    header["cal_min"] = header["cal_max"] = 0
    header["descrip"] = SOFTWARE.encode()
    header["aux_file"] = header["intent_name"] = b""
    header.set_intent("label" if data.dtype.kind in "iu" else "none")
    image: Any = kind(data, source.affine, header)
    if data.ndim == 4 and data.shape != source.shape:
        image.header.set_zooms((*image.header.get_zooms()[:3], 1.0))
    return image


def is_label_map(path: Path) -> bool:
    """Whether a NIfTI file says that this program wrote it; .mgz files have no room to say so."""
    try:
        with gzip.open(path) as file:
            head = file.read(540)
    except (OSError, EOFError, zlib.error):
        return False
    # The field "descrip" of NIfTI 1 and of NIfTI 2.
    return SOFTWARE.encode() in (head[at : at + 80].rstrip(b"\0") for at in (148, 240))


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises
    ------
    DataError
        It cannot be read.
    """
    require_file(path, "a NIfTI or MGH file")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def voxel_volume_ml(volume: Volume) -> float:
    """Volume of one voxel in millilitres."""
    return float(abs(np.linalg.det(volume.affine[:3, :3]))) / 1000.0


def take_lock(path: Path) -> int:
    """An open descriptor of a lock's file, once this process alone has it; there need be no locks."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):  # it may have been removed while we waited
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
