"""Label maps of the labelled people beside those of others: how many, whose, and what their labels are called."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metasynth.experiments.comparison.caches import check_comparison
from metasynth.experiments.comparison.settings import ComparisonConfig
from metasynth.experiments.real_images.own_maps import OwnMaps, numbers_in
from metasynth.experiments.real_images.settings import SubjectSettings
from metasynth.experiments.real_images.streams import ComparisonData, draw_subjects
from support.tiny_comparison import real_cache, rename
from support.tiny_noise import STRUCTURES, TARGET, make_cache

from metasynth.augment.noise import GaussianNoise
from metasynth.data.cache import Cache, write_cache
from metasynth.data.dataset import SliceDataset
from metasynth.errors import DataError, UsageError
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.config import PAPER
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.settings import OuterSettings
from metasynth.training.sources import Example, Synthetic
from metasynth.training.streams import stream

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

ORDER = [0, 3, 1, 4, 2]  # place in the other cache -> label of this one


class Seen:
    """Examples of the structures of a batch as they are."""

    def __call__(self, batch, generator):
        return Example(batch.structures[:, None].float(), batch.labels, None, batch.fine)


def with_labels(path, order, number):
    """The label maps of a cache with the structures ``order``, of which a voxel of structure g has ``number[g]``."""
    with Cache(path) as cache:
        write_cache(
            path,
            labels=np.array(number, np.uint8)[cache.read_stored("labels", range(cache.n))],
            images=None,
            subject=cache.subject_index,
            subjects=list(cache.subjects),
            slice_index=cache.slice_index,
            info=replace(
                cache.info,
                generation_names=tuple(STRUCTURES[g] for g in order),
                target=tuple(TARGET[g] for g in order),
            ),
        )
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def real(folder):
    with Cache(real_cache(folder / "real.h5", subjects=6, generation=True)) as cache:
        yield SliceDataset(cache, cache.subjects[:5])


@pytest.fixture(scope="module")
def others(folder):
    """Label maps of four other people, and one of a labelled person, of another shape."""
    path = make_cache(folder / "others.h5", subjects=5, shape=(12, 20), generation=True)
    with Cache(rename(path, lambda index, name: name if index == 0 else f"other {name}")) as cache:
        yield SliceDataset(cache, cache.subjects)


@pytest.fixture
def data(real, others):
    own = OwnMaps(0.5, numbers_in(others.cache, real.cache))
    return ComparisonData(others, real, Seen(), Seen(), 0.0, own, seed=2, batch_size=8, outer_batch_size=4)


def people_of(dataset, structures):
    """Of each map the person of a dataset whose it is, or None."""
    every = dataset.read(range(len(dataset)))
    same = [(every.structures == one).flatten(1).all(1).nonzero() for one in structures]
    return [dataset.subjects[int(every.subject[found])] if len(found) else None for found in same]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_each_image_is_of_an_own_map_with_the_probability_that_was_asked_for(data, real, share):
    shared = replace(data, own=replace(data.own, share=share))
    counts = [sum(name is not None for name in people_of(real, shared[step].inner.fine)) for step in range(100)]
    sd = (share * (1 - share)) ** 0.5
    assert np.mean(counts) / 8 == pytest.approx(share, abs=3 * sd / 800**0.5)
    assert np.var(counts) == pytest.approx(8 * sd**2, rel=0.5)  # of independent draws; 0 of a fixed number


def test_own_maps_are_of_everyone_and_the_others_stay_where_they_were(data, real):
    alone = replace(data, own=None)
    seen = set()
    for step in range(30):
        inner = data[step].inner
        names = people_of(real, inner.fine)
        kept = torch.tensor([name is None for name in names])
        seen |= set(names)
        (_, theirs), _ = data.divided(step, lambda draw: draw_subjects(data.maps, real, draw, apart=True))
        assert {name for name in names if name} <= {
            name for name, outer in zip(real.subjects, theirs.tolist(), strict=True) if not outer
        }
        assert torch.equal(inner.fine[kept], alone[step].inner.fine[kept])
        assert torch.equal(inner.labels, torch.tensor(TARGET)[inner.fine])
        mixed = replace(data, fraction=0.25)[step].inner.labels
        assert torch.equal(mixed[:6], inner.labels[:6])
    assert seen == {None, *real.subjects}


@settings(max_examples=40)
@given(
    warmup=st.integers(0, 2),
    horizon=st.integers(1, 4),
    gap=st.integers(0, 2),
    n=st.integers(2, 5),
    seed=st.integers(0, 500),
    of_other_maps=st.booleans(),
)
def test_nobody_is_synthesised_from_and_shown_by_the_outer_batch_of_a_window(
    real, others, warmup, horizon, gap, n, seed, of_other_maps
):
    """Neither by a map of their own nor by one in the other cache."""
    few = SliceDataset(real.cache, real.subjects[:n])
    maps = others if of_other_maps else SliceDataset(real.cache, real.subjects[:2])
    outer = OuterSettings(warmup=warmup, every=horizon + gap, horizon=horizon)
    data = ComparisonData(
        maps,
        few,
        Seen(),
        Seen(),
        0.0,
        OwnMaps(0.9, torch.arange(5)),
        seed=seed,
        batch_size=12,
        outer_batch_size=10,
        is_due=outer.is_due,
        window_end=outer.window_end,
        reference="none",
    )
    for begin in (warmup, warmup + outer.every):
        steps = [data[step] for step in range(begin, begin + horizon)]
        mine = {name for batch in steps for name in people_of(few, batch.inner.fine)} - {None}
        theirs = set(people_of(few, steps[-1].outer.fine))
        assert theirs
        assert mine
        assert not mine & theirs
        _, of_real = draw_subjects(maps, few, torch.Generator().manual_seed(seed), apart=True)
        assert 1 <= int(of_real.sum()) < n


def test_without_windows_nothing_else_is_drawn_than_without_own_maps(data):
    alone = replace(data, own=None, is_due=lambda step: True)
    apart = replace(data, own=replace(data.own, share=1e-12), is_due=lambda step: True)
    for step in range(4):
        for one, other in zip(alone[step], apart[step], strict=True):
            assert torch.equal(one.images, other.images)


def test_workers_change_nothing(data):
    generator = BatchedGenerator(5, replace(PAPER, elastic_nodes=4))
    learned = replace(data, synthetic=Synthetic(generator, GaussianNoise(0.1).draw), is_due=_odd, batch_size=3)
    alone, one = (list(stream(learned, 0, 4, workers)) for workers in (0, 1))
    for a, b in zip(alone, one, strict=True):
        assert all(torch.equal(x.images, y.images) for x, y in zip(a, b, strict=True) if x is not None)


def _odd(step):
    return step % 2 == 1


def test_labels_of_another_order_are_matched_by_name(folder, real, data):
    path = make_cache(folder / "other order.h5", subjects=5, shape=(12, 20), generation=True)
    with Cache(with_labels(path, ORDER, np.argsort(ORDER))) as cache:
        maps = SliceDataset(cache, cache.subjects)
        numbers = numbers_in(cache, real.cache)
        assert [cache.generation_names[g] for g in numbers] == list(real.cache.generation_names)
        renamed = replace(data, maps=maps, own=OwnMaps(0.5, numbers), seed=3)
        batch = [renamed[step].inner for step in range(6)]
        for inner in batch:
            assert torch.equal(inner.labels, torch.from_numpy(cache.target)[inner.fine])
            mine = torch.tensor(ORDER)[inner.fine]  # as they are numbered in the real images' cache
            assert {name is not None for name in people_of(real, mine)} == {True, False}


def test_some_of_the_labels_suffice(folder, real):
    path = with_labels(make_cache(folder / "no core.h5", generation=True), range(4), [0, 1, 2, 3, 3])
    with Cache(path) as cache:
        assert numbers_in(real.cache, cache).tolist() == [0, 1, 2, 3]
        with pytest.raises(DataError) as caught:
            numbers_in(cache, real.cache)
        assert str(caught.value) == (
            f"{path}: expected all generation labels of {real.cache.path}, as own_labels synthesises from both; 'core' "
            "is of class 'white matter' there, absent here: prepare both with the same --mapping and --generate"
        )


CONFIG = ComparisonConfig(
    methods=("naive",),
    own_labels=0.5,
    subjects=SubjectSettings(train=(2,)),
    segmenter=SegmenterSettings(widths=(4, 8)),
)


def test_what_cannot_be_is_refused_before_anything_is_made(folder):
    fine = real_cache(folder / "fine.h5", subjects=6, generation=True)
    coarse = real_cache(folder / "coarse.h5", subjects=6)
    few = real_cache(folder / "few.h5", subjects=3, generation=True)
    labels = rename(make_cache(folder / "maps.h5", generation=True), lambda index, name: f"other {name}")
    check_comparison(CONFIG, fine, labels)
    check_comparison(replace(CONFIG, own_labels=0.0), coarse, labels)
    with pytest.raises(UsageError) as caught:
        check_comparison(CONFIG, fine)
    assert str(caught.value) == (
        "own_labels: is the share of label maps beside those of a cache of their own (--label-cache); without one "
        "those of all training subjects serve; expected 0, got 0.5"
    )
    with pytest.raises(DataError) as caught:
        check_comparison(CONFIG, coarse, labels)
    assert str(caught.value) == (
        f"{labels}: expected all generation labels of {coarse}, as own_labels synthesises from both; 'grey matter' is "
        "of class 'grey matter' there, absent here: prepare both with the same --mapping and --generate"
    )
    for data, train in ((fine, (2, 1)), (few, (0,))):
        with pytest.raises(DataError) as caught:
            check_comparison(replace(CONFIG, subjects=SubjectSettings(train)), data, labels)
        assert str(caught.value) == (
            f"{data}: own_labels keeps those whose label maps serve apart from those of the outer batch, which needs "
            "at least 2 training subjects, got subjects.train=1"
        )
