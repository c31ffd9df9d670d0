"""Caches that carry digests of their items: opened without reading an item, checked when one is read."""

import fcntl
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from metasynth.data_prep.montage import describe, write_montage
from support.caches import INFO, arrays, make

from metasynth.data import SliceDataset, validation, writer
from metasynth.data.cache import Cache, verify_digest, write_cache
from metasynth.errors import DataError

CHANGED = "its content was changed after it was written ({} the digest that it carries); make it again"


@pytest.fixture(autouse=True)
def every_cache_is_large(monkeypatch):
    monkeypatch.setattr(writer, "CHECKED_WHOLE_BYTES", 0)


def edit(path: Path, name: str, at, change) -> Path:
    with h5py.File(path, "r+") as file:
        file[name][at] = change(file[name][at])
    return path


def error_of(call, *given) -> str:
    with pytest.raises(DataError) as caught:
        call(*given)
    return str(caught.value)


def test_a_large_cache_is_a_small_one_with_digests_beside(tmp_path, monkeypatch):
    path = make(tmp_path / "large.h5")
    monkeypatch.undo()
    assert writer.CHECKED_WHOLE_BYTES == 512 * 2**20
    with h5py.File(path) as large, h5py.File(make(tmp_path / "small.h5")) as small:
        assert set(large) - set(small) == {"labels_sha256", "images_sha256"}
        assert set(large.attrs) - set(small.attrs) == {"opening_sha256"}
        assert large.attrs["digest"] == small.attrs["digest"]
        assert large.attrs["version"] == small.attrs["version"] == 1
        assert large["labels_sha256"].shape == large["images_sha256"].shape == (15, 32)
        for name in small:
            np.testing.assert_array_equal(large[name][()], small[name][()])
    assert verify_digest(path)


def test_a_large_cache_of_labels_alone_has_digests_of_these(tmp_path):
    with h5py.File(make(tmp_path / "c.h5", images=False)) as file:
        assert set(file) == {"labels", "labels_sha256", "subject", "subjects", "slice"}


def read_by_opening(path: Path) -> int:
    """Bytes that this process reads while it opens a cache."""

    def so_far() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    own = so_far()
    own = so_far() - own  # what asking takes
    before = so_far()
    Cache(path).close()
    return so_far() - before - own


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs Linux")
def test_opening_reads_no_label_and_no_image(tmp_path):
    few, many = (make(tmp_path / f"{n}.h5", n_subjects=2, per_subject=n, shape=(64, 64)) for n in (100, 400))
    read_by_opening(few)  # once for what is imported and kept
    each = (read_by_opening(many) - read_by_opening(few)) / 600
    assert many.stat().st_size > 800 * 10_000
    assert each < 200  # two digests, two numbers, and where the two chunks lie


@pytest.mark.parametrize("name", ["labels", "images"])
def test_a_changed_item_is_refused_when_it_is_read(tmp_path, name):
    path = edit(make(tmp_path / "c.h5"), name, (3, 2, 2), lambda value: 1 - value if name == "images" else 2 - value)
    with Cache(path) as cache:
        assert cache.read_labels([2, 4]).shape == (2, 6, 7)
        assert cache.read_images([2, 4]).shape == (2, 6, 7)
        line = f"{path}: {CHANGED.format(f'{name} of slice 3 no longer have')}"
        assert error_of(cache.read_labels if name == "labels" else cache.read_images, [2, 3]) == line
        assert error_of(cache.read_stored, name, [3]) == line
        assert error_of(SliceDataset, cache, ["s0", "s1"]) == line
        assert len(SliceDataset(cache, ["s0", "s2"])) == 6
    assert not verify_digest(path)


def test_a_copy_in_a_worker_checks_too(tmp_path):
    path = make(tmp_path / "c.h5")
    with Cache(path) as cache:
        sent = pickle.dumps(cache)
    edit(path, "labels", (3, 2, 2), lambda value: 2 - value)
    assert "labels of slice 3 no longer have" in error_of(pickle.loads(sent).read_labels, [3])


OPENINGS = {
    "subject": lambda file: file["subject"].__setitem__(4, 2),
    "slice": lambda file: file["slice"].__setitem__(4, 7),
    "item": lambda file: file["images_sha256"].__setitem__((3, 0), file["images_sha256"][3, 0] ^ 1),
    "digest": lambda file: file.attrs.__setitem__("digest", "0" * 64),
    "opening": lambda file: file.attrs.__setitem__("opening_sha256", "0" * 64),
    "no opening": lambda file: file.attrs.__delitem__("opening_sha256"),
    "description": lambda file: file.attrs.__setitem__("spacing_mm", [2.0, 2.0]),
    "name": lambda file: file["subjects"].__setitem__(1, b"t1"),
}


@pytest.mark.parametrize("case", OPENINGS)
@pytest.mark.parametrize("check_values", [True, False])
def test_a_change_of_all_else_is_refused_at_opening(tmp_path, case, check_values):
    path = make(tmp_path / "c.h5")
    with h5py.File(path, "r+") as file:
        OPENINGS[case](file)
    with pytest.raises(DataError) as caught:
        Cache(path, check_values=check_values)
    assert str(caught.value) == f"{path}: {CHANGED.format('it no longer has')}"
    assert not verify_digest(path)


@pytest.mark.parametrize(
    ("put", "message"),
    [
        (None, "dataset 'images_sha256' is missing"),
        (np.zeros((15, 31), np.uint8), "images_sha256 must be uint8 of shape (15, 32), got uint8 of shape (15, 31)"),
        (np.zeros((14, 32), np.uint8), "images_sha256 must be uint8 of shape (15, 32), got uint8 of shape (14, 32)"),
        (np.zeros((15, 32), np.int16), "images_sha256 must be uint8 of shape (15, 32), got int16 of shape (15, 32)"),
    ],
)
def test_digests_that_are_none(tmp_path, put, message):
    path = make(tmp_path / "c.h5")
    with h5py.File(path, "r+") as file:
        del file["images_sha256"]
        if put is not None:
            file["images_sha256"] = put
    assert error_of(Cache, path) == error_of(verify_digest, path) == f"{path}: {message}"


def test_digests_in_other_files_are_not_read(tmp_path):
    path, other = make(tmp_path / "c.h5"), make(tmp_path / "other.h5")
    with h5py.File(path, "r+") as file:
        del file["labels_sha256"]
        file["labels_sha256"] = h5py.ExternalLink(other, "labels_sha256")
    assert error_of(Cache, path) == f"{path}: dataset 'labels_sha256' is a link; expected its values in this file"


def test_a_large_cache_without_such_digests_is_checked_whole_at_opening(tmp_path):
    path = make(tmp_path / "c.h5")
    with h5py.File(path, "r+") as file:
        del file["labels_sha256"], file["images_sha256"], file.attrs["opening_sha256"]
    Cache(path).close()
    edit(path, "labels", (3, 2, 2), lambda value: 2 - value)
    assert error_of(Cache, path) == f"{path}: {CHANGED.format('it no longer has')}"


def test_what_was_changed_can_be_looked_at(tmp_path):
    path = edit(make(tmp_path / "c.h5"), "labels", (3, 2, 2), lambda value: 2 - value)
    assert "WRONG" in dict(describe(path))["digest"]
    assert write_montage(path, tmp_path / "m.png").stat().st_size > 0


def test_only_what_is_drawn_is_read(tmp_path, monkeypatch):
    path, read = make(tmp_path / "c.h5", n_subjects=2, per_subject=9), []
    monkeypatch.setattr(
        Cache, "_read", lambda self, name, items, _read=Cache._read: read.append([*items]) or _read(self, name, items)
    )
    monkeypatch.setattr(validation, "blocks", None)
    write_montage(path, tmp_path / "m.png", columns=2, rows=1)
    assert sorted(map(tuple, read)) == [(0,), (0,), (8,), (8,)]


def test_a_value_that_must_not_be_is_refused_when_it_is_read(tmp_path):
    path = edit(make(tmp_path / "c.h5"), "images", (3, 2, 2), lambda value: np.float32(np.nan))
    with Cache(path, check_digest=False, check_values=False) as cache:
        line = error_of(cache.read_images, [2, 3])
    assert line == f"{path}: images hold NaN or infinite values, first in slice 3"


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, 2.0**-20])
def test_values_from_0_to_1_pass(kind, value):
    validation.check_values("c.h5", "images", 0, np.full((1, 2, 2), value, kind), INFO.stored)


@pytest.mark.parametrize("kind", [np.float16, np.float32, ">f4"])
@pytest.mark.parametrize("value", ["nextafter", -1e-7, np.inf, -np.inf, np.nan, -np.nan])
def test_other_values_do_not(kind, value):
    block = np.zeros((2, 2, 2), np.dtype(kind).newbyteorder("="))
    block[1, 1, 0] = np.nextafter(block.dtype.type(1), block.dtype.type(2)) if value == "nextafter" else value
    line = error_of(validation.check_values, "c.h5", "images", 5, block.astype(kind), INFO.stored)
    assert line.startswith("c.h5: image")
    assert "slice 6" in line


class Asked:
    """An array that notes how many items it is asked for at a time."""

    def __init__(self, array: np.ndarray) -> None:
        self._array, self.shape, self.dtype, self.counts = array, array.shape, array.dtype, []

    def __getitem__(self, key):
        block = self._array[key]
        self.counts.append(len(block))
        return block


def test_what_is_written_is_read_once_and_in_blocks(tmp_path, monkeypatch):
    given = arrays()
    expected = write_cache(tmp_path / "a.h5", **given)
    monkeypatch.setattr(validation, "BLOCK_BYTES", 4 * 6 * 7)
    labels, images = Asked(given["labels"].astype(np.uint8)), Asked(given["images"])
    assert write_cache(tmp_path / "b.h5", **given | {"labels": labels, "images": images}) == expected
    assert labels.counts == [4, 4, 4, 3]
    assert images.counts == [1] * 15
    with h5py.File(tmp_path / "a.h5") as file:
        of_file = {"labels": file["labels"], "images": file["images"]}
        assert write_cache(tmp_path / "c.h5", **given | of_file) == expected
    assert (tmp_path / "c.h5").read_bytes() == (tmp_path / "b.h5").read_bytes() == (tmp_path / "a.h5").read_bytes()
    wrong = given["labels"].copy()
    wrong[6, 0, 0] = 256 + 1  # which would be 1 as it is stored
    line = error_of(lambda: write_cache(tmp_path / "d.h5", **given | {"labels": Asked(wrong)}))
    assert line == f"{tmp_path / 'd.h5'}: label 257 in slice 6 is beyond the 3 classes of class_names (0 to 2)"
    assert not (tmp_path / "d.h5").exists()


def test_lists_and_tensors_are_written_as_arrays_are(tmp_path):
    given = arrays()
    expected = write_cache(tmp_path / "a.h5", **given)
    listed = given | {"labels": given["labels"].tolist(), "images": torch.from_numpy(given["images"])}
    assert write_cache(tmp_path / "b.h5", **listed) == expected


READS = """
import sys
from pathlib import Path
import numpy as np
from metasynth.data.cache import Cache
path = Path(sys.argv[1])
with Cache(path) as cache:
    print("open", flush=True)
    sys.stdin.readline()
    flags = [line.split()[1] for fd in Path("/proc/self/fd").iterdir() if fd.exists() and fd.resolve() == path
             for line in Path("/proc/self/fdinfo", fd.name).read_text().splitlines() if line.startswith("flags")]
    locks = Path("/proc/locks").read_text()
    held = f":{path.stat().st_ino} " in locks
    print(len(cache.read_images(np.arange(cache.n))), {int(flag, 8) & 3 for flag in flags}, held)
"""


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="needs Linux")
@pytest.mark.parametrize(("locking", "locked"), [("", False), ("FALSE", False), ("TRUE", True)])
def test_several_processes_read_a_file_that_none_can_write(tmp_path, locking, locked):
    folder = tmp_path / "shared"
    folder.mkdir()
    path = make(folder / "c.h5").resolve()
    before = path.stat()
    path.chmod(stat.S_IRUSR)
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    environment = {**os.environ, **({"HDF5_USE_FILE_LOCKING": locking} if locking else {})}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    readers = [subprocess.Popen([sys.executable, "-c", READS, str(path)], **pipes) for _ in range(2)]
    try:
        assert [reader.stdout.readline() for reader in readers] == ["open\n"] * 2  # both at once
        assert os.listdir(folder) == ["c.h5"]
        said = [reader.communicate("\n", timeout=60)[0] for reader in readers]
        assert said == [f"15 {{{os.O_RDONLY}}} {locked}\n"] * 2
    finally:
        folder.chmod(stat.S_IRWXU)
        for reader in readers:
            reader.kill()
            reader.wait()
    assert os.listdir(folder) == ["c.h5"]
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (before.st_mtime_ns, before.st_size)


def test_a_lock_that_the_environment_asks_for_and_cannot_have(tmp_path):
    path = make(tmp_path / "c.h5")
    code = "import sys; from metasynth.data.cache import Cache; Cache(sys.argv[1])"
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        environment = {**os.environ, "HDF5_USE_FILE_LOCKING": "TRUE"}
        command = [sys.executable, "-c", code, str(path)]
        failed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        Cache(path).close()  # without the variable
    assert failed.stderr.splitlines()[-1].removeprefix("metasynth.errors.DataError: ") == (
        f"{path}: cannot be locked, as HDF5_USE_FILE_LOCKING=TRUE asks for: another program holds a lock, or the file "
        "system has none. A cache is only read and needs no lock: unset the variable"
    )
