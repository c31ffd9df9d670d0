"""What a step of a comparison is fed: synthetic images, real ones, or both, counter-based as in `streams`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from metasynth.experiments.real_images.own_maps import OwnMaps
from torch import Tensor
from torch.nn.functional import pad

from metasynth.data.dataset import Batch, SliceDataset, draw_items
from metasynth.running.seeding import generator_for
from metasynth.training.sources import Example, Maker, Real, Source
from metasynth.training.streams import StepBatch, Steps

_ROUNDING = 1e-9


@dataclass(frozen=True)
class RealAugmented:
    """Real images with their labels, or patches, deformed, smoothed, with a field and noise (supplement, section 8).

    Every strength is that of the generator, of whose steps those that make an image are left out.
    """

    generator: Maker

    def __call__(self, batch: Batch, generator: torch.Generator) -> Example:
        """Augmented images and labels of a batch; DataError if it has no images."""
        real = Real()(batch, generator)  # whole: where patches lie, the generator draws
        seeds = self.generator.draw_seeds(len(real.labels), generator)
        return Example.of(batch, *self.generator.augment(real.given, real.structures, seeds))


@dataclass(frozen=True)
class Fitted:
    """Examples of label maps that are cut and padded to a shape (*S) first."""

    source: Source
    shape: tuple[int, ...]

    def __call__(self, batch: Batch, generator: torch.Generator) -> Example:
        """What the source makes of them."""
        return self.source(cropped_or_padded(batch, self.shape), generator)


@dataclass(frozen=True)
class ComparisonData(Steps):
    """The data of a study with label maps of one cache and real images of another.

    The synthetic examples of a step are of the same label maps for every method that learns from the same real
    subjects. Where label maps of these are among those for synthesis, half of them at random give the outer examples of
    a window and are left out of its synthetic ones.

    Attributes
    ----------
    maps : SliceDataset
        Label maps for synthesis.
    real : SliceDataset
        Real images.
    synthetic : callable
        Makes examples from label maps.
    direct : callable
        Makes training examples from real images.
    fraction : float
        Of the inner examples that are real, in [0, 1]; over steps exactly, in each as nearly as whole numbers can be.
    own : OwnMaps or None
        Label maps of the real subjects serve for synthesis too, a share of the images; None: they do not.
    shown : Real
        Makes the outer examples: real images as they are, or patches of them.
    """

    maps: SliceDataset
    real: SliceDataset
    synthetic: Source
    direct: Source
    fraction: float
    own: OwnMaps | None = None
    shown: Real = field(default_factory=Real)

    def __getitem__(self, step: int) -> StepBatch:
        divide = partial(draw_subjects, self.maps, self.real, apart=self.own is not None)
        (ours, theirs), draw = self.divided(step, divide)
        items = draw_items(self.maps, self.batch_size, draw, ours)
        n_real = self.real_in(step)
        parts = []
        if n_real < self.batch_size:
            maps = self._maps(step, items[: self.batch_size - n_real], ~theirs)
            parts.append(self.synthetic(maps, generator_for(self.seed, "inner", step)))
        if n_real:
            chosen = draw_items(self.real, n_real, generator_for(self.seed, "direct subjects", step))
            parts.append(self.direct(self.real.read(chosen), generator_for(self.seed, "direct", step)))
        inner = parts[0] if len(parts) == 1 else _joined(parts)

        def real() -> tuple[Batch, Example]:
            seen = self.real.read(draw_items(self.real, self.outer_batch_size, draw, theirs))
            return seen, self.shown(seen, draw)

        return self.completed(step, inner, self.synthetic, real)

    def _maps(self, step: int, items: Tensor, others: Tensor) -> Batch:
        """The label maps of a step: those of items, but where own ones of other real subjects take their place."""
        shape = self.real.cache.shape
        if self.own is None:
            return cropped_or_padded(self.maps.read(items), shape)
        draw = generator_for(self.seed, "own label maps", step)
        chosen = self.own.chosen(self.batch_size, draw)[: len(items)]
        own = draw_items(self.real, self.batch_size, draw, others)[: len(items)][chosen]
        return self.own.among(cropped_or_padded(self.maps.read(items[~chosen]), shape), self.real.read(own), chosen)

    def real_in(self, step: int) -> int:
        """How many of the inner examples of a step are real."""
        until, before = ((at * self.batch_size * self.fraction + _ROUNDING) for at in (step + 1, step))
        return math.floor(until) - math.floor(before)


def draw_subjects(
    maps: SliceDataset, real: SliceDataset, generator: torch.Generator, apart: bool = False
) -> tuple[Tensor, Tensor]:
    """Whose label maps a step is synthesised from, and who of the real subjects its outer examples are of.

    Nobody is both. Without a subject in both datasets everyone is drawn from, unless the real ones are to be kept
    ``apart`` for label maps of their own; otherwise half of the real ones, at least one, are for the outer examples. Of
    two and more at least one is not.

    Returns
    -------
    of_maps : Tensor (len(maps.subjects),) bool
    of_real : Tensor (len(real.subjects),) bool
    """
    n = len(real.subjects)
    order = torch.randperm(n, generator=generator)
    of_maps, of_real = torch.ones(len(maps.subjects), dtype=torch.bool), torch.ones(n, dtype=torch.bool)
    if not apart and set(maps.subjects).isdisjoint(real.subjects):
        return of_maps, of_real
    of_real[order[max(1, n // 2) :]] = False
    of_maps = _without(maps, real, of_real)
    if not of_maps.any():
        of_real = ~of_real
        of_maps = _without(maps, real, of_real)
    return of_maps, of_real


def _without(maps: SliceDataset, real: SliceDataset, chosen: Tensor) -> Tensor:
    names = {name for name, is_chosen in zip(real.subjects, chosen.tolist(), strict=True) if is_chosen}
    return torch.tensor([name not in names for name in maps.subjects])


def cropped_or_padded(batch: Batch, shape: Sequence[int]) -> Batch:
    """The label maps of a batch, cut or padded with background about their centre to ``shape``; without images."""
    missing = [wanted - size for wanted, size in zip(shape, batch.labels.shape[1:], strict=True)]
    sides = [side for more in reversed(missing) for side in (more // 2, more - more // 2)]
    if not any(missing):
        return replace(batch, images=None)
    fine = None if batch.fine is None else pad(batch.fine, sides)
    return replace(batch, labels=pad(batch.labels, sides), images=None, fine=fine)


def _joined(parts: Sequence[Example]) -> Example:
    """Examples of different caches side by side; their generation labels, which may not be the same, are left out."""
    return Example(torch.cat([part.given for part in parts]), torch.cat([part.labels for part in parts]), None)
