"""Segmentation of a test set and its Dice, per class and subject."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from metasynth.augment.corruption import Corruption
from metasynth.augment.noise import NoiseLevel, add_noise, standard_normal
from metasynth.data.dataset import SliceDataset
from metasynth.interrupts import check
from metasynth.running.seeding import generator_for
from metasynth.segment.metrics import DiceAccumulator
from metasynth.segment.windows import in_windows
from metasynth.synthesis.generator import PIECE_VOXELS, ImageGenerator

CHUNK = 32


@dataclass(frozen=True)
class TestSet:
    """Test images without noise, made once a run and shared by every model and condition.

    Attributes
    ----------
    clean : Tensor (N, 1, *S)
        As they were synthesised.
    images : Tensor (N, 1, *S)
        With all of the corruption but noise.
    labels : Tensor (N, *S)
    subject : Tensor (N,)
        Index into ``subjects``.
    subjects, class_names : sequence of str
    seed : int
        Of the noise that a condition adds.
    """

    __test__ = False  # pytest takes the name for a test

    clean: Tensor
    images: Tensor
    labels: Tensor
    subject: Tensor
    subjects: Sequence[str]
    class_names: Sequence[str]
    seed: int

    def noisy(self, level: NoiseLevel) -> Tensor:
        """The images (N, 1, *S) with noise of a level; the same for every model."""
        return torch.cat(list(self.noisy_chunks(level)))

    def noisy_chunks(self, level: NoiseLevel) -> Iterator[Tensor]:
        """The same, ``CHUNK`` images at a time."""
        draw = generator_for(self.seed, "test noise", level.label)
        sigma = level.draw(len(self.images), draw)
        # Normal draws come in groups of 16, so that those of a chunk are those of the whole, bit for bit.
        for images, strength in zip(self.images.split(CHUNK), sigma.split(CHUNK), strict=True):
            yield add_noise(images, strength, standard_normal(images, draw))

    def noisy_image(self, level: NoiseLevel, item: int) -> Tensor:
        """One of them (1, 1, *S)."""
        chunk = next(islice(self.noisy_chunks(level), item // CHUNK, None))
        return chunk[item % CHUNK][None]

    def fullest_item(self) -> int:
        """Index of the item with the most foreground, which shows most."""
        return int(foreground_of(self.labels).argmax())


def foreground_of(labels: Tensor) -> Tensor:
    """How many voxels (N,) of each label map (N, *S) are foreground."""
    return (labels > 0).flatten(1).sum(1)


def middle_plane(image: Tensor) -> Tensor:
    """A slice (H, W) as it is; of a volume (D, H, W) the middle plane."""
    return image[image.shape[0] // 2] if image.ndim == 3 else image


def make_test_set(
    dataset: SliceDataset,
    generator: ImageGenerator,
    seed: int,
    repeats: int,
    corruption: Corruption | None = None,
) -> TestSet:
    """``repeats`` images of every item of the test subjects, with a corruption that all conditions share.

    They stay in memory, 12 bytes a voxel and 4 more with a corruption; while they are made some 300 MB more.
    """
    clean, labels, subject = _synthesised(dataset, generator, seed, repeats)
    corrupted = clean if corruption is None else corruption.corrupt(clean, generator_for(seed, "test corruption"))
    return TestSet(
        clean=clean,
        images=corrupted,
        labels=labels,
        subject=subject,
        subjects=dataset.subjects,
        class_names=dataset.cache.class_names,
        seed=seed,
    )


def _synthesised(
    dataset: SliceDataset, generator: ImageGenerator, seed: int, repeats: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Images (N, 1, *S), their labels (N, *S) and subjects (N,), every item once a repeat."""
    n, shape = len(dataset), dataset.read([0]).labels.shape[1:]
    clean, labels = torch.empty(repeats * n, 1, *shape), torch.empty(repeats * n, *shape, dtype=torch.int64)
    subject = torch.empty(repeats * n, dtype=torch.int64)
    for repeat in range(repeats):
        draw = generator_for(seed, "test images", repeat)
        for items in torch.arange(n).split(max(1, PIECE_VOXELS // shape.numel())):
            batch, at = dataset.read(items), items + repeat * n
            images, maps = generator(batch.structures, draw)
            clean[at], labels[at], subject[at] = images, batch.classes_of(maps), batch.subject
    return clean, labels, subject


def segment(model: nn.Module, images: Tensor, device: str, window: Sequence[int] = ()) -> Tensor:
    """Most probable class (N, *S) int64 of images (N, 1, *S), in evaluation mode, without gradients.

    Through a sliding ``window`` (`metasynth.segment.windows.in_windows`), image by image; where it is empty, whole.
    """
    was_training = model.training
    model.eval()
    with torch.no_grad():
        if window:
            labels = torch.cat([in_windows(model, image, window, device).argmax(1) for image in images.split(1)])
        else:
            labels = torch.cat([_most_probable(model, chunk.to(device)) for chunk in images.split(CHUNK)])
    model.train(was_training)
    return labels


def _most_probable(model: nn.Module, images: Tensor) -> Tensor:
    check()
    return model(images).argmax(1).cpu()


def evaluate(
    model: nn.Module, test: TestSet, levels: Sequence[NoiseLevel], device: str, window: Sequence[int] = ()
) -> dict[str, Any]:
    """Dice under each condition, by the level's label; see `DiceAccumulator.summary`, and `segment`."""
    scores = {}
    for level in levels:
        counts = DiceAccumulator(len(test.class_names), len(test.subjects))
        parts = (test.labels.split(CHUNK), test.subject.split(CHUNK))
        for images, labels, subject in zip(test.noisy_chunks(level), *parts, strict=True):
            counts.update(segment(model, images, device, window), labels, subject)
        scores[level.label] = counts.summary(test.class_names, test.subjects)
    return scores
