"""What every voxel of the template holds: how much of which tissue, and to which class that belongs.

The grey and white matter probability maps of the template say tissue; here the grey of each subcortical nucleus
becomes a tissue of its own, and what is neither grey nor white is fluid. A tissue may belong to several classes: fluid
to the ventricles or to the background, grey to the cortex, to white matter (as everywhere in these cohorts:
hypothalamus, claustrum, brain stem) or to the background (cerebellum). Further maps say which.

Maps are sampled at any points and sharpened there, so that a border between tissues is as sharp as the points are dense
and not as blurred as an average of 152 brains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from metasynth.data_prep.cohorts.template import (
    BACKGROUND,
    BRAIN_STEM,
    CLASS_NAMES,
    CORE,
    CORTEX,
    DEEP,
    NUCLEI,
    VENTRICLES,
    WHITE,
    Template,
    load_template,
    union,
)
from numpy.typing import NDArray
from scipy import ndimage

FloatArray = NDArray[np.floating]

NUCLEUS_TISSUES = ("caudate", "putamen", "pallidum", "thalamus", "hippocampus", "amygdala", "accumbens")
TISSUES = ("cerebrospinal fluid", "white matter", "cortical grey", *NUCLEUS_TISSUES)
FLUID, WHITE_MATTER, GREY = range(3)
SHARPNESS = 2.0
# A nucleus's border is a ramp about 2 mm wide at half its height, as that of the maps.
_NUCLEUS_SIGMA = 0.8
# The template's T1 in the middle of the ventricles and of white matter (medians).
_T1_FLUID, _T1_WHITE = 0.27, 0.87


@dataclass(frozen=True)
class Map:
    """A map of the template, cut to where it is not 0.

    Attributes
    ----------
    values : numpy.ndarray
        (X, Y, Z) float32.
    start : tuple (int, int, int)
        Voxel of the template that is its first one.
    """

    values: FloatArray
    start: tuple[int, int, int]

    @classmethod
    def of(cls, volume: FloatArray) -> "Map":
        """The part of a volume that is not 0, and a voxel around it."""
        box = ndimage.find_objects((volume > 0).astype(np.int8))[0]
        low = [max(0, axis.start - 1) for axis in box]
        high = [axis.stop + 1 for axis in box]
        part = volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        return cls(np.ascontiguousarray(part, dtype=np.float32), (low[0], low[1], low[2]))

    def at(self, points: FloatArray) -> FloatArray:
        """Values (P,) float32 at points (3, P) in voxels of the template, linearly interpolated, 0 beyond."""
        local = points - np.asarray(self.start, dtype=points.dtype)[:, None]
        size = np.asarray(self.values.shape)[:, None]
        near = ((local > -1) & (local < size)).all(axis=0)
        found = np.zeros(points.shape[1], dtype=np.float32)
        found[near] = ndimage.map_coordinates(self.values, local[:, near], np.float32, order=1, mode="constant")
        return found


@dataclass(frozen=True)
class TissueMaps:
    """Maps of one template; all values are from 0 to 1.

    Attributes
    ----------
    brain : Map
        1 in the brain.
    solid : tuple of Map
        One map each of TISSUES[1:], the share of the voxel; the rest of the brain is fluid.
    ventricular : Map
        Share of the fluid that is in the ventricles.
    core : Map
        Share of the grey that counts as white matter.
    outer : Map
        Share of grey and white that counts as background.
    """

    brain: Map
    solid: tuple[Map, ...]
    ventricular: Map
    core: Map
    outer: Map

    def mixture(self, points: FloatArray, fluid_gain: float | FloatArray = 1.0) -> tuple[FloatArray, FloatArray]:
        """Tissues and classes at points of the brain.

        Parameters
        ----------
        points : numpy.ndarray
            (3, P) voxels of the template; where outside the brain, fluid of the background.
        fluid_gain : float or numpy.ndarray
            See `sharpened`; applied to the fluid outside the ventricles.

        Returns
        -------
        tuple (numpy.ndarray, numpy.ndarray)
            Fractions of TISSUES (T, P) and of CLASS_NAMES (K, P), each summing to 1.
        """
        sample = self.sample(points, fluid_gain)
        return sample.tissues, sample.classes()

    def sample(self, points: FloatArray, fluid_gain: float | FloatArray = 1.0) -> "Sample":
        """What the maps say at points of the brain; see `mixture`."""
        solid = np.stack([tissue.at(points) for tissue in self.solid])
        ventricular = self.ventricular.at(points)
        gain = 1.0 + (np.float32(fluid_gain) - 1.0) * (1.0 - ventricular)
        tissues = sharpened(np.concatenate([np.maximum(0.0, 1.0 - solid.sum(axis=0))[None], solid]), gain)
        return Sample(tissues, ventricular, self.core.at(points), self.outer.at(points))


class Sample(NamedTuple):
    """`TissueMaps` at P points of the brain.

    Attributes
    ----------
    tissues : numpy.ndarray
        (T, P) fractions of TISSUES, which sum to 1.
    ventricular, core, outer : numpy.ndarray
        (P,) shares, see `TissueMaps`.
    """

    tissues: FloatArray
    ventricular: FloatArray
    core: FloatArray
    outer: FloatArray

    def classes(self) -> FloatArray:
        """Fractions (K, P) of CLASS_NAMES, which sum to 1."""
        tissues, ventricular, core, outer = self
        fluid, white, grey = tissues[FLUID], tissues[WHITE_MATTER], tissues[GREY]
        inner = 1.0 - outer
        classes = np.zeros((len(CLASS_NAMES), tissues.shape[1]), dtype=np.float32)
        classes[BACKGROUND] = fluid * (1.0 - ventricular) + (white + grey) * outer
        classes[WHITE] = (white + grey * core) * inner
        classes[CORTEX] = grey * (1.0 - core) * inner
        classes[DEEP] = tissues[GREY + 1 :].sum(axis=0)
        classes[VENTRICLES] = fluid * ventricular
        return classes


def sharpened(shares: FloatArray, fluid_gain: float | FloatArray = 1.0) -> FloatArray:
    """Shares (T, P) to the power of SHARPNESS, the fluid's times `fluid_gain` (scalar or (P,)), summing to 1 again."""
    powers = shares**SHARPNESS
    powers[FLUID] *= fluid_gain
    return powers / powers.sum(axis=0)


@lru_cache(maxsize=1)
def load_tissue_maps() -> TissueMaps:
    """The maps of the template; takes some seconds, kept for the process."""
    return make_tissue_maps(load_template())


def make_tissue_maps(template: Template) -> TissueMaps:
    """Divide the probability maps of a template among TISSUES and CLASS_NAMES, see the module."""
    axes = np.ogrid[tuple(slice(n) for n in template.t1.shape)]
    x, y, z = (axis + start for axis, start in zip(axes, template.origin, strict=True))
    brain = template.t1 > 0
    excess = np.maximum(1.0, template.grey + template.white)
    grey, white = (np.where(brain, tissue / excess, 0.0) for tissue in (template.grey, template.white))
    nuclei = _nuclei(template)
    of_nuclei = nuclei * (grey + white)

    # Fluid beside white matter looks grey to the maps; the brightness of the wall says how much of each it is.
    ventricles = template.labels == VENTRICLES
    wall = ndimage.binary_dilation(ventricles, iterations=3)
    white = np.where(wall, np.clip((template.t1 - _T1_FLUID) / (_T1_WHITE - _T1_FLUID), 0.0, 1.0), white)
    grey = np.where(wall, 0.0, grey)
    elsewhere = 1.0 - nuclei.sum(axis=0)

    is_fluid = 1.0 - template.grey - template.white > np.maximum(template.grey, template.white)
    core = union(CORE, x, y, z) | union(BRAIN_STEM, x, y, z) | wall
    return TissueMaps(
        brain=Map.of(brain),
        solid=tuple(Map.of(part) for part in (white * elsewhere, grey * elsewhere, *of_nuclei)),
        ventricular=Map.of(ndimage.binary_dilation(ventricles, iterations=2)),
        core=Map.of(core & brain),
        outer=Map.of((template.labels == BACKGROUND) & brain & ~is_fluid),
    )


def _nuclei(template: Template) -> FloatArray:
    """Soft indicators (7, X, Y, Z) of NUCLEUS_TISSUES: a voxel of the class goes to the ellipsoid it is deepest in."""
    voxels = np.nonzero(template.labels == DEEP)
    x, y, z = (index + start for index, start in zip(voxels, template.origin, strict=True))
    names = list(NUCLEI)
    nearest = np.argmin([NUCLEI[name].depth(x, y, z) for name in names], axis=0)
    soft = np.zeros((len(NUCLEUS_TISSUES), *template.labels.shape), dtype=np.float32)
    for indicator, tissue in zip(soft, NUCLEUS_TISSUES, strict=True):
        indicator[voxels] = np.isin(nearest, _indices(names, tissue))
        box = tuple(slice(max(0, v.min() - 3), v.max() + 4) for v in voxels)
        indicator[box] = ndimage.gaussian_filter(indicator[box], _NUCLEUS_SIGMA, truncate=3.0)
    return soft


def _indices(names: Sequence[str], tissue: str) -> list[int]:
    """Which of the shapes are parts of a nucleus: "caudate" is both "caudate head" and "caudate body"."""
    return [i for i, name in enumerate(names) if name.split()[0] == tissue]
