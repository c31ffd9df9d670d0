"""The second-order part on some samples of the batch, or on all of them a few at a time."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from metasynth.bilevel.batches import batch_size, take_samples
from metasynth.bilevel.checks.flawed_operations import Mode
from metasynth.bilevel.derivatives import Gradients, difference_of, norm_of, sum_of
from metasynth.bilevel.step_inputs import StepInputs
from metasynth.bilevel.strategies.mixed import Mixed
from metasynth.bilevel.strategies.product import Point, ProductStrategy
from metasynth.bilevel.update.updates import loss_and_gradient


@dataclass(frozen=True)
class InParts(ProductStrategy):
    """Another strategy's mixed derivative, on a random sub-batch and in chunks.

    For an inner loss that is the mean over the samples of the batch, L = Σ_i L_i / B, the mixed derivative is the mean
    of theirs, so that with g and w of the whole batch

        h = Σ_{i in S} (∂g_i/∂θ)ᵀ w / |S| + ∂L_outer/∂θ,       S a random subset of ``samples``,

    is an unbiased estimate, exact for S the whole batch. It is evaluated ``chunk`` samples at a time: no more than
    their graph is ever held. g itself comes from an ordinary pass on the whole batch, which keeps no graph.

    Costs, in passes of all convolutions: 3 for g and |S| / B times 7 with `Mixed`, 6 with `Forward`, 5 with
    `FiniteDifference`.

    Not for losses that couple samples: soft Dice over the voxels of a whole batch, batch statistics. `preflight` tells.

    Parameters
    ----------
    strategy : ProductStrategy
        Computes the mixed derivative.
    samples : int or None
        |S|, drawn anew each time from torch's global random stream; None, or more than there are: all.
    chunk : int or None
        Samples evaluated together; None: all of S.

    Raises
    ------
    ValueError
        If a batch is not made of tensors (B, ...); see `metasynth.bilevel.batches.batch_size`.
    """

    strategy: ProductStrategy = field(default_factory=Mixed)
    samples: int | None = None
    chunk: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.strategy, ProductStrategy):
            raise ValueError(
                "strategy must be one of a single inner step in three parts (Mixed, Forward, FiniteDifference), got "
                f"{self.strategy}"
            )
        for name in ("samples", "chunk"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise ValueError(f"{name} must be an integer of at least 1 or None, got {value!r}")

    @property
    def mode(self) -> Mode:
        """That of the other strategy."""
        return self.strategy.mode

    def mixed_derivative(self, point: Point, direction: Gradients) -> Gradients:
        """See `ProductStrategy.mixed_derivative`."""
        chosen = self._chosen(batch_size(point.batch))
        whole = len(chosen) == batch_size(point.batch) and self._is_one_chunk(len(chosen))
        found: Gradients = [None] * len(point.learned)
        for indices in chosen.split(self.chunk or len(chosen)):
            weight = len(indices) / len(chosen)
            part = Point(
                point.inputs if whole else _of_samples(point.inputs, indices),
                point.parameters,
                point.replay,
                loss=point.loss if whole else None,
                gradients=point.gradients if whole else None,
            )
            derivative = self.strategy.mixed_derivative(part, direction)
            found = [sum_of(a, None if b is None else b * weight) for a, b in zip(found, derivative, strict=True)]
            for name, value in part.diagnostics.items():
                point.diagnostics[name] = point.diagnostics.get(name, 0.0) + weight * value
        return found

    def check(self, inputs: StepInputs) -> None:
        """Insist that loss and gradient are means over samples, by taking the first sample from the others."""
        self.strategy.check(inputs)
        model, (batch,) = inputs.model, inputs.batches
        size = batch_size(batch)
        if size < 2:
            return
        indices = torch.arange(size)
        value, gradients = loss_and_gradient(inputs, model.refresh(), batch)
        total, sums = torch.zeros_like(value), list[Tensor | None]([None] * len(gradients))
        for part in (indices[:1], indices[1:]):
            loss, parts = loss_and_gradient(inputs, model.refresh(), take_samples(batch, part))
            weight = len(part) / size
            total = total + weight * loss
            sums = [sum_of(a, None if b is None else weight * b) for a, b in zip(sums, parts, strict=True)]
        off = norm_of([difference_of(a, b) for a, b in zip(sums, gradients, strict=True)])
        allowed = torch.finfo(inputs.problem.autocast or value.dtype).eps ** 0.5
        if abs(value - total) > allowed * abs(value) or off > 10 * allowed * norm_of(gradients):
            raise ValueError(
                f"InParts needs an inner_loss that is the mean over the samples of its batch: it gave {value:.6g} for "
                f"a batch of {size} and {total:.6g} as the mean of its parts; a soft Dice over the whole batch, batch "
                "normalisation and random draws inside the loss couple samples"
            )

    def _chosen(self, size: int) -> Tensor:
        if self.samples is None or self.samples >= size:
            return torch.arange(size)
        return torch.randperm(size)[: self.samples]

    def _is_one_chunk(self, samples: int) -> bool:
        return self.chunk is None or self.chunk >= samples


def _of_samples(inputs: StepInputs, indices: Tensor) -> StepInputs:
    return replace(inputs, batches=[take_samples(inputs.batches[0], indices)])
