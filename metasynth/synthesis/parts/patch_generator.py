"""Patches of synthetic images, without making the rest of these."""

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from metasynth.errors import UsageError
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.draws import generators_of
from metasynth.synthesis.generator import SeededGenerator
from metasynth.synthesis.parts.patches import Patches, Window, widened
from metasynth.synthesis.parts.steps import Known, Part, Steps

THINNED_VOXELS = 2**16
"""About so many, at most, say what an image looks like as a whole."""
# Makes of an image's seed that of its window.
_OTHER = 0x2545F4914F6CDD1D


@final
class PatchGenerator(SeededGenerator):
    """Patches of the images that a `BatchedGenerator` makes of whole label maps.

    A patch is deformed and has the bias field as the image would that it is of: both are functions of the place in the
    whole, so that a patch's label map is, voxel by voxel, what `BatchedGenerator` gives there. Around it as much more
    is made as blur and larger voxels reach. Where the darkest and the brightest voxel of an image count, or its
    quantiles, they are those of the whole: the same image made of every n-th voxel, `THINNED_VOXELS` at most, tells
    them, and also where its structures are. Textures and noise are drawn for the patch alone. So time and memory are
    those of the patch; of the whole there is the label map.

    Parameters
    ----------
    whole : BatchedGenerator
        Makes the images.
    patches : Patches
        Where they are cut.
    target : sequence of int, or None
        (G,) the class of each generation label, which a share of the patches is about; None: the labels themselves.

    Raises
    ------
    UsageError
        (a ValueError) when ``target`` is of another number of labels.
    """

    def __init__(self, whole: BatchedGenerator, patches: Patches, target: Sequence[int] | None = None) -> None:
        super().__init__(whole.n_classes)
        if target is not None and len(target) != whole.n_classes:
            raise UsageError(f"target: must be the classes of {whole.n_classes} labels, got {len(target)}")
        self.whole, self.patches = whole, patches
        self.target = torch.arange(whole.n_classes) if target is None else torch.tensor(target)

    def made_shape(self, labels: Tensor) -> tuple[int, ...]:
        """The patches' size."""
        return self.patches.size

    @torch.no_grad()
    def synthesise(self, labels: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Patches and their deformed labels, of label maps (B, *S) (see `SeededGenerator`)."""
        self.check(labels)
        made = [self._made(own, seed) for own, seed in zip(labels.split(1), seeds.split(1), strict=True)]
        images, shown = zip(*made, strict=True)
        return torch.cat(images), torch.cat(shown)

    @torch.no_grad()
    def deform(self, labels: Tensor, seeds: Tensor) -> Tensor:
        """The deformed label maps of the patches alone (see `SeededGenerator`)."""
        self.check(labels)
        return torch.cat([self._shown(own, seed) for own, seed in zip(labels.split(1), seeds.split(1), strict=True)])

    def matched(self, images: Tensor, labels: Tensor, seeds: Tensor) -> Tensor:
        """New images of patches (B, *P) in the contrast of given ones; see `BatchedGenerator.matched`."""
        return self.whole.matched(images, labels, seeds)

    @torch.no_grad()
    def augment(self, images: Tensor, labels: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Patches of images there are already (B, 1, *S), deformed and scanned; see `BatchedGenerator.augment`.

        Where intensities are raised to a power, it is between the ends of what is made of the patch.
        """
        self.check_pair(images, labels)
        parts = zip(images[:, 0].split(1), labels.split(1), seeds.split(1), strict=True)
        found = [self._augmented(image.float(), own, seed) for image, own, seed in parts]
        made, shown = zip(*found, strict=True)
        return torch.cat(made), torch.cat(shown)

    def _shown(self, labels: Tensor, seed: Tensor) -> Tensor:
        thinned, coarse = self._thinned(labels)
        draws, _ = self.whole.steps.drawn(labels, seed)
        window = self._window(coarse.deformed(thinned, draws), labels, seed)
        return self.whole.steps.deformed(labels, draws, window).long()

    def _made(self, labels: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        steps, (thinned, coarse) = self.whole.steps, self._thinned(labels)
        draws, generators = steps.drawn(labels, seed)
        draws["means"] = steps.contrast.means(draws["means"])
        small = coarse.deformed(thinned, draws)
        known = coarse.known(small, draws, generators) if bool(small.any()) else Known()
        window = self._window(small, labels, seed)
        wide, inside = widened(window, steps.reach(), labels.shape[1:])
        shown = steps.deformed(labels, draws, wide).long()
        part = Part(tuple(labels.shape[1:]), wide, known)
        images = steps.imaged(shown, draws, seed, generators, part)
        return images[(slice(None), slice(None), *inside)], shown[(slice(None), *inside)]

    def _augmented(self, image: Tensor, labels: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        steps, (thinned, coarse) = self.whole.steps, self._thinned(labels)
        draws, generators = steps.drawn(labels, seed)
        window = self._window(coarse.deformed(thinned, draws), labels, seed)
        wide, inside = widened(window, steps.reach(), labels.shape[1:])
        moved, shown = steps.moved(image, labels, draws, wide)
        made = steps.scanned(moved, draws, generators, Part(tuple(labels.shape[1:]), wide))
        return made[(slice(None), None, *inside)], shown[(slice(None), *inside)].long()

    def _thinned(self, labels: Tensor) -> tuple[Tensor, Steps]:
        """Label maps (1, *T) of every n-th voxel, int64, and the steps for them."""
        shape = labels.shape[1:]
        every = max(1, math.ceil((shape.numel() / THINNED_VOXELS) ** (1 / len(shape))))
        return labels[(slice(None), *[slice(None, None, every)] * len(shape))].long(), self.whole.steps.thinned(every)

    def _window(self, small: Tensor, labels: Tensor, seed: Tensor) -> Window:
        """Where the patch of an image lies whose thinned and deformed label map is ``small`` (1, *T)."""
        (draw,) = generators_of(seed ^ _OTHER, torch.device("cpu"))
        return self.patches.draw(self.target[small[0].cpu()], labels.shape[1:], draw)
