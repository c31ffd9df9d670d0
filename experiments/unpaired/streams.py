"""What a step of unpaired learning is fed, counter-based as in `streams`: label maps and other people's scans."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from metasynth.experiments.real_images.streams import cropped_or_padded
from torch.utils.data import Dataset

from metasynth.augment.label_generator import LabelGenerator
from metasynth.data.dataset import Batch, SliceDataset, draw_items
from metasynth.running.seeding import generator_for
from metasynth.synthesis.generator import ImageGenerator
from metasynth.training.sources import Draw, Example, Real
from metasynth.training.streams import StepBatch


@dataclass(frozen=True)
class UnpairedData(Dataset[StepBatch]):
    """Step t's data as item t.

    An example has ``images``, scans (B, 1, *S), ``labels``, generation labels (B, *S) of maps that have nothing to do
    with them, and ``draws``, from which a generator makes synthetic images of the maps.

    Attributes
    ----------
    maps, scans : SliceDataset
        Of different people; the labels of the scans are not looked at.
    generator : ImageGenerator
        Makes synthetic images. It should deform nothing, as scans are as they are: a discriminator would tell deformed
        anatomy, which no generator can learn to avoid.
    draw : callable
        The learned generator's.
    seed, batch_size : int
    is_due : callable
        Whether step t takes a hypergradient; then it has an outer example of other items.
    """

    maps: SliceDataset
    scans: SliceDataset
    generator: ImageGenerator
    draw: Draw
    seed: int
    batch_size: int
    outer_batch_size: int
    is_due: Callable[[int], bool]

    def __getitem__(self, step: int) -> StepBatch:
        inner = self._example(self.batch_size, generator_for(self.seed, "unpaired inner", step))
        if not self.is_due(step):
            return StepBatch(inner, None, None)
        outer = self._example(self.outer_batch_size, generator_for(self.seed, "unpaired outer", step))
        return StepBatch(inner, outer, None)

    def _example(self, size: int, draw: torch.Generator) -> Example:
        scans = Real()(self.scans.read(draw_items(self.scans, size, draw)), draw).images
        maps = cropped_or_padded(self.maps.read(draw_items(self.maps, size, draw)), self.scans.cache.shape)
        images, structures = self.generator(maps.structures, draw)
        return Example(scans, structures, self.draw(images, draw))


@dataclass(frozen=True)
class Generated:
    """Training images of a segmenter: deformed label maps, as a generator that is no longer learned shows them.

    Attributes
    ----------
    generator : ImageGenerator
        Deforms them.
    learned : LabelGenerator
        On the CPU.
    """

    generator: ImageGenerator
    learned: LabelGenerator

    def __call__(self, batch: Batch, generator: torch.Generator) -> Example:
        """Images and deformed labels of a batch's label maps."""
        images, structures = self.generator(batch.structures, generator)
        with torch.no_grad():
            shown = self.learned(structures, self.learned.draw(images, generator))
        return Example.of(batch, shown, structures)
