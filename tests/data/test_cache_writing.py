"""Writing refuses what is no cache, and a write that fails leaves everything as it was."""

import dataclasses
import errno
import os
import sys

import numpy as np
import pytest
from support.caches import INFO, arrays, make

from metasynth.data.cache import write_cache
from metasynth.errors import DataError

WRITES = {
    "label": (lambda a: a["labels"].__setitem__((2, 0, 0), 3), "label 3 in slice 2 is beyond the 3 classes"),
    "nan": (lambda a: a["images"].__setitem__((1, 0, 0), np.nan), "images hold NaN"),
    "float labels": (lambda a: a.update(labels=a["labels"] * 1.0), "labels must be integers, got float64"),
    "shape": (lambda a: a.update(images=a["images"][:, :5]), "images and labels must have one shape"),
    "twice": (lambda a: a.update(subjects=["s"] * 5), "subject 's' is listed twice"),
    "spacing": (
        lambda a: a.update(info=dataclasses.replace(INFO, spacing_mm=(1.0,) * 3)),
        "spacing_mm must be 2",
    ),
}


@pytest.mark.parametrize("case", WRITES)
def test_arrays_that_are_no_cache_are_not_written(tmp_path, case):
    spoil, message = WRITES[case]
    wrong = arrays()
    spoil(wrong)
    with pytest.raises(DataError) as caught:
        write_cache(tmp_path / "c.h5", **wrong)
    assert message in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_leaves_everything_as_it_was(tmp_path, monkeypatch, step, number):
    path = make(tmp_path / "c.h5")
    before = path.read_bytes()

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(DataError) as caught:
        make(path, seed=1)
    monkeypatch.undo()
    assert str(caught.value) == f"{path}: cannot be written: {os.strerror(number)}"
    assert os.listdir(tmp_path) == ["c.h5"]
    assert path.read_bytes() == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_FSIZE")
def test_a_disk_that_takes_no_more_leaves_everything_as_it_was(tmp_path):
    import resource
    import signal

    path = make(tmp_path / "c.h5")
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(DataError, match=r"c\.h5: cannot be written: File too large"):
            make(path, seed=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == ["c.h5"]
    assert path.read_bytes() == before


def test_an_interrupted_write_leaves_no_temporary_file(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "c.h5")
    assert os.listdir(tmp_path) == []


def test_no_folder_to_write_to(tmp_path):
    with pytest.raises(DataError, match=r"c\.h5: cannot be written: No such file or directory"):
        make(tmp_path / "absent" / "c.h5")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"c\.h5: cannot be written: Not a directory"):
        make(tmp_path / "file" / "c.h5")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    with pytest.raises(DataError, match=r"c\.h5: cannot be written: Permission denied"):
        make(folder / "c.h5")
