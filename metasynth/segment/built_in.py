"""The networks of this package, a line of the table each."""

from collections.abc import Mapping
from typing import Any

import torch

from metasynth.errors import ShapeError
from metasynth.segment.backbone import Backbone
from metasynth.segment.backbones import nnunet, nnunet_of_recipe
from metasynth.segment.entry import BackboneEntry, Design, NetworkSettings
from metasynth.segment.monai_networks import monai_network
from metasynth.segment.unet import UNet
from metasynth.text import by


def _unet(design: Design) -> UNet:
    chosen = design.settings
    return UNet(
        design.n_classes,
        design.ndim,
        widths=chosen.widths,
        norm=None if chosen.norm == "none" else chosen.norm,
        generator=design.generator,
        checkpoint=chosen.checkpoint,
    )


def _unet_fits(design: Design) -> None:
    levels = len(design.settings.widths)
    factor = 2 ** (levels - 1)
    if any(n % factor for n in design.shape):
        raise ShapeError(
            f"images of {by(design.shape)} cannot be halved {levels - 1} times; expected sizes "
            f"divisible by {factor} for a network of {levels} levels"
        )


def _unet_again(recipe: Mapping[str, Any], generator: torch.Generator | None) -> UNet:
    """From a recipe without a kind, as format 1 has it of the U-Net."""
    return UNet(**{key: value for key, value in recipe.items() if key != "kind"}, generator=generator)


def _unet_told(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {"network": "unet", "widths": list(recipe["widths"]), "norm": recipe.get("norm") or "none"}


def _nnunet(design: Design, residual: bool = False) -> Backbone:
    """Its channels begin with the first of the widths and double up to the last."""
    first, *_, last = (*design.settings.widths, design.settings.widths[-1])
    return nnunet(design.n_classes, design.shape, design.spacing_mm, residual, first, last, design.generator)


def _nnunet_residual(design: Design) -> Backbone:
    return _nnunet(design, residual=True)


def _nnunet_fits(design: Design) -> None:
    with torch.device("meta"):  # takes no memory
        _nnunet(design)


def _nnunet_residual_fits(design: Design) -> None:
    with torch.device("meta"):
        _nnunet_residual(design)


def _nnunet_settings(settings: NetworkSettings) -> None:
    widths = settings.widths
    if any(width != min(widths[-1], widths[0] * 2**k) for k, width in enumerate(widths)):
        raise ValueError(f"widths must double from the first up to the last for nnU-Net, got {widths}")


def _nnunet_told(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {"network": "nnunet_residual" if recipe["residual"] else "nnunet", "widths": list(recipe["features"])}


def _monai(design: Design) -> Backbone:
    arguments = dict(design.settings.network_arguments)
    name = arguments.pop("class")
    return monai_network(name, design.n_classes, design.shape, generator=design.generator, **arguments)


def _monai_settings(settings: NetworkSettings) -> None:
    given = settings.network_arguments
    if not isinstance(given.get("class"), str) or not given["class"]:
        raise ValueError(
            'network_arguments must name a class of monai.networks.nets with network = monai, as in {"class": "UNet"}, '
            f"got {dict(given)}"
        )
    if "generator" in given:
        raise ValueError("network_arguments: generator: weights are drawn from the run's seed; leave it out")


def _monai_again(recipe: Mapping[str, Any], generator: torch.Generator | None) -> Backbone:
    name, n_classes, shape = recipe["name"], recipe["n_classes"], recipe["shape"]
    return monai_network(name, n_classes, shape, generator=generator, **recipe["arguments"])


def _monai_told(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {"network": "monai", "network_arguments": {"class": recipe["name"], **recipe["arguments"]}}


ENTRIES = (
    BackboneEntry(
        "unet",
        "the paper's U-Net, in 2D and 3D",
        _unet,
        takes=("widths", "norm", "checkpoint"),
        fits=_unet_fits,
        remake=_unet_again,
        told=_unet_told,
        any_shape=True,
        counted=True,
    ),
    BackboneEntry(
        "nnunet",
        "nnU-Net's own network with plain convolutions (Isensee et al. 2021)",
        _nnunet,
        takes=("widths",),
        check=_nnunet_settings,
        fits=_nnunet_fits,
        remake=nnunet_of_recipe,
        told=_nnunet_told,
        counted=True,
    ),
    BackboneEntry(
        "nnunet_residual",
        "the same with a residual encoder (Isensee et al. 2024)",
        _nnunet_residual,
        takes=("widths",),
        check=_nnunet_settings,
        fits=_nnunet_residual_fits,
        remake=nnunet_of_recipe,  # which says whether it is residual; its kind is nnunet
        told=_nnunet_told,
        counted=True,
    ),
    BackboneEntry(
        "monai",
        "any segmentation network of `monai.networks.nets`",
        _monai,
        takes=("network_arguments",),
        check=_monai_settings,
        fits=_monai,  # whose constructors may compute
        remake=_monai_again,
        told=_monai_told,
    ),
)
