"""One subject: from its files to the slices or the volume that go into a cache."""

from dataclasses import dataclass, replace

import numpy as np
from metasynth.data_prep.labels import LabelMapping
from metasynth.data_prep.options import Options
from metasynth.data_prep.scaling import not_air, scale, scale_head
from metasynth.data_prep.slicing import (
    choose_planes,
    content_along,
    plane_spacing,
    planes,
)
from metasynth.data_prep.sources import Scan
from metasynth.data_prep.structure_tables import SOFT_TISSUE
from metasynth.data_prep.volumes.align import atlas_grid, read_transform, register
from metasynth.data_prep.volumes.files import Unit
from metasynth.data_prep.volumes.resample import (
    Grid,
    grid_of,
    grid_with_spacing,
    has_spacing,
    require_field,
    resample_classes,
    resample_ids,
    resample_image,
    resample_mask,
    resample_structures,
    to_source,
)
from metasynth.data_prep.volumes.volumes import (
    Volume,
    check_affine,
    matched,
    read_image,
    read_labels,
    require_same_grid,
    to_ras,
)
from numpy.typing import NDArray

from metasynth.errors import DataError

OASIS_PLANE = 109  # of the cropped volumes that neurite-OASIS takes its slices from


@dataclass(frozen=True)
class Prepared:
    """What one subject adds to a cache.

    Attributes
    ----------
    labels : numpy.ndarray
        (n, *S) uint8 classes, or the structures of the mapping; S is the subject's own field.
    images : numpy.ndarray or None
        (n, *S) float16 in [0, 1], or None.
    slice_index : numpy.ndarray
        (n,) int64 planes along the slicing axis; 0 for a volume.
    spacing : tuple (float, float, float)
        Distance in mm along the slicing axis and along rows and columns.
    scaled_from : tuple of Unit
        The units other than mm that only the headers of its files named.
    """

    labels: NDArray[np.uint8]
    images: NDArray[np.float16] | None
    slice_index: NDArray[np.int64]
    spacing: tuple[float, float, float]
    scaled_from: tuple[Unit, ...] = ()


def prepare(scan: Scan, options: Options) -> Prepared:
    """Read, check, map, strip, scale, resample and slice one subject.

    Raises
    ------
    DataError
        Something is wrong with a file, or nothing is left to put in a cache.
    """
    if scan.labels is None:
        raise DataError(f"{scan.name}: has no label map")
    labels, image, mask = _read(scan, options)
    units = {volume.scaled_from for volume in (labels, image, mask) if volume and volume.scaled_from}
    return replace(_part(scan, labels, image, mask, options), scaled_from=tuple(sorted(filter(None, units))))


def _part(scan: Scan, labels: Volume, image: Volume | None, mask: Volume | None, options: Options) -> Prepared:
    """What the volumes of a subject add."""
    mapping, where = options.mapping, labels.where
    found = Volume(mapping.apply_structures(labels.data, options.unknown, where), labels.affine, where)
    stripped = None if image is None else _strip_and_scale(image, labels, mask, options)
    if stripped is not None and not options.strip:
        found = _with_head(found, stripped, mapping)
    if options.flat:
        return _flat(found, stripped)
    grid, matrix = _target(scan, replace(found, data=mapping.classes_of(found.data)), stripped, options)
    if grid is not None:
        resampled = _resample_labels(found, matrix, grid, options)
        if stripped is not None:
            stripped = _resample(stripped, matrix, grid, options.strip)
        found = Volume(resampled, grid.affine, where)
        if not mapping.classes_of(resampled).any():
            raise DataError(f"{where}: no label is left in the field of the new grid")
    return _slice(found, stripped, options)


def _resample_labels(labels: Volume, matrix: NDArray[np.float64], grid: Grid, options: Options) -> NDArray[np.uint8]:
    """Classes or structures on another grid."""
    structures = options.mapping.structures
    if structures is None:
        return resample_classes(labels.data, matrix, grid, options.interpolation)
    return resample_structures(labels.data, structures.target, matrix, grid, options.interpolation)


def _read(scan: Scan, options: Options) -> tuple[Volume, Volume | None, Volume | None]:
    """Label map, image and mask on one grid, in RAS orientation."""
    sheared = options.align != "none"
    assert scan.labels is not None
    labels = read_labels(scan.labels, options.unit)
    image = None if scan.image is None else read_image(scan.image, options.unit)
    mask = None if scan.mask is None else read_labels(scan.mask, options.unit)
    if options.flat:
        if image is not None and image.data.shape != labels.data.shape:
            require_same_grid(*(replace(volume, affine=np.eye(4)) for volume in (image, labels)))
        return labels, image, mask
    for volume in (labels, image, mask):
        if volume is not None:
            check_affine(volume, sheared)
    if image is not None:
        labels = _on_grid_of(image, labels, options)
        mask = None if mask is None else _on_grid_of(image, mask, options)
    return to_ras(labels), None if image is None else to_ras(image), None if mask is None else to_ras(mask)


def _on_grid_of(image: Volume, labels: Volume, options: Options) -> Volume:
    """The label map on the image's grid: its own, or by the nearest voxel where that is asked for."""
    found = matched(labels, image) if options.resample_labels else require_same_grid(image, labels)
    if found is not None:
        return found
    data = resample_ids(labels, grid_of(image))
    if not data.any():
        raise DataError(f"{labels.where}: none of its labels lies in the field of {image.where}")
    return replace(labels, data=data, affine=image.affine)


def _strip_and_scale(image: Volume, labels: Volume, mask: Volume | None, options: Options) -> Volume:
    """The image scaled to [0, 1] by its values in the brain and 0 outside of it, or as a whole head."""
    if not options.strip:
        return Volume(scale_head(image.data, image.where), image.affine, image.where)
    brain = mask.data > 0 if mask is not None else options.mapping.brain(labels.data)
    if not brain.any():
        raise DataError(f"{labels.where}: holds no label of the brain to make a mask from")
    return Volume(scale(image.data, brain, image.where), image.affine, image.where)


def _with_head(labels: Volume, image: Volume, mapping: LabelMapping) -> Volume:
    """Structures with what a scan shows of a head outside of all that is labelled: neither air nor anything named.

    Label maps of scans are of brains, as a rule. So images that are synthesised of them show a head too, a plain one.
    """
    structures = mapping.structures
    if structures is None or SOFT_TISSUE not in structures.names:
        return labels
    unnamed = (labels.data == 0) & not_air(image.data)
    head = np.where(unnamed, np.uint8(structures.names.index(SOFT_TISSUE)), labels.data)
    return Volume(head, labels.affine, labels.where)


def _target(
    scan: Scan, classes: Volume, image: Volume | None, options: Options
) -> tuple[Grid | None, NDArray[np.float64]]:
    """The grid to resample to, None where the files' own is kept, and the matrix to it."""
    wanted = options.spacing_mm
    if options.align == "none":
        if wanted is None or has_spacing(classes, wanted):
            return None, np.eye(4)
        require_field(classes, wanted)
        grid = grid_with_spacing(classes, wanted)
        return grid, to_source(classes, grid)
    if options.align == "transforms":
        if scan.transform is None:
            raise DataError(f"{scan.name}: has no transform to the space of the template")
        world = read_transform(scan.transform)
    else:
        world = register(_brain_for_alignment(classes, image, options.mapping), options.align)
    grid = atlas_grid(wanted or _own_spacing(classes))
    matrix = to_source(classes, grid, world)
    if (np.abs(matrix[:3, :3]).max(axis=1) > classes.data.shape).any():
        raise DataError(f"{scan.name}: its transform makes the whole field smaller than a voxel of the template's grid")
    return grid, matrix


def _resample(image: Volume, matrix: NDArray[np.float64], grid: Grid, strip: bool) -> Volume:
    """The image on another grid; what was stripped stays 0, so that the brain keeps its edge."""
    data = resample_image(image.data, matrix, grid)
    if strip:
        data[~resample_mask(image.data > 0, matrix, grid)] = 0
    return Volume(data, grid.affine, image.where)


def _own_spacing(volume: Volume) -> tuple[float, float, float]:
    """Spacing along x, y and z, to a thousandth of a mm."""
    x, y, z = (round(float(s), 3) for s in volume.spacing)
    return x, y, z


def _brain_for_alignment(classes: Volume, image: Volume | None, mapping: LabelMapping) -> Volume:
    """What is registered: the classes in the shades of a T1 image where they are known, else the image, else a mask.

    Classes are preferred so that label maps and images of any contrast are aligned in the same way.
    """
    if mapping.t1:
        shades = np.asarray(mapping.t1, dtype=np.float32)
        return Volume(shades[classes.data], classes.affine, classes.where)
    if image is not None:
        return image
    return Volume((classes.data > 0).astype(np.float32), classes.affine, classes.where)


def _slice(labels: Volume, image: Volume | None, options: Options) -> Prepared:
    """The wanted planes, chosen by their classes, or the whole volume as a stack of planes."""
    spacing = plane_spacing(labels.spacing, options.axis)
    if options.volumes:
        stacks = [planes(v.data, options.axis)[None] for v in (labels, image) if v is not None]
        return _prepared(stacks, np.zeros(1, dtype=np.int64), spacing)
    brain = content_along(options.mapping.classes_of(labels.data), options.axis)
    content = brain if options.strip else content_along(labels.data, options.axis)
    at = np.flatnonzero(brain)
    # Aligned brains share the planes about the middle of the template's field; others have their own middle.
    centre = (len(content) - 1) / 2 if options.align != "none" else (at[0] + at[-1]) / 2
    step = max(1, round(options.every_mm / spacing[0]))
    try:
        chosen = choose_planes(content, options.slices, centre, step, options.min_content)
    except DataError as error:
        raise DataError(f"{labels.where}: {error}") from error
    stacks = [planes(v.data, options.axis, chosen) for v in (labels, image) if v is not None]
    return _prepared(stacks, chosen, spacing)


def _flat(labels: Volume, image: Volume | None) -> Prepared:
    """The one plane of neurite-OASIS: its arrays are (right to left, superior to inferior), 1 mm."""
    stacks = [v.data[:, :, 0].T[None, :, ::-1] for v in (labels, image) if v is not None]
    return _prepared(stacks, np.array([OASIS_PLANE]), (1.0, 1.0, 1.0))


def _prepared(stacks: list[NDArray], slice_index: NDArray, spacing: tuple[float, float, float]) -> Prepared:
    labels = np.ascontiguousarray(stacks[0], dtype=np.uint8)
    images = np.ascontiguousarray(stacks[1], dtype=np.float16) if len(stacks) == 2 else None
    return Prepared(labels, images, slice_index, spacing)
