"""Bringing subjects into one space: by a transform that is there already, or by registration to a template.

Transforms are (4, 4) matrices from mm of the subject to mm of the space (x right, y anterior, z superior). That of
registration is the MNI ICBM152 2009a template in nilearn's wheel; a FreeSurfer `talairach.xfm` leads to MNI305, which
differs from it by millimetres.
"""

import math
from pathlib import Path
from typing import Literal

import numpy as np
from metasynth.data_prep.volumes.resample import (
    Grid,
    count_along,
    require_grid,
    require_room,
    resample_image,
    to_source,
)
from metasynth.data_prep.volumes.volumes import Volume
from numpy.typing import NDArray

from metasynth.errors import DataError, UsageError, install_hint
from metasynth.files import require_file
from metasynth.interrupts import Interrupted, check
from metasynth.text import by, read_lines

Align = Literal["none", "transforms", "rigid", "affine"]
FIELD_MM = ((-98.0, 98.0), (-134.0, 98.0), (-72.0, 116.0))  # the field of the template, x, y and z
SEED = 1
SAMPLED = 0.2  # of the template's voxels, per iteration
GRID_MM, ROOM_MM = 2.0, 10.0
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's axes grow to left, posterior, superior


def atlas_grid(spacing_mm: tuple[float, float, float]) -> Grid:
    """The grid of aligned volumes: the template's field at a spacing.

    Raises
    ------
    UsageError
        The spacing is larger than the field, or the grid has too many voxels.
    """
    lengths = [high - low for low, high in FIELD_MM]
    if any(s > length for s, length in zip(spacing_mm, lengths, strict=True)):
        given, field = (by(numbers) for numbers in (spacing_mm, lengths))
        raise UsageError(f"--spacing {given}: the template's field is {field} mm")
    shape = [math.floor(count_along(n, s) + 1e-6) + 1 for n, s in zip(lengths, spacing_mm, strict=True)]
    require_grid(shape, spacing_mm)
    affine = np.diag([*spacing_mm, 1.0])
    centre = [(low + high) / 2 for low, high in FIELD_MM]
    affine[:3, 3] = [c - s * (n - 1) / 2 for c, s, n in zip(centre, spacing_mm, shape, strict=True)]
    return Grid((shape[0], shape[1], shape[2]), affine)


def read_transform(path: Path) -> NDArray[np.float64]:
    """(4, 4) transform of a MINC `.xfm` file, or of a text file with 3 or 4 rows of 4 numbers.

    Raises
    ------
    DataError
        The file cannot be read, holds other numbers, or the matrix is singular.
    """
    require_file(path, "a file with a transform")
    text = "\n".join(read_lines(path))
    if "Linear_Transform" in text:
        text = text.partition("Linear_Transform")[2].partition("=")[2].partition(";")[0]
    try:
        numbers = [float(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise DataError(f"{path}: expected an .xfm file or rows of 4 numbers: {error}") from error
    if len(numbers) not in (12, 16):
        raise DataError(f"{path}: expected 3 or 4 rows of 4 numbers, got {len(numbers)} numbers")
    matrix = np.array([*numbers[:12], 0.0, 0.0, 0.0, 1.0]).reshape(4, 4)
    if len(numbers) == 16 and not np.allclose(numbers[12:], [0, 0, 0, 1]):
        raise DataError(f"{path}: the last row of a transform must be 0 0 0 1, got {numbers[12:]}")
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-6:
        raise DataError(f"{path}: the transform is singular or not finite")
    return matrix


def require_simpleitk() -> None:
    """Raise `UsageError` where registration is asked for and cannot be done."""
    try:
        import SimpleITK  # noqa: F401
    except ImportError as error:
        raise UsageError(f"--align rigid and affine need the package SimpleITK: {install_hint('align')}") from error


def register(moving: Volume, kind: Literal["rigid", "affine"]) -> NDArray[np.float64]:
    """(4, 4) transform that brings a brain to the template, by mutual information (Mattes et al. 2003).

    The centres of mass are put together, then a rigid and, if wanted, an affine transform is refined at 4 and 2 mm by
    gradient descent in regular steps. Seeded and on one thread, so that the same brain gives the same transform.

    Parameters
    ----------
    moving : Volume
        (X, Y, Z) float32 intensities of the brain alone, 0 elsewhere.
    kind : {'rigid', 'affine'}
        Whether the brain keeps its size and shape.

    Raises
    ------
    DataError
        The registration failed.
    """
    import SimpleITK as sitk
    from nilearn.datasets import load_mni152_template  # costs seconds to import

    template = load_mni152_template(resolution=2)
    fixed = _to_itk(Volume(np.asarray(template.dataobj, dtype=np.float32), template.affine, "template"))
    image = _to_itk(_on_plain_grid(moving))
    transform = sitk.CenteredTransformInitializer(
        fixed, image, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    try:
        transform = _refine(fixed, image, transform)
        if kind == "affine":
            transform = _refine(fixed, image, _as_affine(transform))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"{moving.where}: cannot be registered to the template: {reason}") from error
    itk = np.eye(4)  # ITK's transforms lead from the fixed image to the moving one
    itk[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    for axis in range(3):
        itk[:3, axis] = np.array(transform.TransformPoint(tuple(np.eye(3)[axis]))) - itk[:3, 3]
    return np.asarray(np.linalg.inv(LPS @ itk @ LPS), dtype=np.float64)


def _on_plain_grid(volume: Volume) -> Volume:
    """What is not 0 at 2 mm on axes along x, y and z: small, and without the shears that ITK cannot hold."""
    at = np.argwhere(volume.data > 0)
    ends = np.array(np.meshgrid(*zip(at.min(axis=0), at.max(axis=0), strict=True), indexing="ij")).reshape(3, -1)
    corners = volume.affine[:3, :3] @ ends + volume.affine[:3, 3:]
    low, high = corners.min(axis=1) - ROOM_MM, corners.max(axis=1) + ROOM_MM
    affine = np.diag([GRID_MM, GRID_MM, GRID_MM, 1.0])
    affine[:3, 3] = low
    shape = tuple(int(n) for n in np.ceil((high - low) / GRID_MM))
    require_room(shape, [GRID_MM] * 3, volume.where)
    grid = Grid((shape[0], shape[1], shape[2]), affine)
    return Volume(resample_image(volume.data, to_source(volume, grid), grid), affine, volume.where)


def _as_affine(rigid):  # type: ignore[no-untyped-def]
    """The affine transform that a rigid one is."""
    import SimpleITK as sitk

    affine = sitk.AffineTransform(3)
    affine.SetCenter(rigid.GetCenter())
    affine.SetMatrix(rigid.GetMatrix())
    affine.SetTranslation(rigid.GetTranslation())
    return affine


def _refine(fixed, moving, start):  # type: ignore[no-untyped-def]
    """One registration, from coarse to fine."""
    import SimpleITK as sitk

    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(SAMPLED, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 100, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([4.0, 2.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(start, inPlace=True)
    method.AddCommand(sitk.sitkIterationEvent, lambda: _stop_if_interrupted(method))
    method.Execute(fixed, moving)
    check()
    return start


def _stop_if_interrupted(method) -> None:  # type: ignore[no-untyped-def]
    """An exception in here would be told as a failed registration."""
    try:
        check()
    except Interrupted:
        method.StopRegistration()


def _to_itk(volume: Volume):  # type: ignore[no-untyped-def]
    """A volume with orthogonal axes as a SimpleITK image."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.data.T))
    affine = LPS @ volume.affine
    image.SetSpacing(volume.spacing.tolist())
    image.SetDirection((affine[:3, :3] / volume.spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image
