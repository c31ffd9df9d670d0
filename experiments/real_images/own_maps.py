"""Label maps of the labelled people themselves, beside those of a cache of label maps, to synthesise images from."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metasynth.data.cache import Cache
from metasynth.data.dataset import Batch
from metasynth.errors import DataError


@dataclass(frozen=True)
class OwnMaps:
    """How often the labelled people's own maps serve, and what their labels are among those of the others.

    Attributes
    ----------
    share : float
        Of the synthetic images those of own maps, in (0, 1); each image is drawn independently.
    numbers : torch.Tensor
        (G,) int64, see `numbers_in`.
    """

    share: float
    numbers: Tensor

    def chosen(self, n: int, generator: torch.Generator) -> Tensor:
        """Which of n images, (n,) bool, are made from own maps."""
        return torch.rand(n, generator=generator) < self.share

    def among(self, maps: Batch, own: Batch, chosen: Tensor) -> Batch:
        """Label maps of both, own ones (without their images) where they were chosen.

        Parameters
        ----------
        maps, own : Batch
            The others, without images, and the own ones, each in order, of one shape.
        chosen : torch.Tensor
            (B,) bool; B is the number of both.

        Returns
        -------
        Batch
            ``subject`` stays that of either's own dataset.
        """
        place = torch.cat([(~chosen).nonzero()[:, 0], chosen.nonzero()[:, 0]]).argsort()
        structures = torch.cat([maps.structures, self.numbers[own.structures]])[place]
        fine = None if maps.fine is None else structures
        subject = torch.cat([maps.subject, own.subject])[place]
        return replace(maps, labels=maps.classes_of(structures), subject=subject, fine=fine)


def numbers_in(maps: Cache, own: Cache) -> Tensor:
    """The number in ``maps`` of every generation label of ``own``: that of the same name and class.

    Returns
    -------
    torch.Tensor
        (G,) int64, of G labels of ``own``.

    Raises
    ------
    DataError
        Which names both files and the first label that ``maps`` lacks or has in another class.
    """
    number = {name: g for g, name in enumerate(maps.generation_names)}
    for name, wanted in zip(own.generation_names, own.generation_classes, strict=True):
        found = f"of class {maps.generation_classes[number[name]]!r}" if name in number else "absent"
        if found != f"of class {wanted!r}":
            raise DataError(
                f"{maps.path}: expected all generation labels of {own.path}, as own_labels synthesises from both; "
                f"{name!r} is of class {wanted!r} there, {found} here: prepare both with the same --mapping and "
                "--generate"
            )
    return torch.tensor([number[name] for name in own.generation_names])
