"""What makes a network of another, optional package a segmenter of this one."""

import copy
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Literal, TypeVar, final

import torch
from torch import Tensor, nn

from metasynth.errors import PackageError, ShapeError, install_hint
from metasynth.files import first_line
from metasynth.text import by

N = TypeVar("N", bound=nn.Module)
Package = Literal["nnunet", "monai"]
"""The name of the extra that installs it."""

_PACKAGES: dict[Package, tuple[str, str]] = {
    "nnunet": ("dynamic_network_architectures.architectures.unet", "dynamic-network-architectures"),
    "monai": ("monai.networks.nets", "monai"),
}


@final
class Backbone(nn.Module):
    """A network of another package, from images (B, C, *S) to logits (B, K, *S).

    Of several outputs (deep supervision, a reconstruction beside) it gives the first.

    Parameters
    ----------
    network : torch.nn.Module
        The network itself.
    n_classes, ndim, in_channels : int
        K, the number of voxel axes, and C.
    stride : tuple of int or None
        What the number of voxels along each axis has to be a multiple of; None where that is not known.
    recipe : mapping
        Plain values that `from_recipe` makes the same network from: what a model file keeps.
    """

    def __init__(
        self,
        network: nn.Module,
        n_classes: int,
        ndim: int,
        stride: tuple[int, ...] | None,
        recipe: Mapping[str, Any],
        in_channels: int = 1,
    ) -> None:
        super().__init__()
        self.network = network
        self.n_classes = n_classes
        self.ndim = ndim
        self.in_channels = in_channels
        self.stride = stride
        self.recipe = dict(recipe)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, *S) of images (B, C, *S).

        Raises
        ------
        ValueError
            When `images` has another number of axes or channels, a voxel axis is not a multiple of ``stride``, or the
            network gives something else than logits for them.
        """
        if images.ndim != self.ndim + 2 or images.shape[1] != self.in_channels:
            raise ValueError(
                f"images: must have shape (B, {self.in_channels}, *S) with {self.ndim} voxel axes, "
                f"got {tuple(images.shape)}"
            )
        if self.stride is not None and any(n % s for n, s in zip(images.shape[2:], self.stride, strict=True)):
            raise ValueError(f"images: voxel axes must be multiples of {self.stride}, got {tuple(images.shape[2:])}")
        outputs = self.network(images)
        while isinstance(outputs, list | tuple) and outputs:
            outputs = outputs[0]
        if isinstance(outputs, Tensor) and outputs.ndim == self.ndim + 3:
            outputs = outputs[:, 0]  # outputs stacked behind the batch
        expected = (len(images), self.n_classes, *images.shape[2:])
        if not isinstance(outputs, Tensor) or outputs.shape != expected:
            got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ValueError(f"{type(self.network).__name__}: expected logits {expected} from it, got {got}")
        return outputs


def require(package: Package, who: str) -> Any:
    """The module of an optional package; PackageError, which says who needs it, where it is missing."""
    module, distribution = _PACKAGES[package]
    try:
        return import_module(module)
    except ImportError as error:
        raise PackageError(f"{who} needs the package {distribution}: {install_hint(package)}") from error


def drawn_from(generator: torch.Generator | None, make: Callable[[], N]) -> N:
    """What ``make`` gives, with what it draws from torch's global stream drawn from a generator instead."""
    if generator is None:
        return make()
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach the GPUs' streams too
        return make()


def try_images(network: nn.Module, shape: Sequence[int], who: str) -> None:
    """Require that images (B, 1, *shape) go through a network, called ``who`` in the message.

    Raises
    ------
    ShapeError
        When they do not.
    """
    try:
        try:
            _pass(network, shape, "meta")  # shapes alone: nothing is computed
        except Exception:  # its shapes cannot be followed without computing, or it fails with numbers too
            _pass(network, shape, "cpu")
    except Exception as error:
        raise ShapeError(f"images of {by(shape)} cannot go through {who}: {first_line(error)}") from error


@torch.no_grad()
def _pass(network: nn.Module, shape: Sequence[int], device: str) -> None:
    copy.deepcopy(network).to(device)(torch.zeros(2, 1, *shape, device=device))
