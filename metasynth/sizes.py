"""What a request would take in memory, on the disk and in processes, against what the machine has.

An estimate counts no more than what is certainly needed, so that nothing is refused which the machine could do; what it
lets through and memory does not hold is told by `memory_failure`.
"""

import itertools
import math
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from metasynth.errors import UsageError

PROCESSES_PER_CORE = 32
_CGROUPS = Path("/sys/fs/cgroup")
_MEMORY_FILES = {  # by the controllers that /proc/self/cgroup names; none are named in version 2
    "": ("memory.max", "memory.current"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}
_PREFIXES = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_TOLD_SIZES = (
    re.compile(r"you tried to allocate (?P<bytes>\d+) bytes"),  # torch on a CPU
    re.compile(r"[Tt]ried to allocate (?P<size>[\d.]+ [KMGTPE]?i?B)"),  # torch on a GPU
    re.compile(r"Unable to allocate (?P<size>[\d.]+ [KMGTPE]?i?B)"),  # NumPy
)


def readable(size: float) -> str:
    """A number of bytes in words: '1.5 GiB'."""
    if size >= 1024 ** len(_PREFIXES):
        return f"more than 1024 {_PREFIXES[-1]}B"
    power = 0 if size < 1024 else int(math.log2(size) // 10)
    return f"{size / 1024**power:.{0 if power == 0 else 1}f} {_PREFIXES[power]}B"


def _at_least(size: int) -> str:
    text = readable(size)
    return text if text.startswith("more") else f"at least {text}"


def require_memory(size: int, what: str, setting: str, most: int | None = None) -> None:
    """Refuse what cannot be held in memory.

    Parameters
    ----------
    size : int
        Bytes that are certainly needed.
    what : str
        What needs them, the subject of a sentence.
    setting : str
        The parameters or the file that decide about it.
    most : int or None
        Bytes there are; by default those of the machine that can be had now.

    Raises
    ------
    UsageError
        There is less memory.
    """
    most = available_memory() if most is None else most
    if size > most:
        raise UsageError(f"{setting}: {what} takes {_at_least(size)} of memory; {readable(most)} can be had")


def require_disk(size: int, what: str, setting: str, folder: Path) -> None:
    """UsageError if the disk of ``folder`` has no room for so many bytes; as `require_memory`."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    disk = shutil.disk_usage(folder)
    if disk.total and size > disk.free:  # a file system without a disk cannot be asked
        raise UsageError(f"{setting}: {what} takes {_at_least(size)} on the disk; {readable(disk.free)} are free")


def require_processes(count: int, setting: str, what: str = "processes") -> None:
    """UsageError if ``count`` threads or processes are far more than the cores could ever serve."""
    most = PROCESSES_PER_CORE * cores()
    if count > most:
        raise UsageError(
            f"{setting}: expected at most {most} {what} ({PROCESSES_PER_CORE} for each of {cores()} cores), got {count}"
        )


def cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory() -> int:
    """Bytes that this process could still be given: of the machine, swap included, and of its control groups."""
    return min([_of_machine(), *_of_groups()])


def memory_failure(error: BaseException) -> str | None:
    """'out of memory ...' in words, if that is what an error of Python, NumPy or torch means; else None."""
    text = str(error)
    is_torch = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text
    if not (isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and is_torch)):
        return None
    found = next((match for pattern in _TOLD_SIZES if (match := pattern.search(text))), None)
    if found is None:
        return "out of memory"
    told = found.groupdict()
    return f"out of memory: {told.get('size') or readable(int(told['bytes']))} more were asked for"


def convolutions(widths: Sequence[int], ndim: int, shape: Sequence[int], batch: int) -> int:
    """Bytes that 3-wide convolutions from width to width certainly take: float32 weights, and the features of a batch.

    The resolution is halved from one width to the next; ``shape`` is that of the images.
    """
    weights = sum(before * after for before, after in itertools.pairwise(widths)) * 3**ndim
    voxels = math.prod(shape)
    features = sum(width * max(1, voxels // 2 ** (ndim * level)) for level, width in enumerate(widths))
    return 4 * (weights + batch * features)


def _of_machine() -> int:
    """What the kernel says can be had without swapping, and the swap that is free."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        return 1024 * (kib["MemAvailable"] + kib.get("SwapFree", 0))
    except (OSError, ValueError, KeyError, IndexError):  # another system
        pages: int = os.sysconf("SC_PHYS_PAGES")
        return pages * int(os.sysconf("SC_PAGE_SIZE"))


def _of_groups() -> list[int]:
    """What each control group that the process is in leaves it; pages of files count as free."""
    found = []
    for controllers, own in _own_groups():
        if controllers in _MEMORY_FILES:
            root = _CGROUPS / controllers
            place = root / own.lstrip("/")
            groups = [group for group in (place, *place.parents) if group.is_relative_to(root)]
            found += [left for group in groups if (left := _left_in(group, *_MEMORY_FILES[controllers])) is not None]
    return found


def _own_groups() -> list[tuple[str, str]]:
    """(controllers, path) of each."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [(controllers, path) for _, controllers, path in (line.split(":", 2) for line in lines)]


def _left_in(group: Path, limit: str, usage: str) -> int | None:
    """Bytes that a group's limit leaves; None where there is no such group, or no limit."""
    try:
        most = int((group / limit).read_text(encoding="ascii"))
        used = int((group / usage).read_text(encoding="ascii"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):  # 'max'
        return None
    return max(0, most - used + int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0)))
