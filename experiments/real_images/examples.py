"""The images that the report of a comparison shows: one test item a condition, and one for each learned augmenter.

Arrays are named 'image/CONDITION', 'truth/CONDITION', 'segmentation/CONDITION/METHOD/SUBJECTS' and
'augmentation/METHOD/SUBJECTS/PART' with the parts of `shown_parts`.
"""

from typing import Any, final

import torch
from metasynth.experiments.real_images.cohorts import RealImages
from metasynth.experiments.real_images.method_result import MethodResult
from metasynth.experiments.real_images.streams import cropped_or_padded
from numpy.typing import NDArray
from torch import Tensor

from metasynth.augment.augmenter import Augmenter
from metasynth.data.dataset import Batch, SliceDataset
from metasynth.running.seeding import generator_for
from metasynth.running.study import StudyContext
from metasynth.training.evaluation import CHUNK, foreground_of, middle_plane
from metasynth.training.sources import Example, Synthetic


@final
class Examples:
    """Gathers the images of a run while its methods are fitted.

    Attributes
    ----------
    arrays : dict
        (H, W) arrays by name; of volumes the middle plane.
    """

    def __init__(self, context: StudyContext, cohorts: RealImages) -> None:
        self._seed, self._cohorts = context.seed, cohorts
        self._items = {condition: fullest_item(test) for condition, test in cohorts.tests.items()}
        self._map = cropped_or_padded(fullest_item(cohorts.maps), cohorts.cache.shape)
        self.arrays: dict[str, NDArray[Any]] = {}
        for condition, item in self._items.items():
            self._add(f"image/{condition}", _images(item)[0, 0])
            self._add(f"truth/{condition}", item.labels[0])

    def add(self, method: str, subjects: int, fitted: MethodResult) -> None:
        """What the first checkpoint of a method makes of the test items, and a learned augmenter of a label map."""
        segments = next(iter(fitted.checkpoints.values()))
        for condition, item in self._items.items():
            self._add(f"segmentation/{condition}/{method}/{subjects}", segments(_images(item))[0])
        if fitted.augmenter is not None:
            draws = generator_for(self._seed, "example")
            augmenter = fitted.augmenter
            made = Synthetic(self._cohorts.generator, augmenter.draw, augmenter.takes)(self._map, draws)
            for part, image in shown_parts(augmenter, made).items():
                self._add(f"augmentation/{method}/{subjects}/{part}", image[0, 0])

    def _add(self, name: str, image: Tensor) -> None:
        self.arrays[name] = middle_plane(image).numpy()


def _images(item: Batch) -> Tensor:
    if item.images is None:
        raise TypeError("items: expected images, which the caches were checked to have")
    return item.images


@torch.no_grad()
def shown_parts(augmenter: Augmenter[Any], example: Example) -> dict[str, Tensor]:
    """An augmenter at work on an example that was made for it.

    Returns
    -------
    dict
        (B, 1, *S) each: 'synthetic' and 'augmented', the images before and after; between them what the augmenter shows
        of itself (`metasynth.augment.augmenter.Augmenter.shown`), the former too if it takes structures.
    """
    given, draws = example.given, example.draws
    before = {"synthetic": given} if augmenter.takes == "images" else {}
    found = {**before, **augmenter.shown(given, draws)}
    return found if "augmented" in found else {**found, "augmented": augmenter(given, draws)}


def fullest_item(dataset: SliceDataset) -> Batch:
    """The item with the most foreground, which shows most."""
    counts = [foreground_of(dataset.read(items).labels) for items in torch.arange(len(dataset)).split(CHUNK)]
    return dataset.read(torch.cat(counts).argmax()[None])
