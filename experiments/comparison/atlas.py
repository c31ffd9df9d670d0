"""An atlas of the label maps for synthesis, fitted to every test image: the baseline that is not trained at all."""

import numpy as np
from metasynth.experiments.real_images.cohorts import RealImages
from metasynth.experiments.real_images.evaluation import Segment
from torch import Tensor

from metasynth.data.dataset import SliceDataset
from metasynth.errors import DataError
from metasynth.segment.atlas.segmenter import Atlas, AtlasSegmenter, plane_atlases

PLANES = 8
# The Gaussians of a class by its name: white matter, with the brain stem, and cortex, with its blurred edge, take two.
_GAUSSIANS = {"white matter": 2, "cortical grey": 2}
_HEAD = 4  # of the background of a whole head: air, bone, muscle, fat


def atlas_segmenter(labels: Tensor, cohorts: RealImages) -> Segment:
    """What segments by a fit of the atlas, see `AtlasSegmenter`.

    Parameters
    ----------
    labels : Tensor (N, *S) int64
        The label maps for synthesis.
    cohorts : RealImages
        Whose maps they are, in that order.
    """
    return AtlasSegmenter(atlases_of(labels, cohorts.maps), stripped=not cohorts.cache.info.shows_heads).segment


def atlases_of(labels: Tensor, maps: SliceDataset, planes: int = PLANES) -> tuple[Atlas, ...]:
    """One atlas of volumes; of slices, one for each range of their position, from the middle of each subject's.

    Parameters
    ----------
    labels : Tensor (N, *S) int64
        The label maps of a dataset, all of them in its order.
    maps : SliceDataset
        The dataset.
    planes : int
        How many ranges.

    Raises
    ------
    DataError
        The slices are of several axes, so that their positions are of several kinds.
    """
    info = maps.cache.info
    if len(info.axes) > 1:
        raise DataError(f"{maps.cache.path}: the atlas takes slices along one axis, got those along {info.axis}")
    several = _GAUSSIANS | {info.class_names[0]: _HEAD} if info.shows_heads else _GAUSSIANS
    gaussians = tuple(several.get(name, 1) for name in info.class_names)
    if labels.ndim == 4:
        return (Atlas.from_labels(labels, len(gaussians), spacing=info.spacing_mm, gaussians=gaussians),)
    owner, position = maps.subject_index.numpy(), maps.slice_index.numpy().astype(float)
    for subject in np.unique(owner):
        position[owner == subject] -= position[owner == subject].mean()
    return plane_atlases(
        labels, position, min(planes, len(labels)), len(gaussians), spacing=info.spacing_mm, gaussians=gaussians
    )
