"""The steps that `hypergradients.py` and `gpu.py` compare, of the same U-Net, augmenter, losses and batches."""

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import higher
import torch
from torch import Tensor, nn

from metasynth.augment import GaussianNoise
from metasynth.bilevel import (
    BilevelProblem,
    BilevelSolver,
    ConjugateGradient,
    FiniteDifference,
    Forward,
    HypergradientStrategy,
    Implicit,
    InParts,
    Mixed,
    Unrolled,
)
from metasynth.bilevel.batches import take_samples
from metasynth.segment import UNet, soft_dice_loss

CLASSES = 5
LAST = ", channels-last"
PLAIN = "plain training step"

Batch = tuple[Tensor, Tensor, Tensor]
"""images (B, 1, *S), labels (B, *S), draws (B, 1, *S)."""

Step = Callable[[], Any]


def inner_loss(model: nn.Module, outer: nn.Module, batch: Batch) -> Tensor:
    """Loss on augmented images, a mean over images."""
    images, labels, draws = batch
    return soft_dice_loss(model(outer(images, draws)), labels, batch=False)


def outer_loss(model: nn.Module, outer: nn.Module, batch: Batch) -> Tensor:
    """Loss on images as they are."""
    images, labels, _ = batch
    return soft_dice_loss(model(images), labels, batch=False)


@dataclass(frozen=True)
class Size:
    """What all rows share: images of ``size`` voxels along each of ``ndim`` axes, and what they are computed on."""

    size: int
    batch: int
    widths: tuple[int, ...]
    ndim: int = 2
    device: str = "cpu"
    autocast: torch.dtype | None = None

    def precision(self) -> AbstractContextManager[object]:
        """A context for the losses of steps that take no `BilevelProblem`, which has such a one."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.partition(":")[0], dtype=self.autocast, cache_enabled=False)


class Steps:
    """A fresh model, augmenter, optimisers and two batches."""

    def __init__(self, shared: Size, channels_last: bool, checkpoint: bool = False) -> None:
        self.shared = shared
        generator = torch.Generator().manual_seed(0)
        self.model = UNet(CLASSES, shared.ndim, widths=shared.widths, generator=generator, checkpoint=checkpoint)
        if channels_last:
            self.model.to(memory_format=torch.channels_last if shared.ndim == 2 else torch.channels_last_3d)
        self.model.to(shared.device)
        self.outer = GaussianNoise(0.1).to(shared.device)
        self.inner_optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.outer_optimizer = torch.optim.Adam(self.outer.parameters(), lr=1e-3)
        self.synthetic, self.real = (self._draw(generator) for _ in range(2))

    def _draw(self, generator: torch.Generator) -> Batch:
        batch, voxels = self.shared.batch, (self.shared.size,) * self.shared.ndim
        labels = torch.randint(CLASSES, (batch, *voxels), generator=generator)
        images, draws = (make((batch, 1, *voxels), generator=generator) for make in (torch.rand, torch.randn))
        return images.to(self.shared.device), labels.to(self.shared.device), draws.to(self.shared.device)

    def plain(self) -> Step:
        """Forward, backward and Adam on the inner loss; the augmenter is not learned."""
        self.outer.requires_grad_(False)

        def step() -> None:
            self.inner_optimizer.zero_grad()
            self._loss(inner_loss, self.model, self.synthetic).backward()
            self.inner_optimizer.step()

        return step

    def solver(self, strategy: HypergradientStrategy, real: int = 1, every: int = 1) -> Step:
        """Whole committed steps of `BilevelSolver`, of which the last of ``every`` takes a hypergradient.

        ``real`` is the divisor of the real batch.
        """
        problem = BilevelProblem(inner_loss, outer_loss, self.shared.autocast)
        solver = BilevelSolver(
            problem, self.model, self.inner_optimizer, self.outer, self.outer_optimizer, strategy, check=False
        )
        given = take_samples(self.real, torch.arange(max(1, self.shared.batch // real)))

        def step() -> None:
            for _ in range(every - 1):
                solver.inner_step(self.synthetic)
            solver.step([self.synthetic], given)

        return step

    def higher_directly(self) -> Step:
        """The same hypergradient as a user of `higher` writes it; weights are copied back, moments are lost."""

        def step() -> None:
            with higher.innerloop_ctx(self.model, self.inner_optimizer) as (patched, optimizer):
                optimizer.step(self._loss(inner_loss, patched, self.synthetic))
                self._outer_step(self._loss(outer_loss, patched, self.real))
                with torch.no_grad():
                    for p, fast in zip(self.model.parameters(), patched.parameters(), strict=True):
                        p.copy_(fast)

        return step

    def torchopt(self) -> Step:
        """The same with TorchOpt's MetaAdam, which replaces the model's parameters by the results of its step."""
        import torchopt

        optimizer = torchopt.MetaAdam(self.model, lr=1e-3, eps_root=1e-8)

        def step() -> None:
            optimizer.step(self._loss(inner_loss, self.model, self.synthetic))
            self._outer_step(self._loss(outer_loss, self.model, self.real))
            torchopt.stop_gradient(self.model)
            torchopt.stop_gradient(optimizer)

        return step

    def _loss(self, loss: Callable[..., Tensor], model: nn.Module, batch: Batch) -> Tensor:
        with self.shared.precision():
            return loss(model, self.outer, batch)

    def _outer_step(self, loss: Tensor) -> None:
        parameters = list(self.outer.parameters())
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.grad = g
        self.outer_optimizer.step()


@dataclass(frozen=True)
class Method:
    """How a row is made, and how many training steps a call of it takes."""

    make: Callable[[Steps], Step]
    channels_last: bool = False
    checkpoint: bool = False
    every: int = 1

    def step(self, shared: Size) -> Step:
        """The step, of a fresh model and augmenter of that size."""
        return self.make(Steps(shared, self.channels_last, self.checkpoint))


def _solver(strategy: HypergradientStrategy, **options: int) -> Callable[[Steps], Step]:
    return lambda steps: steps.solver(strategy, **options)


def methods(batch: int) -> dict[str, Method]:
    """The rows, by name; the last ones only where their package is there."""
    differences = FiniteDifference()
    quarter = max(1, batch // 4)
    found = {
        PLAIN: Method(lambda steps: steps.plain()),
        "Mixed": Method(_solver(Mixed())),
        "Unrolled(1)": Method(_solver(Unrolled(1))),
        "Forward": Method(_solver(Forward())),
        "FiniteDifference": Method(_solver(differences)),
        "Implicit, 2 products": Method(_solver(Implicit(ConjugateGradient(2, tolerance=1e-12)))),
        "higher used directly": Method(lambda steps: steps.higher_directly()),
    }
    if importlib.util.find_spec("torchopt") is not None:
        found["TorchOpt MetaAdam"] = Method(lambda steps: steps.torchopt())
    economical = InParts(differences, samples=quarter)
    low = InParts(differences, chunk=quarter)
    return found | {
        "economical": Method(_solver(economical, real=4, every=2), every=2),
        "low memory": Method(_solver(low)),
        "low memory, checkpointed": Method(_solver(low), checkpoint=True),
        PLAIN + LAST: Method(lambda steps: steps.plain(), channels_last=True),
        "Mixed" + LAST: Method(_solver(Mixed()), channels_last=True),
        "FiniteDifference" + LAST: Method(_solver(differences), channels_last=True),
        "economical" + LAST: Method(_solver(economical, real=4, every=2), channels_last=True, every=2),
        "low memory" + LAST: Method(_solver(low), channels_last=True),
    }
