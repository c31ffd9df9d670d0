"""What the labelled images of a comparison say of the intensities of structures."""

from collections.abc import Iterator

import torch
from numpy.typing import NDArray

from metasynth.augment.learned_synthesis import Priors
from metasynth.data.cache import Cache
from metasynth.data.dataset import SliceDataset
from metasynth.synthesis.priors.estimate import estimate_priors


def estimated_priors(real: SliceDataset, maps: Cache) -> Priors:
    """Priors of the generation labels of one cache, estimated from the labelled images of people of another.

    Parameters
    ----------
    real : SliceDataset
        The labelled images.
    maps : Cache
        Whose generation labels images are synthesised from; those that the images lack take the values of their class.

    Raises
    ------
    DataError
        When nothing is known of a label's class.
    """
    found = estimate_priors(_people(real), *_labels_of(real.cache)).priors.of_labels(*_labels_of(maps))
    return Priors(found.mean, found.spread, found.texture)


def _labels_of(cache: Cache) -> tuple[tuple[str, ...], list[str]]:
    """The generation labels, and the class that each is part of."""
    return tuple(cache.generation_names), [cache.class_names[k] for k in cache.target]


def _people(real: SliceDataset) -> Iterator[tuple[NDArray, NDArray]]:
    """Images and generation labels of each person, (N, *S)."""
    for person in range(len(real.subjects)):
        items = real.read(torch.nonzero(real.subject_index == person)[:, 0])
        if items.images is None:
            raise TypeError("real: expected images, which the caches were checked to have")
        yield items.images[:, 0].numpy(), items.structures.numpy()
