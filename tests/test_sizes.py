"""What a request would take against what a machine has: its memory, its control groups, its disk, its cores."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from metasynth import sizes
from metasynth.errors import UsageError

GIB = 2**30


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (2**40, "1.0 TiB"),
        (1023 * 2**60, "1023.0 EiB"),
        (2**70, "more than 1024 EiB"),
        (10**400, "more than 1024 EiB"),
    ],
)
def test_sizes_in_words(size, text):
    assert sizes.readable(size) == text


def test_what_memory_does_not_hold_is_refused_with_both_sizes():
    sizes.require_memory(2 * GIB, "it", "a", most=2 * GIB)
    with pytest.raises(UsageError) as error:
        sizes.require_memory(3 * GIB, "drawing 3 images", "batch_size", most=2 * GIB)
    assert str(error.value) == "batch_size: drawing 3 images takes at least 3.0 GiB of memory; 2.0 GiB can be had"
    with pytest.raises(UsageError, match=r"a: it takes more than 1024 EiB of memory; [\d.]+ GiB can be had$"):
        sizes.require_memory(2**71, "it", "a")


def test_what_the_disk_does_not_hold_is_refused(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    sizes.require_disk(1, "it", "--out", tmp_path / "not" / "there")
    with pytest.raises(
        UsageError, match=r"--out: the cache takes at least [\d.]+ \w+ on the disk; [\d.]+ \w+ are free$"
    ):
        sizes.require_disk(10 * free, "the cache", "--out", tmp_path / "not" / "there")


def test_far_more_processes_than_cores_are_refused(monkeypatch):
    monkeypatch.setattr(sizes, "cores", lambda: 3)
    sizes.require_processes(96, "--jobs")
    with pytest.raises(UsageError) as error:
        sizes.require_processes(97, "--threads", "threads")
    assert str(error.value) == "--threads: expected at most 96 threads (32 for each of 3 cores), got 97"


def files(root: Path, **contents: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (root / name.replace("__", ".")).write_text(text)
    return root


def test_a_control_group_of_version_2_and_those_above_limit_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(sizes, "_CGROUPS", tmp_path)
    stat = f"anon 5\ninactive_file {GIB}\nactive_file {GIB}\n"
    job = files(tmp_path / "user" / "job", memory__max="max\n", memory__current="5\n", memory__stat=stat)
    used = str(7 * GIB)
    files(tmp_path / "user", memory__max=str(8 * GIB), memory__current=used, memory__stat=stat)
    assert sizes._left_in(job, "memory.max", "memory.current") is None
    assert sizes._left_in(tmp_path / "user", "memory.max", "memory.current") == 3 * GIB
    monkeypatch.setattr(sizes, "_own_groups", lambda: [("", "/user/job")])
    monkeypatch.setattr(sizes, "_of_machine", lambda: 16 * GIB)
    assert sizes.available_memory() == 3 * GIB


def test_a_control_group_of_version_1_limits_it_too(tmp_path, monkeypatch):
    monkeypatch.setattr(sizes, "_CGROUPS", tmp_path)
    limit, used = {"memory__limit_in_bytes": str(4 * GIB)}, {"memory__usage_in_bytes": str(GIB)}
    files(tmp_path / "memory" / "job", **limit, **used, memory__stat="cache 0\n")
    monkeypatch.setattr(sizes, "_own_groups", lambda: [("memory", "/job"), ("cpu", "/job")])
    monkeypatch.setattr(sizes, "_of_machine", lambda: 16 * GIB)
    assert sizes.available_memory() == 3 * GIB


def test_this_machine_has_memory_and_cores():
    assert sizes.available_memory() > 2**24
    assert sizes.cores() >= 1


@pytest.mark.parametrize(
    ("allocate", "told"),
    [
        (lambda: np.empty((2**20, 2**30)), "out of memory: 8.00 PiB more were asked for"),
        (lambda: torch.empty(2**50), "out of memory: 4.0 PiB more were asked for"),
        (lambda: bytearray(2**60), "out of memory"),
    ],
)
def test_allocators_that_fail_are_understood(allocate, told):
    with pytest.raises((MemoryError, RuntimeError)) as error:
        allocate()
    assert sizes.memory_failure(error.value) == told


def test_other_errors_are_no_lack_of_memory():
    assert sizes.memory_failure(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert sizes.memory_failure(ValueError("can't allocate memory")) is None


def test_convolutions_are_counted():
    """2 x 3 weights of 3 x 3; features of 4 images, 2 of 8 x 8 and 3 of 4 x 4 voxels each."""
    assert sizes.convolutions((2, 3), 2, (8, 8), 4) == 4 * (2 * 3 * 9 + 4 * (2 * 64 + 3 * 16))
    assert sizes.convolutions((), 2, (8, 8), 4) == 0
