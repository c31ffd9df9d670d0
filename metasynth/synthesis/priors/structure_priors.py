"""The intensities of structures: what a generator draws contrasts and textures from, matched to labels by name."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from metasynth.errors import DataError

EROSIONS = ("square", "cross", "none")
"""Which neighbours of a voxel that counts are of its structure too: all within one voxel along each axis (in 3D a
cube), those with a common face, or none need be."""


@final
@dataclass(frozen=True)
class Prior:
    """How bright one generation label is, and how rough.

    Attributes
    ----------
    name : str
        The label's.
    of_class : str
        The class that it is part of.
    mean : float
        Intensity, in [0, 1]: those of a cache, whose 0 and 1 are the 1 and 99 % quantiles of a scan's brain.
    spread : float
        Standard deviation of a person's intensity between people.
    texture : float
        Standard deviation within the structure of one person.
    people : int
        How many people it was seen in; 0: its values are those of its class.
    voxels : int
        How many voxels counted, all people's together.
    erosion : {'square', 'cross', 'none'}
        Which counted, see `EROSIONS`: the weakest that a person needed.
    cut : bool
        Whether most of them lay at an end of the scale; then spread and texture are those of its class.
    """

    name: str
    of_class: str
    mean: float = 0.0
    spread: float = 0.0
    texture: float = 0.0
    people: int = 0
    voxels: int = 0
    erosion: str = EROSIONS[-1]
    cut: bool = False

    @property
    def values(self) -> tuple[float, float, float]:
        """Mean, spread and texture."""
        return self.mean, self.spread, self.texture

    def __post_init__(self) -> None:
        for key, most in (("mean", 1.0), ("spread", math.inf), ("texture", math.inf)):
            value = getattr(self, key)
            if not (0 <= value <= most and math.isfinite(value)):
                expected = "a number in [0, 1]" if most == 1 else "a finite number of at least 0"
                raise DataError(f"{key} of {self.name!r}: expected {expected}, got {value!r}")


@final
@dataclass(frozen=True)
class StructurePriors:
    """The intensities of all generation labels.

    Attributes
    ----------
    labels : tuple of Prior
        (G,) in the order of the labels; 0 is what has no intensity.

    Raises
    ------
    DataError
        (a ValueError) when there are fewer than 2, two have one name, or the values of label 0 are not 0.
    """

    labels: tuple[Prior, ...]

    def __post_init__(self) -> None:
        if len(self.labels) < 2:
            raise DataError(f"labels: expected at least 2, the background first, got {len(self.labels)}")
        twice = next((name for at, name in enumerate(self.names) if name in self.names[:at]), None)
        if twice is not None:
            raise DataError(f"labels: expected different names, got {twice!r} twice")
        if any(self.labels[0].values):
            got = ", ".join(f"{value:g}" for value in self.labels[0].values)
            raise DataError(f"values of {self.names[0]!r}, label 0: expected 0, 0, 0 (it has no intensity), got {got}")

    @property
    def names(self) -> tuple[str, ...]:
        """(G,) names of the labels."""
        return tuple(label.name for label in self.labels)

    @property
    def mean(self) -> tuple[float, ...]:
        """(G,) mean intensities."""
        return tuple(label.mean for label in self.labels)

    @property
    def spread(self) -> tuple[float, ...]:
        """(G,) standard deviations between people."""
        return tuple(label.spread for label in self.labels)

    @property
    def texture(self) -> tuple[float, ...]:
        """(G,) standard deviations within the structure of one person."""
        return tuple(label.texture for label in self.labels)

    def of_labels(self, names: Sequence[str], classes: Sequence[str]) -> "StructurePriors":
        """The priors of other generation labels, matched by name.

        A label without a namesake takes the values of its class: the means of those of its structures, by the voxels
        that these are from. Label 0 has none, nor has one of the class of label 0 of which no structure is known.

        Parameters
        ----------
        names, classes : sequence of str
            (G',) generation labels, and the class that each is part of.

        Raises
        ------
        DataError
            (a ValueError) when neither a label nor its class is known.
        """
        known = {label.name: label for label in self.labels[1:]}
        rest = [
            known[name] if name in known else self._of_class(name, own)
            for name, own in zip(names[1:], classes[1:], strict=True)
        ]
        matched = (replace(label, of_class=own) for label, own in zip(rest, classes[1:], strict=True))
        return StructurePriors((Prior(names[0], classes[0]), *matched))

    def _of_class(self, name: str, own: str) -> Prior:
        """A label that is not here, with the means of the values of its class, by the voxels they are from."""
        peers = [label for label in self.labels[1:] if label.of_class == own]
        if not peers and own != self.labels[0].of_class:
            there = ", ".join(dict.fromkeys(label.of_class for label in self.labels))
            raise DataError(
                f"expected values of {name!r} or of its class {own!r}, got those of {', '.join(self.names[1:])} in "
                f"the classes {there}"
            )
        weights = [label.voxels for label in peers]
        if not any(weights):
            weights = [1] * len(peers)
        mean, spread, texture = (average([peer.values[at] for peer in peers], weights) for at in range(3))
        return Prior(name, own, mean, spread, texture)

    def repeated(self, times: int) -> "StructurePriors":
        """Each label but 0 several times, one after the other, as `ClusteredGenerator` divides them."""
        parts = (replace(label, name=f"{label.name} {n + 1}") for label in self.labels[1:] for n in range(times))
        return StructurePriors((self.labels[0], *parts))


def average(values: Sequence[float], weights: Sequence[float]) -> float:
    """Their mean by weights, in whatever order they come; 0 of none."""
    if not values:
        return 0.0
    return math.fsum(map(math.prod, zip(values, weights, strict=True))) / math.fsum(weights)
