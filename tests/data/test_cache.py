import dataclasses
import multiprocessing
import os
import pickle

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.caches import FINE_INFO, GENERATION, INFO, TARGET, arrays, make

from metasynth.data import validation
from metasynth.data.cache import Cache, CacheInfo, verify_digest, write_cache
from metasynth.errors import DataError

NAMES = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=12)


@st.composite
def contents(draw):
    n_subjects, per_subject = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    n, k = n_subjects * per_subject, draw(st.integers(2, 300))
    table = draw(st.none() | st.permutations([*range(1, k), *draw(st.lists(st.integers(0, k - 1), max_size=40))]))
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=2, max_size=3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    image_type = draw(st.sampled_from([None, np.float16, np.float32, np.float64]))
    info = CacheInfo(
        class_names=tuple(f"class {i}" for i in range(k)),
        mapping=draw(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)),
        spacing_mm=tuple(draw(st.floats(0.1, 10)) for _ in shape),
        axis=draw(st.sampled_from(["coronal", "volume", ""])),
        orientation="RAS"[: len(shape)],
        source="π, and a second\nline",
        created_by="test",
        generation_names=() if table is None else ("air", *(f"structure {g}" for g, _ in enumerate(table, 1))),
        target=() if table is None else (0, *table),
    )
    return {
        "labels": rng.integers(0, len(info.stored.names), (n, *shape)),
        "images": None if image_type is None else rng.random((n, *shape)).astype(image_type),
        "subject": rng.permutation(np.repeat(np.arange(n_subjects), per_subject)),
        "subjects": draw(st.lists(NAMES, min_size=n_subjects, max_size=n_subjects, unique=True)),
        "slice_index": rng.integers(-5, 500, n),
        "info": info,
    }


@settings(max_examples=30, deadline=None)
@given(given_=contents())
def test_what_is_written_is_read_back(tmp_path_factory, given_):
    path = tmp_path_factory.mktemp("cache") / "c.h5"
    digest = write_cache(path, **given_)
    with Cache(path) as cache:
        assert cache.info == dataclasses.replace(given_["info"], digest=digest)
        assert cache.subjects == tuple(given_["subjects"])
        assert (cache.n, *cache.shape) == given_["labels"].shape
        assert cache.n_classes == len(given_["info"].class_names)
        np.testing.assert_array_equal(cache.subject_index, given_["subject"])
        np.testing.assert_array_equal(cache.slice_index, given_["slice_index"])
        order = np.random.default_rng(0).integers(0, cache.n, 5)
        structures, labels = cache.read_structures(order), cache.read_labels(order)
        assert structures.dtype == labels.dtype == np.int64
        np.testing.assert_array_equal(structures, given_["labels"][order])
        table = given_["info"].target or range(cache.n_classes)
        np.testing.assert_array_equal(labels, np.array(table)[given_["labels"][order]])
        assert cache.target.tolist() == list(table)
        assert cache.target.dtype == np.int64
        assert cache.n_generation == len(cache.generation_names) == len(table)
        assert cache.generation_names == (given_["info"].generation_names or cache.class_names)
        assert cache.has_images == (given_["images"] is not None)
        if cache.has_images:
            images = cache.read_images(order)
            assert images.dtype == np.float32
            np.testing.assert_array_equal(images, given_["images"][order].astype(np.float32))
    assert verify_digest(path)


def test_layout_on_disk_is_that_of_format_version_1(tmp_path):
    path = make(tmp_path / "c.h5")
    with h5py.File(path) as file:
        assert set(file) == {"labels", "images", "subject", "subjects", "slice"}
        assert set(file.attrs) == {
            *("format", "version", "class_names", "mapping", "spacing_mm", "axis", "orientation", "source"),
            *("created_by", "digest"),
        }
        assert file["labels"].dtype == np.uint8
        assert file["labels"].chunks == file["images"].chunks == (1, 6, 7)
        assert file["labels"].compression == "gzip"
    make(path, images=False)
    with h5py.File(path) as file:
        assert "images" not in file


def test_layout_on_disk_of_generation_labels_is_that_of_format_version_2(tmp_path):
    path = make(tmp_path / "c.h5", info=FINE_INFO)
    with h5py.File(path) as file, h5py.File(make(tmp_path / "old.h5")) as old:
        assert set(file) == set(old)
        assert set(file.attrs) == {*old.attrs, "generation_names", "target"}
        assert (file.attrs["version"], old.attrs["version"]) == (2, 1)
        assert file.attrs["target"].tolist() == [0, 1, 2, 0, 2]
        assert [name.decode() for name in file.attrs["generation_names"]] == list(GENERATION)
        assert file["labels"][()].max() == 4


def test_generation_labels_that_are_the_classes_make_the_same_file_as_none(tmp_path):
    names = INFO.class_names
    same = dataclasses.replace(INFO, generation_names=names, target=(0, 1, 2))
    assert make(tmp_path / "a.h5", info=same).read_bytes() == make(tmp_path / "b.h5").read_bytes()
    with Cache(tmp_path / "a.h5") as cache:
        assert cache.info.version == 1


def test_content_of_format_version_1_has_the_digest_it_ever_had(tmp_path):
    digest = write_cache(tmp_path / "c.h5", **arrays())
    assert digest == "89e613068345f777d3b3dedc8e2924ac3a0ae6f086b10881936d1ea1a08e2f62"


def test_digest_depends_on_the_content_and_not_on_its_storage(tmp_path):
    first = write_cache(tmp_path / "a.h5", **arrays())
    assert write_cache(tmp_path / "b.h5", **arrays()) == first
    other_writer = {**arrays(), "info": dataclasses.replace(INFO, created_by="another program")}
    assert write_cache(tmp_path / "b.h5", **other_writer) == first
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        stored = file["labels"][()]
        del file["labels"]
        file.create_dataset("labels", data=stored)  # contiguous, not compressed
    assert verify_digest(tmp_path / "a.h5")
    for change in (
        {"labels": arrays()["labels"] // 2},
        {"images": arrays(seed=1)["images"]},
        {"images": None},
        {"subjects": ["z", *arrays()["subjects"][1:]]},
        {"subject": arrays()["subject"][::-1]},
        {"slice_index": arrays()["slice_index"] + 1},
        {"info": dataclasses.replace(INFO, class_names=("background", "white matter", "csf"))},
        {"info": dataclasses.replace(INFO, spacing_mm=(2.0, 2.0))},
        {"info": dataclasses.replace(INFO, mapping="another")},
        {"info": dataclasses.replace(INFO, generation_names=("air", "white", "grey"), target=(0, 1, 2))},
    ):
        assert write_cache(tmp_path / "c.h5", **{**arrays(), **change}) != first, change


@pytest.mark.parametrize(
    "change",
    [
        {"target": (0, 1, 2, 0, 1)},
        {"generation_names": (*GENERATION[:4], "grey")},
        {"generation_names": (*GENERATION, "more"), "target": (*TARGET, 1)},
        {"class_names": ("background", "white", "grey")},
    ],
)
def test_digest_depends_on_the_generation_labels(tmp_path, change):
    first = write_cache(tmp_path / "a.h5", **arrays(info=FINE_INFO))
    assert write_cache(tmp_path / "b.h5", **arrays(info=FINE_INFO)) == first
    changed = {**arrays(info=FINE_INFO), "info": dataclasses.replace(FINE_INFO, **change)}
    assert write_cache(tmp_path / "c.h5", **changed) != first


def test_a_table_changed_in_the_file_is_noticed(tmp_path):
    path = make(tmp_path / "c.h5", info=FINE_INFO)
    with h5py.File(path, "r+") as file:
        file.attrs["target"] = [0, 1, 2, 1, 2]
    assert not verify_digest(path)
    with pytest.raises(DataError, match=r"c\.h5: its content was changed after it was written"):
        Cache(path)


def test_a_changed_content_is_noticed(tmp_path):
    path = make(tmp_path / "c.h5")
    with h5py.File(path, "r+") as file:
        file["labels"][3, 2, 2] = (file["labels"][3, 2, 2] + 1) % 3
    assert not verify_digest(path)


@pytest.mark.parametrize("block_bytes", [1, 200, 2**20])
def test_reading_in_blocks_changes_neither_digest_nor_checks(tmp_path, monkeypatch, block_bytes):
    path = make(tmp_path / "c.h5")
    monkeypatch.setattr(validation, "BLOCK_BYTES", block_bytes)
    assert verify_digest(path)
    wrong = arrays()
    wrong["labels"][11, 0, 0] = 3
    with pytest.raises(DataError, match="label 3 in slice 11"):
        write_cache(path, **wrong)


def test_big_endian_contents_are_read_and_keep_their_digest(tmp_path):
    path = make(tmp_path / "c.h5")
    with h5py.File(path, "r+") as file:
        stored = file["images"][()]
        del file["images"]
        file["images"] = stored.astype(">f4")
    assert verify_digest(path)
    with Cache(path) as cache:
        np.testing.assert_array_equal(cache.read_images([4]), stored[[4]])


def test_indices_out_of_range_and_closed_cache(tmp_path):
    cache = Cache(make(tmp_path / "c.h5", images=False))
    for index in (-1, 15):
        with pytest.raises(DataError, match=f"c.h5: index {index} is out of range; 0 to 14 are allowed"):
            cache.read_labels([0, index])
    with pytest.raises(DataError, match=r"c\.h5: holds labels only"):
        cache.read_images([0])
    assert cache.read_labels([]).shape == (0, 6, 7)
    cache.close()
    cache.close()
    with pytest.raises(DataError, match=r"c\.h5: this cache was closed"):
        cache.read_labels([0])


def test_pickled_cache_opens_its_own_handle(tmp_path):
    with Cache(make(tmp_path / "c.h5")) as cache:
        copy = pickle.loads(pickle.dumps(cache))
        np.testing.assert_array_equal(copy.read_images([2, 1]), cache.read_images([2, 1]))
        assert copy._handle is not cache._handle
        copy.close()
        assert cache.read_labels([0]).shape == (1, 6, 7)


def test_a_replaced_file_is_noticed_by_a_worker(tmp_path):
    with Cache(make(tmp_path / "c.h5")) as cache:
        sent = pickle.dumps(cache)
    make(tmp_path / "c.h5", seed=1)
    with pytest.raises(DataError, match=r"c\.h5: the file was replaced"):
        pickle.loads(sent).read_labels([0])


def _read_in_child(cache, pipe):
    pipe.send((cache.read_labels([3]), cache._pid == os.getpid()))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_forked_worker_opens_its_own_handle(tmp_path):
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    with Cache(make(tmp_path / "c.h5")) as cache:
        expected = cache.read_labels([3])
        worker = context.Process(target=_read_in_child, args=(cache, sender))
        worker.start()
        worker.join(60)
        assert worker.exitcode == 0
        labels, own = receiver.recv()
        np.testing.assert_array_equal(labels, expected)
        assert own
        np.testing.assert_array_equal(cache.read_labels([3]), expected)
