"""What an HDF5 cache says about its arrays, whose format `schema` describes."""

from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any

from metasynth.data.validation import LabelList

FORMAT = "metasynth-cache"
SIMULATED, REMAPPED = "SIMULATED", "REMAPPED"
"""Marks of images that are no scans, with which `CacheInfo.mapping` begins."""


@dataclass(frozen=True)
class CacheInfo:
    """What a cache says about its arrays.

    Attributes
    ----------
    class_names : tuple of str
        Name of class 0, 1, ..., K-1; class 0 is the background.
    mapping : str
        How the classes were made from the source's labels.
    spacing_mm : tuple of float
        Distance in mm between voxel centres along each axis of S.
    axis : str
        Slicing axis ("coronal", "axial", "sagittal"), or "volume"; several with commas between them.
    orientation : str
        For each axis of S the direction in which its index grows, one letter each of RLAPSI; likewise for several.
    source : str
        Where the data come from, with the notices and citations they ask for.
    created_by : str
        The program that wrote the file.
    digest : str
        SHA-256 of the content in hexadecimal; `write_cache` fills it in.
    generation_names : tuple of str
        Name of generation label 0, 1, ..., G-1, of which 0 is what has no intensity; empty where these are the classes.
    target : tuple of int
        (G,) class that each generation label is part of; empty likewise.
    shows : str
        "brain": the background is 0 in images, as what is not brain was cut off; "head": it is air.
    """

    class_names: tuple[str, ...]
    mapping: str
    spacing_mm: tuple[float, ...]
    axis: str
    orientation: str
    source: str
    created_by: str
    digest: str = ""
    generation_names: tuple[str, ...] = ()
    target: tuple[int, ...] = ()
    shows: str = "brain"

    @property
    def version(self) -> int:
        """Of the format, the least that can say this."""
        return 4 if len(self.axes) > 1 else 3 if self.shows_heads else 2 if self.has_generation else 1

    @property
    def axes(self) -> tuple[str, ...]:
        """The slicing axes."""
        return tuple(self.axis.split(","))

    @property
    def views(self) -> tuple[str, ...]:
        """The orientation of the items along each of them."""
        return tuple(self.orientation.split(","))

    @property
    def has_generation(self) -> bool:
        """Whether there are generation labels other than the classes."""
        return bool(self.generation_names or self.target)

    @property
    def shows_heads(self) -> bool:
        """Whether whole heads are shown, not brains alone."""
        return self.shows == "head"

    @property
    def marks(self) -> tuple[str, ...]:
        """What says that the images are no scans, the last that was done to them first; nothing where they are."""
        found = takewhile((SIMULATED, REMAPPED).__contains__, self.mapping.split("; "))
        return tuple(dict.fromkeys(found))

    @property
    def stored(self) -> LabelList:
        """What the labels in the file are."""
        if not self.has_generation:
            return LabelList(self.class_names, "classes of class_names")
        return LabelList(self.generation_names, "labels of generation_names")

    def described(self) -> dict[str, Any]:
        """The part that belongs to the content digest: all but the writer's name and the digest itself."""
        fields = asdict(self)
        del fields["created_by"], fields["digest"]
        if not self.has_generation:
            del fields["generation_names"], fields["target"]
        if self.version < 3:
            del fields["shows"]
        fields["spacing_mm"] = [float(s) for s in self.spacing_mm]
        return {"format": FORMAT, "version": self.version, **fields}
