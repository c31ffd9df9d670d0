"""nnU-Net's own network as a segmenter; its package is optional, and imported where a network is made."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from metasynth.segment.backbone import Backbone, drawn_from, require
from metasynth.segment.instance_norm import InstanceNorm
from metasynth.segment.nnunet_plan import NnunetPlan, plan_nnunet

_CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_BLOCKS = (1, 3, 4)  # of a residual encoder's stages; 6 in all deeper ones


def nnunet(
    n_classes: int,
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    residual: bool = False,
    base_features: int = 32,
    max_features: int | None = None,
    generator: torch.Generator | None = None,
) -> Backbone:
    """nnU-Net's own network, configured from shape and spacing as nnU-Net does (`plan_nnunet`).

    Instance normalisation with scale and shift, leaky ReLUs, initial weights as in nnU-Net; without deep supervision.

    Parameters
    ----------
    n_classes : int
        K, background included.
    shape, spacing_mm, residual, base_features, max_features :
        See `plan_nnunet`.
    generator : torch.Generator or None
        Source of the initial weights. None: torch's global stream.

    Raises
    ------
    ShapeError
        When the shape cannot be halved as often as the rules want.
    PackageError
        When the package is missing.
    UsageError
        (a ValueError) when an argument is out of range.
    """
    plan = plan_nnunet(shape, spacing_mm, residual, base_features, max_features)
    plan.check(shape)
    return _of_plan(plan, n_classes, generator)


def nnunet_of_recipe(recipe: Mapping[str, Any], generator: torch.Generator | None = None) -> Backbone:
    """The network of the recipe of one, with new weights; raises what `nnunet` raises."""
    stages = {key: tuple(map(tuple, recipe[key])) for key in ("strides", "kernel_sizes")}
    plan = NnunetPlan(tuple(recipe["features"]), **stages, residual=recipe["residual"])
    return _of_plan(plan, recipe["n_classes"], generator)


def _of_plan(plan: NnunetPlan, n_classes: int, generator: torch.Generator | None) -> Backbone:
    architectures = require("nnunet", "the network nnunet")
    stages = len(plan.features)
    blocks = [*_BLOCKS, *[6] * stages][:stages]
    contents: dict[str, Any] = {"n_conv_per_stage": 2, "n_conv_per_stage_decoder": 2}
    if plan.residual:
        contents = {"n_blocks_per_stage": blocks, "n_conv_per_stage_decoder": 1}
    made = architectures.ResidualEncoderUNet if plan.residual else architectures.PlainConvUNet

    def make() -> nn.Module:
        network = made(
            input_channels=1,
            n_stages=stages,
            features_per_stage=list(plan.features),
            conv_op=_CONV[plan.ndim],
            kernel_sizes=[list(kernel) for kernel in plan.kernel_sizes],
            strides=[list(stride) for stride in plan.strides],
            num_classes=n_classes,
            conv_bias=True,
            norm_op=InstanceNorm,
            nonlin=nn.LeakyReLU,
            deep_supervision=False,
            **contents,
        )
        network.apply(made.initialize)
        return network

    network = drawn_from(generator, make)
    _register_once(network)
    recipe = {"kind": "nnunet", "n_classes": n_classes, **asdict(plan)}
    return Backbone(network, n_classes, plan.ndim, plan.divisors, recipe)


def _register_once(network: Any) -> None:
    """Drop the heads for deep supervision, which no pass uses, and the second names that layers have."""
    decoder = network.decoder
    decoder.seg_layers = decoder.seg_layers[-1:]
    del decoder.encoder
    for module in network.modules():
        if hasattr(module, "all_modules"):
            for name in [name for name in module._modules if name != "all_modules"]:
                delattr(module, name)
