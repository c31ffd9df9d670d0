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
    own = real.cache
    priors = estimate_priors(_people(real), own.generation_names, own.generation_classes).priors
    found = priors.of_labels(maps.generation_names, maps.generation_classes)
    return Priors(found.mean, found.spread, found.texture)


def _people(real: SliceDataset) -> Iterator[tuple[NDArray, NDArray]]:
    """Images and generation labels of each person, (N, *S)."""
    for person in range(len(real.subjects)):
        items = real.read(torch.nonzero(real.subject_index == person)[:, 0])
        if items.images is None:
            raise TypeError("real: expected images, which the caches were checked to have")
        yield items.images[:, 0].numpy(), items.structures.numpy()
