"""Writing label maps and posteriors with the header of the scan they belong to, and reading label maps."""

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from metasynth.data_prep.volumes import Volume, read_image
from metasynth.errors import DataError
from metasynth.files import write_atomically

_FAST = 4  # of gzip's levels 1 to 9; label maps are small anyway


def output_suffix(scan: Path) -> str:
    """The ending of what is made of a scan: .mgz for FreeSurfer's format, .nii.gz for any other."""
    return ".mgz" if scan.name.lower().endswith((".mgz", ".mgh")) else ".nii.gz"


def write_like(path: Path, data: NDArray, scan: Path) -> None:
    """Write (X, Y, Z) labels or (X, Y, Z, K) posteriors in the geometry of a scan: its affine, codes and units.

    Args:
        path: The file, ending as `output_suffix` says.
        data: uint8, int16 or float32; X, Y, Z are those of the scan.
        scan: A file that could be read; axes of length 1 that it has beyond three are kept for labels.

    Raises:
        RunError: The file cannot be written.

    """
    source: Any = nib.load(scan)
    if data.ndim == 3:
        data = data.reshape(source.shape)
    if path.name.endswith(".mgz"):
        header = source.header.copy()
        header.set_data_dtype(data.dtype)
        image: Any = nib.MGHImage(data, source.affine, header)
    elif isinstance(source, nib.Nifti1Image):
        header = source.header.copy()
        header.set_data_dtype(data.dtype)
        header.extensions.clear()
        header["cal_min"] = header["cal_max"] = 0
        header["descrip"] = b"metasynth"
        header["aux_file"] = header["intent_name"] = b""
        header.set_intent("label" if data.dtype.kind in "iu" else "none")
        image = type(source)(data, source.affine, header)
        if data.ndim == 4 and data.shape != source.shape:
            image.header.set_zooms((*image.header.get_zooms()[:3], 1.0))
    else:
        image = nib.Nifti1Image(data, source.affine)
        image.header.set_xyzt_units("mm")
    write_atomically(path, gzip.compress(image.to_bytes(), compresslevel=_FAST, mtime=0))


def read_label_map(path: Path) -> Volume:
    """Labels (X, Y, Z) int64, all of which may be 0.

    Raises:
        DataError: The file cannot be read, or a value is negative or not whole.

    """
    volume = read_image(path)
    if not (np.isfinite(volume.data).all() and (volume.data == np.rint(volume.data)).all() and volume.data.min() >= 0):
        raise DataError(f"{path}: labels must be whole numbers from 0 on; is it an image, or was it interpolated?")
    return Volume(volume.data.astype(np.int64), volume.affine, volume.where)


def voxel_volume_ml(volume: Volume) -> float:
    """Volume of one voxel in millilitres."""
    return float(abs(np.linalg.det(volume.affine[:3, :3]))) / 1000.0
