"""An older brain made of a younger one: larger ventricles, a thinner cortex.

The ventricles grow by a deformation that starts at their walls and fades away from them: points of the older brain take
what the younger one has nearer to the ventricles, following the velocity -exp(-(d / FADE_MM)^2) n, with d the distance
from the ventricles and n its direction, for as long as gives the wanted volume. What lies around is pushed outwards and
compressed, white matter most.

The cortex thins by fluid that gains on the tissue beside it: its share is multiplied before the shares are made to sum
to 1, so that the outer surface recedes and sulci widen while the border to white matter stays. Thickness is then as the
volume over that border, so a thinner cortex by 7 % is one with 7 % less volume.

How much: ventricular volume grows by some 20 % a decade, and faster late (Kaye et al. 1992, J Am Geriatr Soc
40:225-231), which makes x 1.5 to 2.5 in about 25 to 50 years; cortical thickness falls by .35 % a year on average
(Storsve et al. 2014, J Neurosci 34:8488-8498), which makes 5 to 10 % in 15 to 30 years. Nothing else of ageing is
simulated: no lesions of white matter, no change of relaxation times.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from metasynth.data_prep.cohorts.template import CORTEX, VENTRICLES, Template, load_template
from metasynth.data_prep.cohorts.tissue_maps import TissueMaps, load_tissue_maps
from numpy.typing import NDArray
from scipy import ndimage

FloatArray = NDArray[np.floating]

FADE_MM = 15.0
_STEP_MM = 0.5
_MOST_MM = 4.0
_GAINS = (1.0, 2.0, 3.5, 6.0)
_SMOOTHING_MM = 1.5


@dataclass(frozen=True)
class AgeingModel:
    """How much older brains differ from the template, drawn uniformly for every subject.

    Attributes
    ----------
    ventricles : tuple (float, float)
        Volume of the ventricles over that without ageing.
    thinning : tuple (float, float)
        Fraction of the cortex's thickness that is lost to fluid; the deformation takes some 1 to 2 % more.
    """

    ventricles: tuple[float, float] = (1.6, 2.4)
    thinning: tuple[float, float] = (0.04, 0.08)


@dataclass(frozen=True)
class Ageing:
    """What becomes of one brain.

    Attributes
    ----------
    growth_mm : float
        How far the walls of the ventricles move, along the velocity.
    fluid_gain : float
        What the share of the fluid outside the ventricles is multiplied by.
    """

    growth_mm: float = 0.0
    fluid_gain: float = 1.0


@dataclass(frozen=True)
class AgeingTables:
    """The velocity, and what growth and gain do to the template.

    Attributes
    ----------
    velocity : numpy.ndarray
        (3, X, Y, Z) float32, in voxels of 1 mm, on the template's grid.
    growths_mm : numpy.ndarray
        Growths at which the volume of the ventricles is known.
    ventricles : numpy.ndarray
        That volume over the one without growth.
    thinning : numpy.ndarray
        Fraction of the cortex that is lost at each of the gains that are tried.
    """

    velocity: FloatArray
    growths_mm: FloatArray
    ventricles: FloatArray
    thinning: FloatArray

    def draw(self, rng: np.random.Generator, model: AgeingModel) -> Ageing:
        """Draw the ageing of one subject."""
        return self.ageing(rng.uniform(*model.ventricles), rng.uniform(*model.thinning))

    def ageing(self, ventricles: float, thinning: float) -> Ageing:
        """The ageing that gives the template this volume of the ventricles and this thinning of its cortex."""
        gain = np.interp(thinning, self.thinning, np.log(_GAINS))
        return Ageing(float(np.interp(ventricles, self.ventricles, self.growths_mm)), float(np.exp(gain)))

    def younger(self, points: FloatArray, growth_mm: float) -> FloatArray:
        """Where points (3, P) of the older brain lie in the younger one, in voxels of the template."""
        return _followed(self.velocity, points, growth_mm)


@lru_cache(maxsize=1)
def load_ageing() -> AgeingTables:
    """The tables of the template; takes some seconds, kept for the process."""
    return make_ageing(load_template(), load_tissue_maps())


def make_ageing(template: Template, maps: TissueMaps) -> AgeingTables:
    """Measure on a template what growth and gain do."""
    ventricles = template.labels == VENTRICLES
    velocity = _velocity(ventricles)
    growths = np.arange(0.0, _MOST_MM + 0.5)
    return AgeingTables(velocity, growths, _volumes(ventricles, velocity, growths), _thinning(template, maps))


def _velocity(ventricles: NDArray[np.bool_]) -> FloatArray:
    """(3, X, Y, Z): towards the ventricles, or in them towards their middle, fading with the distance from them."""
    outside = ndimage.distance_transform_edt(~ventricles)
    distance = outside - ndimage.distance_transform_edt(ventricles)
    direction = np.stack(
        [ndimage.gaussian_filter1d(ndimage.gaussian_filter(distance, _SMOOTHING_MM), 1.0, axis, 1) for axis in range(3)]
    )
    # The smoothed distance is less steep on ridges alone, where the direction turns round: there nothing moves.
    return (-np.exp(-((outside / FADE_MM) ** 2)) * direction).astype(np.float32)


def _volumes(ventricles: NDArray[np.bool_], velocity: FloatArray, growths: FloatArray) -> FloatArray:
    """Volume of the ventricles after each of the evenly spaced growths, over that after none."""
    near = ndimage.binary_dilation(ventricles, iterations=int(_MOST_MM) + 2)
    points: FloatArray = np.stack(np.nonzero(near)).astype(np.float64)
    indicator = ventricles.astype(np.float32)
    volumes = []
    for growth, before in zip(growths, [0.0, *growths], strict=False):
        points = _followed(velocity, points, growth - before)
        volumes.append(ndimage.map_coordinates(indicator, points, order=1).sum())
    return np.array(volumes) / volumes[0]


def _thinning(template: Template, maps: TissueMaps) -> FloatArray:
    """Fraction of the cortex that is lost at each of _GAINS, on every eighth plane."""
    planes = template.t1[:, ::8] > 0
    points = np.stack(np.nonzero(planes)).astype(np.float64)
    points[1] *= 8
    left = [maps.mixture(points, gain)[1][CORTEX].sum(dtype=np.float64) for gain in _GAINS]
    return 1.0 - np.array(left) / left[0]


def _followed(velocity: FloatArray, points: FloatArray, growth_mm: float) -> FloatArray:
    """Points (3, P) moved along the velocity for `growth_mm`, by Euler's method."""
    steps = int(np.ceil(growth_mm / _STEP_MM))
    for _ in range(steps):
        points = points + growth_mm / steps * _sample(velocity, points)
    return points


def _sample(field: FloatArray, points: FloatArray) -> FloatArray:
    """Linear interpolation (3, P) of a field (3, X, Y, Z) at points (3, P) in voxels; the edges are continued."""
    return np.stack([ndimage.map_coordinates(part, points, order=1, mode="nearest") for part in field])
