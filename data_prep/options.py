"""What is done to every subject that goes into a cache."""

from dataclasses import dataclass, field, replace

from metasynth.data_prep.labels import LabelMapping, Unknown
from metasynth.data_prep.slicing import SliceChoice
from metasynth.data_prep.volumes.align import Align
from metasynth.data_prep.volumes.files import Unit
from metasynth.data_prep.volumes.resample import Interpolation


@dataclass(frozen=True)
class Options:
    """What is done to every subject.

    Attributes
    ----------
    mapping : LabelMapping
        Ids to classes.
    unknown : Unknown
        What happens to ids the mapping does not name.
    axis : str
        Slicing axis ("coronal", "axial", "sagittal"), or several with commas between them.
    slices : SliceChoice
        Which planes.
    every_mm : float
        Distance of the planes that are taken around the centre, rounded to whole voxels, at least one.
    min_content : float
        Least share of the fullest plane's labels that a plane must hold.
    volumes : bool
        Whole volumes, as stacks of planes along the axis, instead of slices.
    spacing_mm : tuple (float, float, float) or None
        Spacing along x, y and z; None keeps that of the file.
    interpolation : Interpolation
        How classes are put on another grid.
    align : Align
        Which transform to the space of the template is applied.
    strip : bool
        Set what lies outside the brain to 0: outside the mask given, or where the label is 0 or of the head. If not,
        whole heads are shown: images are scaled as such, and items are chosen and cut by the head.
    resample_labels : bool
        Put a label map (and mask) of another grid on the image's.
    flat : bool
        The files hold one plane, turned as those of neurite-OASIS.
    unit : Unit or None
        What the affines of all files are in; None takes what their headers say.
    """

    mapping: LabelMapping
    unknown: Unknown = "error"
    axis: str = "coronal"
    slices: SliceChoice = field(default_factory=lambda: SliceChoice("around", (20,)))
    every_mm: float = 2.0
    min_content: float = 0.1
    volumes: bool = False
    spacing_mm: tuple[float, float, float] | None = None
    interpolation: Interpolation = "majority"
    align: Align = "none"
    strip: bool = True
    resample_labels: bool = False
    flat: bool = False
    unit: Unit | None = None

    @property
    def by_axis(self) -> "list[Options]":
        """The same for each slicing axis alone."""
        return [replace(self, axis=axis) for axis in self.axis.split(",")]
