"""The small problem of `benchmarks/horizon.py`: two domains that differ in something that θ cannot change."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from metasynth.data_prep.cohorts.cohort import COHORTS, ensure_cohort
from torch import Tensor, nn
from torch.nn import functional

from metasynth.bilevel import BilevelProblem
from metasynth.data import Cache, SliceDataset
from metasynth.running.seeding import generator_for
from metasynth.segment import UNet, cross_entropy_loss, soft_dice_loss

NAMES = ("spread", "texture", "sigma")
LOW, HIGH = (0.07, 0.05, 0.05), (0.4, 0.2, 0.2)
MEANS = (0.5, 0.9, 0.3, 0.7)
OFF = (-0.05, -0.06, -0.06, 0.07)
"""How far the real means are from those that images are synthesised with."""
RATE, COOLDOWN, WARMUP, BATCH = 5e-3, 0.3, 300, 8


@dataclass(frozen=True)
class Draws:
    """z (B, 4), a texture and noise (B, 1, *S), and the label maps (B, *S) they are for."""

    labels: Tensor
    contrast: Tensor
    texture: Tensor
    noise: Tensor


def drawn(labels: Tensor, grain: int, generator: torch.Generator) -> Draws:
    """Draws for images of label maps, with a texture that is linear between nodes ``grain`` voxels apart."""
    shape = labels.shape[1:]
    nodes = torch.randn(len(labels), 1, *(n // grain + 2 for n in shape), generator=generator)
    texture = functional.interpolate(nodes, scale_factor=grain, mode="bilinear")[..., : shape[0], : shape[1]]
    noise = torch.randn(len(labels), 1, *shape, generator=generator)
    return Draws(labels, torch.randn(len(labels), len(MEANS), generator=generator), texture / texture.std(), noise)


def image_of(draws: Draws, means: Tensor, spread: Tensor, texture: Tensor, sigma: Tensor, blur: float) -> Tensor:
    """Images (B, 1, *S): a level for each class and image, a texture within, blurred, with noise."""
    levels = functional.pad(means + spread * draws.contrast, (1, 0))
    flat = levels.gather(1, draws.labels.flatten(1)).view_as(draws.labels)[:, None]
    inside = (draws.labels > 0)[:, None]
    return _blurred(flat + texture * draws.texture * inside, blur) + sigma * draws.noise


def _blurred(images: Tensor, sd: float) -> Tensor:
    at = torch.arange(-3.0, 4.0)
    kernel = torch.exp(-at.square() / (2 * sd**2))
    kernel = (kernel / kernel.sum()).view(1, 1, -1, 1)
    rows = functional.conv2d(images, kernel, padding=(3, 0))
    return functional.conv2d(rows, kernel.transpose(2, 3), padding=(0, 3))


class Problem:
    """The label maps, the real images to learn from and those to test on."""

    def __init__(self, activation: str, norm: Literal["instance"] | None, seed: int) -> None:
        self._smooth, self._norm, self.seed = activation == "silu", norm, seed
        with (
            Cache(ensure_cohort(COHORTS["template-64"])) as maps,
            Cache(ensure_cohort(COHORTS["mprage-young-64"])) as own,
        ):
            self._maps = _labels(maps)
            labels = _labels(own)
        fixed = [torch.tensor(value) for value in (0.04, 0.08, 0.03)]
        draws = drawn(labels, 8, generator_for(77, "real"))
        images = image_of(draws, torch.tensor(MEANS) + torch.tensor(OFF), *fixed, blur=0.8)
        self.real, self.test = (images[:60], labels[:60]), (images[60:], labels[60:])
        self.problem = BilevelProblem(self.inner_loss, self.outer_loss)

    def batch(self, step: int, stream: int = 0) -> Draws:
        """The synthetic batch of a step."""
        generator = generator_for(self.seed + 1000 * stream, "inner", step)
        labels = self._maps[torch.randint(len(self._maps), (BATCH,), generator=generator)]
        return drawn(labels, 3, generator)

    def model(self) -> nn.Module:
        """The segmenter before training."""
        model: nn.Module = UNet(
            len(MEANS) + 1, 2, widths=(8, 16, 32), norm=self._norm, generator=generator_for(self.seed, "segmenter")
        )
        return (smooth(model) if self._smooth else model).to(memory_format=torch.channels_last)

    @staticmethod
    def inner_loss(model: nn.Module, theta: Tensor, draws: Draws) -> Tensor:
        """Of synthetic images, whose θ holds logarithms."""
        spread, texture, sigma = theta.exp()
        images = image_of(draws, torch.tensor(MEANS), spread, texture, sigma, blur=0.4)
        return loss_of(model(images), draws.labels)

    @staticmethod
    def outer_loss(model: nn.Module, theta: Tensor, real: tuple[Tensor, Tensor]) -> Tensor:
        """Of real ones."""
        return loss_of(model(real[0]), real[1])

    def trained(self, theta: Tensor, steps: int, cooldown: float) -> tuple[nn.Module, torch.optim.Adam]:
        """A segmenter trained at a fixed θ."""
        model = self.model()
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
        for step in range(steps):
            left, falling = steps - step, cooldown * steps
            optimizer.param_groups[0]["lr"] = RATE * (1.0 if left >= falling else left / falling)
            optimizer.zero_grad()
            self.inner_loss(model, theta, self.batch(step)).backward()
            optimizer.step()
        return model, optimizer

    @torch.no_grad()
    def scores(self, model: nn.Module) -> tuple[float, float]:
        """Loss and mean Dice of test images."""
        images, labels = self.test
        logits = torch.cat([model(images[i : i + 30]) for i in range(0, len(images), 30)])
        found, classes = logits.argmax(1), range(1, len(MEANS) + 1)
        both = [2 * ((found == k) & (labels == k)).sum() / ((found == k).sum() + (labels == k).sum()) for k in classes]
        return loss_of(logits, labels).item(), torch.stack(both).mean().item()


def _labels(cache: Cache) -> Tensor:
    dataset = SliceDataset(cache, cache.subjects)
    return dataset.read(range(len(dataset))).labels


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Soft Dice and cross-entropy, as in studies."""
    return soft_dice_loss(logits, labels, squared=True) + cross_entropy_loss(logits, labels)


class _Smooth(nn.Module):
    """A level of the U-Net with SiLU in place of ReLU."""

    def __init__(self, level: Any) -> None:
        super().__init__()
        self.convs, self.norms = level.convs, level.norms

    def forward(self, features: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            features = functional.silu(norm(conv(features)))
        return features


def smooth(model: nn.Module) -> nn.Module:
    """The network without kinks: SiLU for ReLU, mean for maximum."""
    for name, module in list(model.named_modules()):
        parent = model.get_submodule(name.rpartition(".")[0])
        if hasattr(module, "convs"):
            parent.register_module(name.rpartition(".")[2], _Smooth(module))
        elif isinstance(module, nn.MaxPool2d):
            parent.register_module(name.rpartition(".")[2], nn.AvgPool2d(2))
    return model
