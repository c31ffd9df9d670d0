"""What the affine of a file is in: mm, or another unit that its header or the user names."""

from collections.abc import Iterable

import numpy as np
from metasynth.data_prep.volumes.files import Header, Unit
from numpy.typing import NDArray

from metasynth.errors import DataError

MM: dict[Unit, float] = {"mm": 1.0, "um": 1e-3, "m": 1e3}
NAMES: dict[Unit, str] = {"mm": "mm", "um": "micrometres", "m": "metres"}
SMALLEST_MM, LARGEST_MM = 0.05, 20.0  # voxels of brain scans
ROUNDING = 1e-4  # how far single precision may be off
NAMED = 3  # scans that a note names


def affine_in_mm(header: Header, unit: Unit | None) -> NDArray[np.float64]:
    """(4, 4) from a file's voxel indices to mm.

    Parameters
    ----------
    header : Header
        The file's.
    unit : Unit or None
        What its affine is in, whatever the header says; None takes what that says, mm where it says nothing.

    Raises
    ------
    DataError
        No unit is given, and the voxels are not of the size that brain scans have.
    """
    affine = header.affine.copy()
    with np.errstate(all="ignore"):
        affine[:3] *= MM[unit or header.unit or "mm"]
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
    odd = (sizes < SMALLEST_MM * (1 - ROUNDING)) | (sizes > LARGEST_MM * (1 + ROUNDING))
    if unit is None and (odd & (sizes > 0) & np.isfinite(sizes)).any():
        said = f"{NAMES[header.unit]} by its header" if header.unit else "its header names no unit, mm is assumed"
        raise DataError(
            f"{header.path}: expected voxels of {SMALLEST_MM:g} to {LARGEST_MM:g} mm, got "
            f"{' x '.join(f'{size:.6g}' for size in sizes)} mm ({said}); --units mm, um or m says what its affine is in"
        )
    return affine


def unit_scaled_from(header: Header, unit: Unit | None) -> Unit | None:
    """The unit other than mm that only the header names; None where there is nothing to be said about it."""
    return header.unit if unit is None and header.unit != "mm" else None


def scaled_note(scaled: Iterable[tuple[str, Unit]]) -> list[str]:
    """A line a unit that says which scans had affines in it, from (name of the scan, unit); none for none."""
    names: dict[Unit, list[str]] = {}
    for name, unit in scaled:
        names.setdefault(unit, []).append(name)
    return [
        f"affines in {NAMES[unit]} by their headers, brought to mm: {', '.join(found[:NAMED])}"
        + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")
        for unit, found in sorted(names.items())
    ]
