import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.caches import FINE_INFO, TARGET, arrays, make

from metasynth.data import dataset as dataset_module
from metasynth.data.cache import Cache, write_cache
from metasynth.data.dataset import SliceDataset, draw_disjoint
from metasynth.errors import DataError


@pytest.fixture
def cache(tmp_path):
    with Cache(make(tmp_path / "c.h5")) as cache:
        yield cache


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Six subjects with 1 to 6 slices, in mixed order."""
    given_ = arrays(n_subjects=7, per_subject=3)
    given_["subjects"] = given_["subjects"][:6]
    given_["subject"] = np.random.default_rng(0).permutation(np.repeat(np.arange(6), np.arange(1, 7)))
    path = tmp_path_factory.mktemp("cache") / "u.h5"
    write_cache(path, **given_)
    with Cache(path) as cache:
        yield cache


@pytest.mark.parametrize("in_memory", [True, False])
def test_items_are_those_of_the_subjects(cache, in_memory, monkeypatch):
    if not in_memory:
        monkeypatch.setattr(dataset_module, "IN_MEMORY_BYTES", 0)
    dataset = SliceDataset(cache, ["s3", "s1"])
    assert len(dataset) == 6
    assert dataset.subject_index.tolist() == [1, 1, 1, 0, 0, 0]
    batch = dataset.read(torch.tensor([4, 0, 4]))
    assert [dataset.subjects[i] for i in batch.subject] == ["s3", "s1", "s3"]
    rows = [10, 3, 10]
    assert batch.labels.dtype == torch.int64
    np.testing.assert_array_equal(batch.labels.numpy(), arrays()["labels"][rows])
    assert batch.images.dtype == torch.float32
    assert batch.images.shape == (3, 1, 6, 7)
    np.testing.assert_array_equal(batch.images[:, 0].numpy(), arrays()["images"][rows])


@pytest.mark.parametrize("in_memory", [True, False])
def test_labels_are_the_classes_of_the_structures(tmp_path, in_memory, monkeypatch):
    if not in_memory:
        monkeypatch.setattr(dataset_module, "IN_MEMORY_BYTES", 0)
    with Cache(make(tmp_path / "f.h5", info=FINE_INFO)) as fine:
        batch = SliceDataset(fine, ["s3", "s1"]).read([4, 0])
    expected = arrays(info=FINE_INFO)["labels"][[10, 3]]
    np.testing.assert_array_equal(batch.structures.numpy(), expected)
    np.testing.assert_array_equal(batch.labels.numpy(), np.array(TARGET)[expected])
    assert batch.structures.dtype == batch.labels.dtype == torch.int64
    moved = batch.structures.flip(-1)
    assert torch.equal(batch.classes_of(moved), batch.labels.flip(-1))


def test_without_generation_labels_the_structures_are_the_classes_themselves(cache):
    batch = SliceDataset(cache, ["s3", "s1"]).read([4, 0])
    assert batch.structures is batch.labels
    assert batch.classes_of(batch.labels) is batch.labels


def test_float16_images_and_volumes(tmp_path):
    given_ = arrays(shape=(4, 5, 3))
    given_["images"] = given_["images"].astype(np.float16)
    given_["info"] = given_["info"].__class__(**{**given_["info"].__dict__, "spacing_mm": (1.0, 1.0, 1.0)})
    write_cache(tmp_path / "v.h5", **given_)
    with Cache(tmp_path / "v.h5") as cache:
        batch = SliceDataset(cache, cache.subjects).read([0, 1])
    assert batch.images.shape == (2, 1, 4, 5, 3)
    assert batch.images.dtype == torch.float32


def test_label_only_cache_gives_no_images(tmp_path, monkeypatch):
    with Cache(make(tmp_path / "c.h5", images=False)) as cache:
        for most in (dataset_module.IN_MEMORY_BYTES, 0):
            monkeypatch.setattr(dataset_module, "IN_MEMORY_BYTES", most)
            batch = SliceDataset(cache, cache.subjects).read([0])
            assert batch.images is None


def test_only_small_caches_are_kept_in_memory(cache, monkeypatch):
    read = []
    monkeypatch.setattr(
        cache, "read_structures", lambda rows: read.append(list(rows)) or np.zeros((len(rows), 6, 7), int)
    )
    SliceDataset(cache, cache.subjects).read([0])
    assert read == []
    monkeypatch.setattr(dataset_module, "IN_MEMORY_BYTES", 15 * 6 * 7 * 5)
    SliceDataset(cache, cache.subjects[:-1]).read([0])
    assert read == []
    SliceDataset(cache, cache.subjects).read([0])
    assert read == [[0]]


def test_reading_does_not_alias_what_is_kept(cache):
    dataset = SliceDataset(cache, cache.subjects)
    dataset.read([0]).images.fill_(7.0)
    assert dataset.read([0]).images.max() <= 1


def test_a_pickled_dataset_reads_the_same(cache, monkeypatch):
    monkeypatch.setattr(dataset_module, "IN_MEMORY_BYTES", 0)
    dataset = SliceDataset(cache, ["s0", "s2"])
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy.read([5, 2]).images, dataset.read([5, 2]).images)
    copy.cache.close()


def test_bad_subjects_and_indices(cache):
    with pytest.raises(DataError, match="at least one subject"):
        SliceDataset(cache, [])
    with pytest.raises(DataError, match="must be different"):
        SliceDataset(cache, ["s0", "s0"])
    with pytest.raises(DataError, match="subject 'nobody' is not in this cache of 5 subjects"):
        SliceDataset(cache, ["s0", "nobody"])
    dataset = SliceDataset(cache, ["s0"])
    for index in (-1, 3):
        with pytest.raises(DataError, match=f"index {index} is out of range; 0 to 2 are allowed"):
            dataset.read([0, index])


@settings(max_examples=60, deadline=None)
@given(
    n_subjects=st.integers(2, 6),
    n_a=st.integers(1, 30),
    n_b=st.integers(1, 30),
    seed=st.integers(0, 2**40),
)
def test_disjoint_groups(uneven, n_subjects, n_a, n_b, seed):
    dataset = SliceDataset(uneven, uneven.subjects[-n_subjects:])
    generator = torch.Generator().manual_seed(seed)
    a, b = draw_disjoint(dataset, n_a, n_b, generator)
    assert (a.shape, b.shape, a.dtype) == ((n_a,), (n_b,), torch.int64)
    of_a, of_b = (set(dataset.subject_index[part].tolist()) for part in (a, b))
    assert not of_a & of_b
    assert len(of_a) <= (n_subjects + 1) // 2
    for part in (a, b):
        assert 0 <= part.min() <= part.max() < len(dataset)
        counts = torch.bincount(part)
        assert counts.max() - counts[counts > 0].min() <= 1
    again = draw_disjoint(dataset, n_a, n_b, torch.Generator().manual_seed(seed))
    assert torch.equal(a, again[0])
    assert torch.equal(b, again[1])


def test_no_item_repeats_while_others_are_unused(uneven):
    dataset = SliceDataset(uneven, uneven.subjects)
    a, _ = draw_disjoint(dataset, 200, 1, torch.Generator().manual_seed(0))
    pool = torch.unique(a)
    assert sorted(a[: len(pool)].tolist()) == pool.tolist()


def test_every_pair_of_subjects_is_parted_in_time(uneven):
    dataset = SliceDataset(uneven, uneven.subjects)
    generator = torch.Generator().manual_seed(0)
    parted = set()
    for _ in range(60):
        a, b = draw_disjoint(dataset, 30, 30, generator)
        of_a, of_b = (dataset.subject_index[part].unique().tolist() for part in (a, b))
        parted |= {(i, j) for i in of_a for j in of_b}
    assert len(parted) == 30


def test_disjoint_groups_need_two_subjects_and_positive_sizes(cache):
    generator = torch.Generator()
    with pytest.raises(DataError, match="at least 2 subjects, got 1"):
        draw_disjoint(SliceDataset(cache, ["s0"]), 1, 1, generator)
    with pytest.raises(DataError, match="must be at least 1, got 0 and 2"):
        draw_disjoint(SliceDataset(cache, ["s0", "s1"]), 0, 2, generator)
