"""Dice of a segmenter on real images, per subject and class, and what a segmenter is here."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metasynth.data.dataset import SliceDataset
from metasynth.interrupts import check
from metasynth.segment.metrics import DiceAccumulator
from metasynth.training.evaluation import CHUNK, segment
from metasynth.training.selection import Weights

Segment = Callable[[Tensor], Tensor]
"""Segments images: (N, 1, *S) float32 -> class indices (N, *S) int64."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network at one point of its training; `Segment`. Several may share the network.

    It sees images whole, or through a sliding ``window``.
    """

    network: nn.Module
    weights: Weights
    device: str
    window: tuple[int, ...] = ()

    def __call__(self, images: Tensor) -> Tensor:
        """Most probable class (N, *S) of images (N, 1, *S)."""
        self.network.load_state_dict(self.weights)
        return segment(self.network, images, self.device, self.window)


def score(segments: Segment, dataset: SliceDataset) -> dict[str, Any]:
    """The summary of `DiceAccumulator`, and ``per_subject_class``: subject -> Dice of each class, background first.

    Where the images are no scans, ``marks`` says so.
    """
    names = dataset.cache.class_names
    counts = DiceAccumulator(len(names), len(dataset.subjects))
    for items in torch.arange(len(dataset)).split(CHUNK):
        check()
        batch = dataset.read(items)
        if batch.images is not None:  # caches were checked to have some
            counts.update(segments(batch.images), batch.labels, batch.subject)
    each = [[None if math.isnan(value) else value for value in row] for row in counts.result().tolist()]
    by_subject = dict(zip(dataset.subjects, each, strict=True))
    marks = dataset.cache.info.marks
    said = {"marks": list(marks)} if marks else {}
    return {**counts.summary(names, dataset.subjects), "per_subject_class": by_subject, **said}


def mean_dice(segments: Segment, dataset: SliceDataset) -> float:
    """Mean Dice of the foreground classes over subjects; 0 where there is nothing to score."""
    return score(segments, dataset)["mean"] or 0.0
