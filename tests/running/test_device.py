"""What is set for a process that trains."""

import os
import subprocess
import sys

import pytest
import torch

from metasynth.errors import UsageError
from metasynth.running.device import configure_torch, visible_gpus

# The C library's own count of its memory: page faults would show the effect, but not every system counts them.
MEMORY = """
import ctypes, sys, torch
from metasynth.running.device import keep_freed_memory

class Info(ctypes.Structure):  # struct mallinfo2 of <malloc.h>
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
if mallinfo2 is None:
    sys.exit("no mallinfo2")
mallinfo2.restype = Info
torch.set_num_threads(1)
kept = keep_freed_memory() if sys.argv[1] == "keep" else False
before = mallinfo2()
blocks = [torch.ones(2**20) for _ in range(40)]  # 40 times 4 MiB
during = mallinfo2()
del blocks
print(kept, during.hblkhd - before.hblkhd, mallinfo2().fordblks - before.fordblks)
"""
SIZE = 40 * 4 * 2**20


def measured(how: str, **environment: str) -> tuple[bool, int, int]:
    """Whether it was done; bytes mapped while 160 MiB are in use; how many more bytes lie free once they are let go."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    command = [sys.executable, "-c", MEMORY, how]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean | environment)
    if "no mallinfo2" in done.stderr:
        pytest.skip("the C library does not tell what it holds")
    assert done.returncode == 0, done.stderr
    kept, mapped, free = done.stdout.split()
    return kept == "True", int(mapped), int(free)


def test_what_is_freed_is_used_again() -> None:
    kept, mapped, free = measured("keep")
    assert kept
    assert mapped == 0
    assert free > 0.99 * SIZE
    _, mapped, free = measured("leave")
    assert mapped >= SIZE / 4  # what the C library maps anew each time, until it has learned better
    assert free < 0.9 * SIZE


def test_settings_of_the_environment_are_respected() -> None:
    kept, _, free = measured("keep", MALLOC_ARENA_MAX="2")
    assert not kept
    assert free < 0.9 * SIZE


@pytest.mark.parametrize(
    ("named", "count", "gpus"),
    [
        (None, 0, ()),
        (None, 3, ("0", "1", "2")),
        ("2,5", 2, ("2", "5")),
        ("5, 2,-1,3", 2, ("5", "2")),
        ("GPU-8932f937,MIG-GPU-1/3/0", 2, ("GPU-8932f937", "MIG-GPU-1/3/0")),
        ("", 0, ()),
    ],
)
def test_the_gpus_that_a_process_may_use_by_what_a_child_has_to_be_given(monkeypatch, named, count, gpus) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert visible_gpus() == gpus


@pytest.mark.parametrize(
    ("device", "count", "message"),
    [
        ("cuda:0", 0, "--device cuda:0: torch sees no CUDA device here; choose cpu or auto"),
        ("cuda:1", 1, "--device cuda:1: there is no such GPU; expected cuda:0"),
        ("cuda:9", 4, "--device cuda:9: there is no such GPU; expected cuda:0 to cuda:3"),
        ("mps", 4, "--device mps: torch sees no GPU of Apple's here; choose cpu or auto"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused_by_its_number(monkeypatch, device, count, message) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError) as caught:
        configure_torch(device, 1)
    assert str(caught.value) == message


@pytest.mark.parametrize("device", ["cuda:1", "cuda", "mps", "cpu"])
def test_a_device_that_is_there_is_the_one_in_use(monkeypatch, device) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", torch.backends.cudnn.deterministic)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    threads = torch.get_num_threads()
    assert configure_torch(device, threads) == (device, threads)


def test_kernels_of_a_device_are_those_that_give_the_same_numbers_twice(configured) -> None:
    """On the CPU they do anyway, and what is set for a GPU is left alone."""
    if configured == "cuda":
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.benchmark
    given = torch.Generator().manual_seed(0)
    images, weights = torch.rand(4, 8, 48, 48, generator=given), torch.rand(8, 8, 3, 3, generator=given)

    def once() -> list[torch.Tensor]:
        x, w = (t.to(configured, memory_format=torch.channels_last).requires_grad_() for t in (images, weights))
        made = torch.nn.functional.max_pool2d(torch.conv2d(x, w, padding=1).relu(), 2)
        return [made, *torch.autograd.grad(made.square().mean(), (x, w))]

    for first, again in zip(once(), once(), strict=True):
        assert torch.equal(first, again)
