"""What the slices of a simulated person hold: tissues, classes, and the structures that the classes are made of.

What simulated images show beside the classes is a structure too: fluid outside the ventricles, and the cerebellum
without its white matter, whose folia are white and grey.
"""

from dataclasses import dataclass

import numpy as np
from metasynth.data_prep.cohorts.template import BACKGROUND, CORTEX, DEEP, VENTRICLES, WHITE
from metasynth.data_prep.cohorts.tissue_maps import FLUID, GREY, NUCLEUS_TISSUES, WHITE_MATTER, Sample
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]

_STRUCTURES = (
    ("background", BACKGROUND),
    ("white matter", WHITE),
    ("grey within white matter", WHITE),  # brain stem, hypothalamus, claustrum
    ("cortical grey", CORTEX),
    *((name, DEEP) for name in NUCLEUS_TISSUES),
    ("ventricles", VENTRICLES),
    ("fluid outside the ventricles", BACKGROUND),
    ("cerebellar white", BACKGROUND),
    ("cerebellar grey", BACKGROUND),
)
STRUCTURE_NAMES = tuple(name for name, _ in _STRUCTURES)
TARGET = tuple(k for _, k in _STRUCTURES)


def structure_fractions(sample: Sample) -> FloatArray:
    """Fractions (G, P) of the structures at points of the brain; of each class they sum to its own."""
    tissues, ventricular, core, outer = sample
    fluid, white, grey = tissues[FLUID], tissues[WHITE_MATTER], tissues[GREY]
    inner = 1.0 - outer
    return np.stack(
        [
            np.zeros_like(fluid),
            white * inner,
            grey * core * inner,
            grey * (1.0 - core) * inner,
            *tissues[GREY + 1 :],
            fluid * ventricular,
            fluid * (1.0 - ventricular),
            white * outer,
            grey * outer,
        ]
    )


def structure_labels(classes: NDArray[np.integer], fractions: FloatArray) -> NDArray[np.uint8]:
    """Generation labels (n, *S) uint8: of the class (n, *S) of a pixel the structure with the largest fraction.

    Fractions are (n, G, *S); where there are none, as outside the brain, the label is 0.
    """
    of_class = np.reshape(TARGET, (-1, *(1,) * (classes.ndim - 1))) == classes[:, None]
    return np.where(of_class, fractions, -1.0).argmax(axis=1).astype(np.uint8)


@dataclass(frozen=True)
class Anatomy:
    """What lies in the slices of one person.

    Attributes
    ----------
    tissues : numpy.ndarray
        (n, T, H, W) float32, fraction of each pixel of the brain that each of TISSUES takes; 0 elsewhere.
    classes : numpy.ndarray
        (n, K, H, W) float32, likewise for CLASS_NAMES; all background elsewhere.
    planes : numpy.ndarray
        (n,) coronal planes, mm.
    structures : numpy.ndarray or None
        (n, G, H, W) float32, likewise for STRUCTURE_NAMES, 0 outside the brain; None where they are not asked for.
    """

    tissues: FloatArray
    classes: FloatArray
    planes: FloatArray
    structures: FloatArray | None = None

    def labels(self) -> NDArray[np.uint8]:
        """(n, H, W): the class with the largest fraction of a pixel, or of that class the structure."""
        classes = self.classes.argmax(axis=1).astype(np.uint8)
        return classes if self.structures is None else structure_labels(classes, self.structures)
