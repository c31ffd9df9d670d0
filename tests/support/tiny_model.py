"""Models for tests of prediction: a U-Net with random weights, and a network that tells intensities apart."""

from pathlib import Path

import torch
from torch import Tensor, nn

from metasynth.segment.model_description import ModelDescription, TrainedModel
from metasynth.segment.model_file import save_model
from metasynth.segment.unet import UNet

CLASSES = ("background", "dark", "medium", "bright")
LEVELS = (0.0, 0.3, 0.65, 1.0)


def describe(ndim: int = 2, spacing: float = 1.0, **changed) -> ModelDescription:
    """Coronal slices, or volumes turned in the same way, of 32 or 16 voxels a side."""
    described = {
        "class_names": CLASSES,
        "mapping": "drawn by a test",
        "spacing_mm": (spacing,) * ndim,
        "axis": "coronal" if ndim == 2 else "volume",
        "orientation": "IR" if ndim == 2 else "AIR",
        "shape": (32, 32) if ndim == 2 else (16, 16, 16),
    }
    return ModelDescription(**described | changed)


def random_unet(ndim: int = 2, norm=None, seed: int = 0) -> UNet:
    """Two levels, weights large enough that several classes win somewhere."""
    torch.manual_seed(seed)
    network = UNet(len(CLASSES), ndim=ndim, widths=(4, 6), norm=norm)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network


def random_model(ndim: int = 2, **changed) -> TrainedModel:
    return TrainedModel(random_unet(ndim).eval(), describe(ndim, **changed))


class NearestLevel(nn.Module):
    """The class of the nearest of `LEVELS`, whatever is around a voxel."""

    in_channels, stride = 1, 4

    def __init__(self, ndim: int = 2) -> None:
        super().__init__()
        self.ndim = ndim

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, *S)."""
        levels = torch.tensor(LEVELS).reshape(1, -1, *[1] * self.ndim)
        return -200.0 * (images - levels) ** 2


def level_model(ndim: int = 2, **changed) -> TrainedModel:
    return TrainedModel(NearestLevel(ndim), describe(ndim, **changed))


def save_random(path: Path, ndim: int = 2, seed: int = 0, **changed) -> Path:
    save_model(path, random_unet(ndim, seed=seed), describe(ndim, **changed))
    return path
