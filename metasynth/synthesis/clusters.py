"""A generator whose large classes have several intensities."""

from typing import final

import torch
from torch import Tensor

from metasynth.errors import UsageError
from metasynth.synthesis.draws import generators_of
from metasynth.synthesis.generator import SeededGenerator
from metasynth.synthesis.splines import spline_field

_SPLINE = 3
# Makes of an image's seed that of its clusters.
_OTHER = 0x5DEECE66D


@final
class ClusteredGenerator(SeededGenerator):
    """Splits large classes into clusters with intensities of their own, and gives images to another generator.

    Few classes give images that are too plain: real white matter, or all of the deep grey, has no single intensity.
    SynthSeg's authors subdivided the classes of label maps that had few (Billot et al., Medical Image Analysis 86
    (2023) 102789, the cardiac images) by clustering the intensities of the image that belongs to each map. Label maps
    often come without one, so here the clusters are random: in every image a class is divided by which of several
    random smooth fields is the largest, as are the label maps of SynthMorph (Hoffmann et al., IEEE Transactions on
    Medical Imaging 41 (2022) 543). No real image is looked at. The labels that come back are the given classes,
    deformed.

    Parameters
    ----------
    inner : SeededGenerator
        Makes images of 1 + `clusters` classes for each foreground class.
    clusters : int
        Clusters of a large class, at least 2.
    share : float
        A class is large in a label map if it takes at least this part of the foreground, in [0, 1].
    nodes : int
        Control points of the smooth fields along an axis, at least 2: about as many clusters fit along it.

    Raises
    ------
    UsageError
        (a ValueError) when an argument is out of range, or `inner` is not for whole classes of clusters.
    """

    def __init__(self, inner: SeededGenerator, clusters: int, share: float = 0.15, nodes: int = 8) -> None:
        if clusters < 2:
            raise UsageError(f"clusters: must be at least 2, got {clusters}")
        if (inner.n_classes - 1) % clusters:
            raise UsageError(
                f"inner: must be for a background and a multiple of {clusters} classes, got {inner.n_classes} classes"
            )
        if not 0 <= share <= 1:
            raise UsageError(f"share: must be in [0, 1], got {share}")
        if nodes < 2:
            raise UsageError(f"nodes: must be at least 2, got {nodes}")
        super().__init__(1 + (inner.n_classes - 1) // clusters)
        self.inner, self.clusters, self.share, self.nodes = inner, clusters, share, nodes

    def made_shape(self, labels: Tensor) -> tuple[int, ...]:
        """As of the other generator."""
        return self.inner.made_shape(labels)

    @torch.no_grad()
    def synthesise(self, labels: Tensor, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Images whose randomness is drawn (see `SeededGenerator`)."""
        self.check(labels)
        images, fine = self.inner.synthesise(self.split(labels, seeds), seeds)
        return images, (fine + self.clusters - 1) // self.clusters

    def deform(self, labels: Tensor, seeds: Tensor) -> Tensor:
        """The deformed label maps alone (see `SeededGenerator`); clusters move with what they are of."""
        self.check(labels)
        return self.inner.deform(labels, seeds)

    def split(self, labels: Tensor, seeds: Tensor) -> Tensor:
        """Label maps (B, *S) int64 for the inner generator: class c > 0 becomes classes (c - 1) `clusters` + 1, ...

        Of a class that is not large, all is in the first.
        """
        labels = labels.long()
        counts = torch.stack([torch.bincount(one.flatten(), minlength=self.n_classes) for one in labels])
        counts[:, 0] = 0
        large = counts >= self.share * counts.sum(1, keepdim=True)
        chosen = torch.zeros_like(labels)
        for index, generator in enumerate(generators_of(seeds ^ _OTHER, labels.device)):
            shape = labels.shape[1:]
            controls = [min(self.nodes, size) for size in shape]
            drawn = torch.randn([self.clusters, *controls], generator=generator, device=generator.device)
            fields = torch.stack([spline_field(one, shape, _SPLINE, repeat_edge=True) for one in drawn])
            chosen[index] = fields.argmax(0) * large[index][labels[index]]
        return torch.where(labels > 0, (labels - 1) * self.clusters + chosen + 1, 0)
