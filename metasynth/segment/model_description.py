"""What a trained segmenter is told by: its classes and the images it needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from metasynth.text import by


@dataclass(frozen=True)
class ModelDescription:
    """What a segmenter tells apart, and the images it needs to be given.

    Attributes
    ----------
    class_names : tuple of K str
        Background first.
    mapping : str
        How the classes were made from the labels of the training data.
    spacing_mm : tuple of float
        Distance in mm between voxel centres along each axis of S.
    axis : str
        Slicing axis ("coronal", "axial", "sagittal"), or "volume"; several with commas between them.
    orientation : str
        For each axis of S the direction in which its index grows, one letter each of RLAPSI; likewise for several.
    shape : tuple of int
        S, the shape of the training images; where these were patches, of what they are of.
    brain_only : bool
        Whether they are 0 outside the brain (skull-stripped).
    percentiles : tuple of two float
        The percentiles of the intensities in the brain that are 0 and 1 in them; of images of whole heads that are
        scaled as such (`metasynth.synthesis.intensity.head_ends`), those of the rule.
    scaled_by : str
        "brain", or "head" where no mask is needed.
    brain_share : float
        Of a head, what its classes took in the training data, the median over people; 0 where that is not known.
    patch_size : tuple of int
        Shape of the patches that it was trained on; empty: on whole images.
    provenance : dict
        Where the model comes from, by name: experiment, stage, seed, ...; text and numbers.

    Raises
    ------
    ValueError
        When the numbers of axes differ, there are fewer than two classes, a name of one is no text, images of brains
        alone are to be scaled by heads, or there are slices of several axes and pixels that are no squares.
    """

    class_names: tuple[str, ...]
    mapping: str
    spacing_mm: tuple[float, ...]
    axis: str
    orientation: str
    shape: tuple[int, ...]
    brain_only: bool = True
    percentiles: tuple[float, float] = (1.0, 99.0)
    provenance: Mapping[str, str | int | float] = field(default_factory=dict)
    scaled_by: str = "brain"
    brain_share: float = 0.0
    patch_size: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.class_names) < 2:
            raise ValueError(f"class_names: must be at least 2 (background and one more), got {self.class_names}")
        if not all(isinstance(name, str) for name in self.class_names):
            raise ValueError(f"class_names: must be text, got {self.class_names}")
        if {len(self.spacing_mm), *map(len, self.views)} != {len(self.shape)}:
            raise ValueError(
                "shape, spacing_mm and orientation: must have one entry an axis, got "
                f"{self.shape}, {self.spacing_mm} and {self.orientation!r}"
            )
        axes = self.axis.split(",")
        if len(axes) != len(self.views) or len(axes) > len({*axes}):
            raise ValueError(f"orientation: must be one for each axis of {self.axis!r}, got {self.orientation!r}")
        if len(axes) > 1 and (len(self.shape) > 2 or len({*self.spacing_mm}) > 1):
            raise ValueError(
                f"spacing_mm: must be two equal numbers for slices along {self.axis}, got {self.spacing_mm}"
            )
        if self.scaled_by not in (("brain",) if self.brain_only else ("brain", "head")):
            raise ValueError(
                "scaled_by: must be 'brain', or 'head' of images that are not of brains alone, got "
                f"{self.scaled_by!r} with brain_only={self.brain_only}"
            )
        if self.patch_size and not (len(self.patch_size) == len(self.shape) and min(self.patch_size) >= 1):
            raise ValueError(f"patch_size: must be empty or at least 1 along each axis, got {self.patch_size}")
        if not all(n >= 1 for n in self.shape) or not all(0 < s < float("inf") for s in self.spacing_mm):
            raise ValueError(f"shape and spacing_mm: must be above 0, got {self.shape} and {self.spacing_mm}")

    @property
    def views(self) -> tuple[str, ...]:
        """The orientation of the images along each slicing axis: one network looks along all of them."""
        return tuple(self.orientation.split(","))

    @property
    def needs(self) -> str:
        """The images it needs, in words."""
        kind = "volumes" if self.axis == "volume" else f"{_listed(self.axis)} slices"
        low, high = self.percentiles
        scale = f"the brain's {low:g} and {high:g} % quantiles"
        if self.takes_heads:
            scale = f"air and the {high:g} % quantile of the rest"
        return (
            f"{kind} of {by(self.shape)} voxels of {by(self.spacing_mm)} mm (orientation {_listed(self.orientation)}), "
            f"{'the brain alone' if self.brain_only else 'the whole head'}, {scale} scaled to 0 and 1"
        )

    @property
    def window(self) -> tuple[int, ...]:
        """Shape of what it is given at once: of a patch, or of a whole training image."""
        return self.patch_size or self.shape

    @property
    def takes_heads(self) -> bool:
        """Whether it takes scans of heads as they come: neither a mask nor stripping is needed."""
        return self.scaled_by == "head"

    @property
    def origin(self) -> str:
        """Where the model comes from, in words; empty where it does not say."""
        return ", ".join(f"{key} {value}" for key, value in self.provenance.items())


def _listed(names: str) -> str:
    """Names with commas between them as they are said: "a", "a and b", "a, b and c"."""
    return " and ".join(names.replace(",", ", ").rsplit(", ", 1))


@dataclass(frozen=True)
class TrainedModel:
    """A segmenter read from a file, in evaluation mode on the CPU, and its description.

    The network, any module from images (B, C, *S) to logits (B, K, *S), may say C (``in_channels``, else 1) and what
    the sizes S have to be multiples of (``stride``, one for all axes or one each; where it does not, or says None, it
    is only given images of the shape it was trained on).
    """

    network: nn.Module
    description: ModelDescription

    @property
    def ndim(self) -> int:
        """Number of voxel axes."""
        return len(self.description.shape)

    @property
    def in_channels(self) -> int:
        """Channels of the images."""
        return int(getattr(self.network, "in_channels", 1))

    @property
    def stride(self) -> tuple[int, ...] | None:
        """What the number of voxels along each axis has to be a multiple of, if that is known."""
        stride: Any = getattr(self.network, "stride", None)
        return (stride,) * self.ndim if isinstance(stride, int) else stride
