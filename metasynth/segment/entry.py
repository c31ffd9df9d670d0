"""What studies know of a network: what it is called, how it is made, what of the settings it takes, how it is kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from metasynth.errors import MetasynthError, RunError, UsageError
from metasynth.files import first_line
from metasynth.plugins import require_name
from metasynth.segment.backbone import Backbone, drawn_from, try_images
from metasynth.segment.unet import UNet

Setting = Literal["widths", "norm", "checkpoint", "network_arguments"]
Segmenter = UNet | Backbone


@dataclass(frozen=True)
class NetworkSettings:
    """What is set of a network; each takes what concerns it (`BackboneEntry.takes`).

    Attributes
    ----------
    widths : tuple of int
        Channels of each resolution level.
    norm : {'none', 'batch', 'instance'}
        Normalisation after each convolution.
    checkpoint : bool
        Whether the insides of a level are computed again in the backward pass.
    network_arguments : mapping
        What only this network has, plain values by name.
    """

    widths: tuple[int, ...] = (16, 32, 64, 128)
    norm: Literal["none", "batch", "instance"] = "instance"
    checkpoint: bool = False
    network_arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Design:
    """What a network is made for and with; each takes what it needs.

    Attributes
    ----------
    n_classes : int
        K, background included.
    ndim : int
        Voxel axes of the images, which have one channel.
    shape, spacing_mm : tuple
        Voxels of the images along each axis, and mm between them. Empty: not known.
    generator : torch.Generator or None
        Source of the initial weights. None: torch's global stream.
    settings : NetworkSettings
    """

    n_classes: int
    ndim: int
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    generator: torch.Generator | None = None
    settings: NetworkSettings = NetworkSettings()


Remake = Callable[[Mapping[str, Any], torch.Generator | None], Segmenter]


@dataclass(frozen=True)
class BackboneEntry:
    """A line of the table.

    Attributes
    ----------
    name : str
        In settings and model files: letters, digits, '_' and '-'.
    title : str
        One line that says what it is.
    build : callable
        A design -> a module from images (B, 1, *S) to logits (B, K, *S), or to several outputs of which these are the
        first. What it draws from torch's global stream comes from the design's generator. An attribute ``stride`` says
        what S has to be multiples of; without one it is only given images of the shape it was made for.
    takes : tuple of str
        Which of `NetworkSettings` concern it. The others have to be left at their defaults.
    check : callable or None
        Raises a ValueError for settings that it refuses.
    fits : callable or None
        Raises, before anything is done, if the images of a design cannot go through. None: it is made, and tried.
    remake : callable or None
        (recipe, generator) -> the network of a recipe that ``build`` gave it, whose ``kind`` is the name. None: a model
        file keeps the design, and the network is built from it again.
    told : callable or None
        A recipe that ``build`` gave -> the settings, ``network`` and what it takes, that give the same weights a place.
        None: what the design in it says, or with ``remake`` the name alone.
    any_shape : bool
        Whether it is made without knowing shape and spacing.
    counted : bool
        Whether it goes through torch's meta device, which computes nothing: a failure there then means sizes that
        cannot be counted.
    """

    name: str
    title: str
    build: Callable[[Design], nn.Module]
    takes: tuple[Setting, ...] = ()
    check: Callable[[NetworkSettings], None] | None = None
    fits: Callable[[Design], object] | None = None
    remake: Remake | None = None
    told: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    any_shape: bool = False
    counted: bool = False

    def __post_init__(self) -> None:
        require_name(self.name, "name of a network")

    @property
    def sized_by(self) -> str:
        """The setting that its size follows from."""
        return next((name for name in ("widths", "network_arguments") if name in self.takes), "network")

    def check_settings(self, settings: NetworkSettings) -> None:
        """Raise a ValueError unless what is set concerns the network, and is in its range."""
        for name, default in asdict(NetworkSettings()).items():
            value = getattr(settings, name)
            if name not in self.takes and value != default and (name, value) != ("widths", ()):
                left = "empty (widths=)" if name == "widths" else _told(default)
                raise ValueError(
                    f"{name} must be {left} with network = {self.name}, which does not take it, got {_told(value)}"
                )
        if "widths" in self.takes:
            _require_widths(settings.widths)
        if self.check:
            with self._in_one_line("cannot check its settings", passing=ValueError):
                self.check(settings)

    def made(self, design: Design) -> Segmenter:
        """The network, with new weights.

        Raises
        ------
        ShapeError
            When images of the design cannot go through.
        UsageError
            (a ValueError) when its package is missing or refuses the settings.
        RunError
            When it cannot be made.
        """
        if not self.any_shape and not (design.shape and design.spacing_mm):
            raise UsageError(f"shape and spacing_mm: the network {self.name} is configured from them, got None")
        if self.remake is None:
            return drawn_from(design.generator, lambda: self._kept_by_design(design))
        made = self.build(design)
        assert isinstance(made, Segmenter)
        return made

    def check_images(self, design: Design) -> None:
        """Require that the network can be made for the images of a design; raises what `made` raises."""
        if self.fits:
            with self._in_one_line("cannot check its images", passing=RuntimeError):  # sizes beyond counting
                self.fits(design)
        else:
            try_images(self.made(design), design.shape, f"the network {self.name} ({self.title})")

    def from_recipe(self, recipe: Mapping[str, Any], generator: torch.Generator | None) -> Segmenter:
        """The network of a recipe, with new weights; raises what `made` raises."""
        if self.remake:
            return self.remake(recipe, generator)
        set_then = {name: recipe[name] for name in asdict(NetworkSettings())}
        settings = NetworkSettings(**{**set_then, "widths": tuple(set_then["widths"])})
        shape = tuple(recipe["shape"])
        return self.made(
            Design(recipe["n_classes"], len(shape), shape, tuple(recipe["spacing_mm"]), generator, settings)
        )

    def settings_of(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that a recipe's network is made with, as far as its weights depend on them; plain values."""
        if self.told:
            return dict(self.told(recipe))
        kept = () if self.remake else [name for name in self.takes if name != "checkpoint"]
        return {"network": self.name, **{name: recipe[name] for name in kept}}

    @contextmanager
    def _in_one_line(self, what: str, passing: type[Exception] = MetasynthError) -> Iterator[None]:
        """What a function of the entry raises, as one line; errors of ``passing`` have their line already."""
        try:
            yield
        except (MetasynthError, passing):
            raise
        except ValueError as error:
            raise UsageError(f"network {self.name!r} {what}: {first_line(error)}") from error
        except Exception as error:
            raise RunError(f"network {self.name!r} {what}: {type(error).__name__}: {first_line(error)}") from error

    def _kept_by_design(self, design: Design) -> Backbone:
        """What ``build`` gives, with the design as its recipe."""
        with self._in_one_line("cannot be made"):
            network = self.build(design)
        if not isinstance(network, nn.Module):
            raise RunError(f"network {self.name!r} cannot be made: got a {type(network).__name__}, no torch.nn.Module")
        recipe = {
            "kind": self.name,
            "n_classes": design.n_classes,
            "shape": list(design.shape),
            "spacing_mm": list(design.spacing_mm),
            **asdict(design.settings),
            "widths": list(design.settings.widths),
        }
        return Backbone(network, design.n_classes, design.ndim, _stride(network, design.ndim), recipe)


def _stride(network: nn.Module, ndim: int) -> tuple[int, ...] | None:
    stride: Any = getattr(network, "stride", None)
    return (stride,) * ndim if isinstance(stride, int) else stride


def _require_widths(widths: Sequence[int]) -> None:
    if not widths:
        raise ValueError("levels must be at least 1, got 0")
    if min(widths) < 1:
        raise ValueError(f"widths must be at least 1, got {min(widths)}")


def _told(value: Any) -> str:
    """The value as ``--set`` has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
