"""The atlas as a method of a comparison: made from label maps alone, in their order and for their positions."""

from types import SimpleNamespace

import numpy as np
import torch
from metasynth.experiments.comparison.atlas import PLANES, atlases_of
from metasynth.experiments.comparison.fits import without_training
from support.tiny_noise import make_cache

from metasynth.data.cache import Cache
from metasynth.data.dataset import SliceDataset


def test_slices_of_one_position_make_one_atlas(tmp_path):
    with Cache(make_cache(tmp_path / "c.h5", subjects=6, per_subject=4, shape=(16, 16))) as cache:
        maps = SliceDataset(cache, cache.subjects[1:5])
        labels = maps.read(range(len(maps))).labels
        atlases = atlases_of(labels, maps, planes=4)
        assert len(atlases) == 4
        position = maps.slice_index.numpy() - maps.slice_index.numpy().reshape(4, 4).mean(1).repeat(4)
        for atlas, place in zip(atlases, np.unique(position), strict=True):
            own = labels[torch.from_numpy(position == place)]
            assert len(own) == 4
            frequency = torch.stack([(own == k).float().mean() for k in range(cache.n_classes)])
            found = atlas.probabilities.mean((1, 2))
            assert torch.allclose(found, frequency.to(found), atol=0.02)  # smoothing keeps the amount of each class
        assert atlases[0].spacing == cache.info.spacing_mm
        few = SliceDataset(cache, cache.subjects[:1])
        assert 1 <= len(atlases_of(few.read(range(4)).labels, few)) <= 4 < PLANES


def test_slice_index_is_that_of_the_datasets_own_items(tmp_path):
    with Cache(make_cache(tmp_path / "c.h5", subjects=6, per_subject=4, shape=(16, 16))) as cache:
        maps = SliceDataset(cache, cache.subjects[4:])
        assert maps.slice_index.tolist() == cache.slice_index[16:].tolist()


def test_what_is_made_from_label_maps_without_training_is_made_from_classes(tmp_path):
    with Cache(make_cache(tmp_path / "c.h5", subjects=4, generation=True)) as cache:
        cohorts = SimpleNamespace(cache=cache, maps=SliceDataset(cache, cache.subjects))
        made = []
        fit = without_training(lambda labels, cohorts: made.append(labels))
        fit(SimpleNamespace(cohorts=cohorts))
        assert torch.equal(made[0], torch.from_numpy(cache.read_labels(range(cache.n))))
        assert made[0].max() == 2
