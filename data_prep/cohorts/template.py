"""One labelled brain: the MNI ICBM152 2009a symmetric T1 template, divided into five classes once.

The T1 image and the grey and white matter probability maps are those nilearn carries in its wheel
(1 mm, 197x233x189), so nothing is downloaded. The maps say tissue, not structure: they call the cortex
and the caudate alike, and give the thalamus and the pallidum half to white matter. The structures are
therefore delineated here by geometry in template coordinates, refined by the maps:

* ventricles: cerebrospinal fluid (brain minus grey minus white) inside a union of ellipsoids that
  covers the lateral ventricles, their temporal horns and the third ventricle;
* subcortical grey: caudate, accumbens, putamen, pallidum, thalamus, hippocampus, amygdala, each an
  ellipsoid inside which voxels less white than a threshold belong to the nucleus;
* cortical grey: the grey matter that remains outside the core of the brain; within the core, what
  remains is white matter (hypothalamus, claustrum and the walls of the ventricles among it);
* the brain stem is white matter, as in the usual merging of FreeSurfer labels;
* background: everything else, the cerebellum and the fluid around the brain included.

Coordinates are millimetres in the template's space (x to the right, y anterior, z superior). The
template is symmetric, so every shape is given for one side and applied to |x|.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FloatArray = NDArray[np.floating]
BoolArray = NDArray[np.bool_]

CLASS_NAMES = ("background", "white matter", "cortical grey", "subcortical grey", "ventricles")
BACKGROUND, WHITE, CORTEX, DEEP, VENTRICLES = range(5)
FIELD_MM = (-58, 46)  # the coronal planes that are kept: the slices of a cohort, and room to deform them

SOURCE = (
    "One template, warped: MNI ICBM152 2009a symmetric nonlinear T1 average with its grey and white matter "
    "maps, as carried by nilearn; every subject is a seeded smooth deformation of this one average brain. "
    "Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, "
    "McGill University. Permission to use, copy, modify, and distribute this software and its documentation "
    "for any purpose and without fee is hereby granted, provided that the above copyright notice appear in "
    "all copies. The authors and McGill University make no representations about the suitability of this "
    'software for any purpose. It is provided "as is" without express or implied warranty. The authors are '
    "not responsible for any data loss, equipment damage, property loss, or injury to subjects or patients "
    "resulting from the use or misuse of this software package. "
    "Cite: Fonov V, Evans AC, Botteron K, Almli CR, McKinstry RC, Collins DL, BDCG. Unbiased average "
    "age-appropriate atlases for pediatric studies. NeuroImage 54(1):313-327, 2011, "
    "doi:10.1016/j.neuroimage.2010.07.033."
)


@dataclass(frozen=True)
class Ellipsoid:
    """A solid ellipsoid on both sides of the midline.

    Attributes
    ----------
    centre : tuple (float, float, float)
        (|x|, y, z) in mm.
    radii : tuple (float, float, float)
        Semi-axes in mm along the ellipsoid's own x, y and z.
    yaw : float
        Degrees; positive brings the posterior end outwards (rotation about z).
    pitch : float
        Degrees; positive brings the posterior end upwards (rotation about x).
    max_white : float
        Voxels whose white matter probability is above this are left out.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    yaw: float = 0.0
    pitch: float = 0.0
    max_white: float = 1.0

    def contains(self, x: FloatArray, y: FloatArray, z: FloatArray) -> BoolArray:
        """True inside; x, y, z are coordinates in mm that broadcast to (X, Y, Z)."""
        return self.depth(x, y, z) <= 1.0

    def depth(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """0 at the centre, 1 at the surface and more outside, quadratic along every ray from the centre."""
        dx, dy, dz = np.abs(x) - self.centre[0], y - self.centre[1], z - self.centre[2]
        c, s = np.cos(np.deg2rad(self.yaw)), np.sin(np.deg2rad(self.yaw))
        dx, dy = c * dx + s * dy, -s * dx + c * dy
        c, s = np.cos(np.deg2rad(self.pitch)), np.sin(np.deg2rad(self.pitch))
        dy, dz = c * dy - s * dz, s * dy + c * dz
        return (dx / self.radii[0]) ** 2 + (dy / self.radii[1]) ** 2 + (dz / self.radii[2]) ** 2


NUCLEI = {
    "caudate head": Ellipsoid((12, 13, 5), (8.5, 16, 17), max_white=0.6),
    "caudate body": Ellipsoid((16.5, -7, 20.5), (5, 20, 6.5), max_white=0.6),
    "accumbens": Ellipsoid((10, 11, -7), (8, 8, 6.5), max_white=0.6),
    "putamen": Ellipsoid((25, 1, 1), (8, 23, 14.5), yaw=15, max_white=0.75),
    "pallidum": Ellipsoid((19.5, -5, -0.5), (6, 12, 7), yaw=25, max_white=0.93),
    "thalamus": Ellipsoid((11.5, -18.5, 7.5), (10.5, 16.5, 11), yaw=19, max_white=0.8),
    "hippocampus": Ellipsoid((27.5, -21, -14.5), (11, 20, 6.5), pitch=28, max_white=0.5),
    "amygdala": Ellipsoid((23, -4, -20), (10, 8, 8.5), max_white=0.6),
}
VENTRICULAR_SPACE = (
    Ellipsoid((12, -9, 21), (13, 36, 11)),
    Ellipsoid((9, 15, 8), (11, 20, 16)),
    Ellipsoid((22, -37, 11), (16, 15, 19)),
    Ellipsoid((34, -24, -13), (6, 17, 7), pitch=25),
    Ellipsoid((0, -11, 0), (5, 16, 14)),
)
CORE = (
    Ellipsoid((0, -5, 4), (31, 30, 20)),
    Ellipsoid((0, -17, -8), (20, 14, 12)),
    Ellipsoid((21, 11, -2), (10.5, 12, 12.5)),
    Ellipsoid((24, -37, 5), (15, 9, 13)),
)
BRAIN_STEM = (
    Ellipsoid((0, -24, -12), (15, 14, 13)),
    Ellipsoid((0, -27, -35), (21, 17, 19)),
    Ellipsoid((0, -40, -58), (12, 14, 20)),
)


@dataclass(frozen=True)
class Template:
    """The labelled template.

    Attributes
    ----------
    t1 : numpy.ndarray
        (X, Y, Z) float32 in [0, 1], 0 outside the brain.
    labels : numpy.ndarray
        (X, Y, Z) uint8, indices into CLASS_NAMES.
    grey : numpy.ndarray
        (X, Y, Z) float32, probability of grey matter.
    white : numpy.ndarray
        (X, Y, Z) float32, probability of white matter.
    origin : tuple (float, float, float)
        Coordinates in mm of voxel (0, 0, 0); voxels are 1 mm, axes x, y, z.
    file_y : float
        Coordinate in mm of coronal plane 0 of nilearn's file, of which these arrays are a part.
    """

    t1: FloatArray
    labels: NDArray[np.uint8]
    grey: FloatArray
    white: FloatArray
    origin: tuple[float, float, float]
    file_y: float


def union(shapes: Iterable[Ellipsoid], x: FloatArray, y: FloatArray, z: FloatArray) -> BoolArray:
    """True inside any of the shapes, (X, Y, Z)."""
    return np.logical_or.reduce([shape.contains(x, y, z) for shape in shapes])


def _largest(mask: BoolArray, keep: int) -> BoolArray:
    """The `keep` largest face-connected components of a mask."""
    components, n = ndimage.label(mask)
    if n <= keep:
        return mask
    sizes = np.bincount(components.ravel())[1:]
    return np.isin(components, 1 + np.argsort(sizes)[::-1][:keep])


def delineate(
    t1: FloatArray, grey: FloatArray, white: FloatArray, origin: tuple[float, float, float]
) -> NDArray[np.uint8]:
    """Divide the template into the classes of CLASS_NAMES; all arrays (X, Y, Z), 1 mm, see the module."""
    x, y, z = (axis + start for axis, start in zip(np.ogrid[tuple(slice(n) for n in t1.shape)], origin, strict=True))
    brain = t1 > 0
    fluid = np.clip(1.0 - grey - white, 0.0, 1.0)
    tissue = np.argmax(np.stack([fluid, grey, white]), axis=0)
    is_fluid, is_grey, is_white = (brain & (tissue == index) for index in range(3))

    # The cistern behind the third ventricle is as central and as dark as a ventricle; only its place tells.
    cistern = (y < -25) & (((np.abs(x) < 9) & (z < 17)) | ((np.abs(x) < 19) & (z < 8)))
    ventricles = is_fluid & union(VENTRICULAR_SPACE, x, y, z) & ~cistern
    deep = np.zeros_like(brain)
    for nucleus in NUCLEI.values():
        inside = nucleus.contains(x, y, z) & brain & ~is_fluid & (white <= nucleus.max_white)
        deep |= _largest(ndimage.binary_opening(inside), keep=2)
    deep = ndimage.binary_closing(deep) & brain & ~is_fluid

    # Partial volume paints a grey rim round the ventricles; it is wall or fluid, never cortex.
    rim = ndimage.binary_dilation(ventricles, iterations=3) & is_grey & ~deep
    stem = union(BRAIN_STEM, x, y, z)
    tentorium = -15.0 - 0.48 * (np.abs(x) - 10.0) - 0.8 * (y + 36.0)
    cerebellum = (y < -26) & (z < tentorium) & ~stem

    labels = np.full(t1.shape, BACKGROUND, dtype=np.uint8)
    labels[is_white] = WHITE
    labels[is_grey] = CORTEX
    labels[(is_grey & union(CORE, x, y, z)) | (stem & (is_grey | is_white)) | rim] = WHITE
    labels[deep] = DEEP
    labels[ventricles | (rim & (t1 < 0.5))] = VENTRICLES
    labels[np.broadcast_to(cerebellum, labels.shape)] = BACKGROUND
    return labels


@lru_cache(maxsize=1)
def load_template() -> Template:
    """Read the template from nilearn's own files and label it; takes some seconds, kept for the process."""
    from nilearn.datasets import (  # costs seconds to import
        load_mni152_gm_template,
        load_mni152_template,
        load_mni152_wm_template,
    )

    image = load_mni152_template(resolution=1)
    t1, grey, white = (
        np.asarray(volume.dataobj, dtype=np.float32)
        for volume in (image, load_mni152_gm_template(resolution=1), load_mni152_wm_template(resolution=1))
    )
    start = image.affine[:3, 3]
    used = _bounding_box(t1 > 0, int(FIELD_MM[0] - start[1]), int(FIELD_MM[1] - start[1]))
    t1, grey, white = (np.ascontiguousarray(volume[used]) for volume in (t1, grey, white))
    x, y, z = (float(first + axis.start) for first, axis in zip(start, used, strict=True))
    labels = delineate(t1, grey, white, (x, y, z))
    return Template(t1=t1, labels=labels, grey=grey, white=white, origin=(x, y, z), file_y=float(start[1]))


def _bounding_box(brain: BoolArray, first: int, last: int) -> tuple[slice, slice, slice]:
    """The box that holds the brain in coronal planes first..last, one voxel of background around it."""
    slab = brain[:, first : last + 1]
    x, z = (np.flatnonzero(slab.any(axis=axes)) for axes in ((1, 2), (0, 1)))
    return (
        slice(max(0, x[0] - 1), x[-1] + 2),
        slice(first, last + 1),
        slice(max(0, z[0] - 1), z[-1] + 2),
    )
