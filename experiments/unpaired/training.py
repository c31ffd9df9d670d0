"""The training of a generator against a discriminator, as a bilevel problem (supplement, section 10, Figure 5).

With r the loss of what is to look real and f that of what is to look fake, x scans and G synthetic images,

    inner:  L_inner(D, G) = r(D(x)) + f(D(G)),                            D* = D after a step down L_inner
    outer:  L_outer(D*, G) = a r(D*(G')) + b f(D*(x'))

on fresh G' and x'. The first term of L_outer depends on the generator directly; the second through D* alone, which is
the hypergradient's: scans can be made to look fake only by what D learns from synthetic images that are like them.
"""

from collections.abc import Callable
from typing import Any, final

import torch
from metasynth.experiments.unpaired.models import AdversarialSettings, DiscriminatorSettings
from torch import Tensor, nn
from torch.utils.data import Dataset

from metasynth.augment.label_generator import LabelGenerator
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.training.reach import constrained_in, within_reach
from metasynth.training.settings import OuterSettings
from metasynth.training.sources import Example
from metasynth.training.streams import StepBatch
from metasynth.training.trainers import records_of


def adversarial_losses(
    inner: DiscriminatorSettings, weights: AdversarialSettings
) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """L_inner and L_outer of a discriminator and a generator ``generator(labels, draws)``.

    The inner pass moves the estimates of spectral norms by a power iteration; the outer pass takes them as they then
    are, so that D* depends on the generator through its weights alone and the hypergradient is exact.
    """

    def inner_loss(discriminator: nn.Module, generator: nn.Module, example: Example) -> Tensor:
        discriminator.train()
        synthetic = generator(example.labels, example.draws)
        real, fake = discriminator(torch.cat([example.given, synthetic])).split(len(synthetic))
        return inner.looks_real(real) + inner.looks_fake(fake)

    def outer_loss(discriminator: nn.Module, generator: nn.Module, example: Example) -> Tensor:
        discriminator.eval()
        loss = weights.real * inner.looks_fake(discriminator(example.images))
        if weights.synthetic:
            loss = loss + weights.synthetic * inner.looks_real(discriminator(generator(example.labels, example.draws)))
        return loss

    return inner_loss, outer_loss


@final
class Adversarial:
    """Training of a discriminator and a generator; a `metasynth.training.trainers.Trainer`.

    Parameters
    ----------
    discriminator : torch.nn.Module
    generator : LabelGenerator
        Learned in place. What it ends as is the mean of its weights over the last part of the training, `averaged`: the
        two levels circle about where neither gains.
    inner, outer, weights :
        Settings of both levels.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        generator: LabelGenerator,
        inner: DiscriminatorSettings,
        outer: OuterSettings,
        weights: AdversarialSettings,
    ) -> None:
        self.solver = BilevelSolver(
            BilevelProblem(*adversarial_losses(inner, weights)),
            discriminator,
            inner.optimizer(discriminator),
            generator,
            outer.optimizer(generator),
            outer.hypergradient_strategy(),
            outer_step=outer.step_options(),
        )
        self.discriminator, self.generator = discriminator, generator
        self._inner, self._outer, self._first = inner, outer, round((1 - weights.tail) * inner.steps)
        self._rates = [group["lr"] for group in self.solver.outer_optimizer.param_groups]
        self._constrained = constrained_in(generator)
        self._mean: dict[str, Tensor] = {}
        self._counted = 0

    def check(self, data: Dataset[StepBatch]) -> None:
        """As `metasynth.training.trainers.Bilevel.check`."""
        batch = data[self._outer.warmup].to(str(next(self.discriminator.parameters()).device))
        self.solver.preflight(batch.inner, batch.outer)

    def step(self, index: int, batch: StepBatch) -> list[dict[str, Any]]:
        """A step of the discriminator, and one of the generator where the batch has an outer example."""
        if batch.outer is None:
            (record,) = records_of(self.solver.inner_step(batch.inner))
        else:
            factor = self._outer.rate_at(index)
            for group, rate in zip(self.solver.outer_optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor
            with within_reach(self._constrained, "outer.lr"):
                report = self.solver.step([batch.inner], batch.outer)
            (record,) = records_of(report)
            record |= self._told_apart(batch.outer)
            if report.outer_stepped:
                record |= {"outer_step": report.outer_steps, **self.generator.observed()}
        if index >= self._first:
            self._count()
        return [record]

    def averaged(self) -> dict[str, Tensor]:
        """The generator's weights, averaged; as they are before the last part of the training."""
        return dict(self._mean or self.generator.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """The solver's, and the mean so far."""
        return {"solver": self.solver.state_dict(), "mean": dict(self._mean), "counted": self._counted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self.solver.load_state_dict(state["solver"])
        device = next(self.generator.parameters()).device
        self._mean = {name: value.to(device) for name, value in state["mean"].items()}
        self._counted = int(state["counted"])

    def _count(self) -> None:
        self._counted += 1
        for name, value in self.generator.state_dict().items():
            mean = self._mean.setdefault(name, value.detach().clone())
            mean += (value.detach() - mean) / self._counted

    @torch.no_grad()
    def _told_apart(self, example: Example) -> dict[str, float]:
        """How well the updated discriminator tells images it was not updated on: losses, and patches told right."""
        self.discriminator.eval()
        real = self.discriminator(example.images)
        fake = self.discriminator(self.generator(example.labels, example.draws))
        return {
            "real_loss": self._inner.looks_real(real).item(),
            "synthetic_loss": self._inner.looks_fake(fake).item(),
            "accuracy": 0.5 * ((real > 0).float().mean() + (fake < 0).float().mean()).item(),
        }
