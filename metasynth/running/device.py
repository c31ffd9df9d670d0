"""The device and threads of a process, and kernels that give the same numbers twice."""

import ctypes
import os

import torch

from metasynth.errors import UsageError
from metasynth.sizes import cores, require_processes

VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


def configure_torch(device: str, threads: int | None) -> tuple[str, int]:
    """Set threads, denormals and deterministic kernels for the process; return the device and threads in use.

    Without ``threads`` torch gets half of the cores that the process may use.

    Raises
    ------
    UsageError
        There is no such device, or ``threads`` is below 1 or far above the cores.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    _require(device)
    if threads is not None and threads < 1:
        raise UsageError(f"--threads: expected at least 1, got {threads}")
    if threads is not None:
        require_processes(threads, "--threads", "threads")  # torch crashes where so many cannot be made
    # Half of the cores: the rest are left to the processes that make the data. Threads that wait for each other on
    # a core that something else holds cost more than they give (7 s for a step of .2 s was seen on two cores).
    torch.set_num_threads(threads or max(1, cores() // 2))
    keep_freed_memory()
    torch.set_flush_denormal(True)  # the tails of Gaussian kernels hold denormals, which slow CPUs tenfold
    if device.startswith("cuda"):
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    return device, torch.get_num_threads()


def _require(device: str) -> None:
    """Refuse a device that is not there."""
    kind, _, number = device.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {device}: torch sees no CUDA device here; choose cpu or auto")
    if number and int(number) >= (count := torch.cuda.device_count()):
        there = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise UsageError(f"--device {device}: there is no such GPU; expected {there}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError(f"--device {device}: torch sees no GPU of Apple's here; choose cpu or auto")


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, each as ``CUDA_VISIBLE_DEVICES`` of a process that is to have it alone.

    That variable may hold numbers, or the names of GPUs or of parts of them; CUDA takes what comes before the first
    that it does not know.
    """
    count = torch.cuda.device_count()
    named = os.environ.get(VISIBLE_GPUS)
    return tuple(map(str, range(count))) if named is None else tuple(map(str.strip, named.split(",")))[:count]


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed for the next step, instead of giving it back and asking for it again.

    The activations of a training step are some large blocks that come and go; every page of memory that the system
    gives anew it clears first. On two cores this takes a fifth off the time of a hypergradient
    (`benchmarks/hypergradients.py`). It holds for the process; kept blocks that no longer fit raise its peak somewhat.

    Returns
    -------
    bool
        Whether it could be done: only with glibc, and not where the environment sets ``MALLOC_...`` or
        ``GLIBC_TUNABLES``.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # From <malloc.h>. Blocks above a size would else be mapped, and unmapped when freed, one by one.
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    return all((mallopt(trim_threshold, 2**31 - 1), mallopt(top_pad, 2**26), mallopt(mmap_max, 0)))
