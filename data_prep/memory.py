"""How much memory there is for what is about to be made; asked before it is taken."""

from pathlib import Path

from metasynth.errors import DataError

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
_CGROUP = Path("/sys/fs/cgroup")


def free_bytes() -> int | None:
    """Bytes that can be taken without swapping, within the limit of a container; None where the system does not say."""
    found = [_from_meminfo(), _within_container("memory.max", "memory.current")]
    found.append(_within_container("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
    return min((n for n in found if n is not None), default=None)


def require_memory(needed: int, what: str) -> None:
    """Refuse what takes more memory than there is.

    Args:
        needed: Bytes.
        what: The file and what is to be made of it, for the message.

    Raises:
        DataError: There is less.

    """
    free = free_bytes()
    if free is not None and needed > free:
        raise DataError(f"{what} takes {size_text(needed)} of memory, and {size_text(free)} are free")


def size_text(n: int) -> str:
    """3435973836 -> "3.4 GB"."""
    power = max(0, min(len(_UNITS) - 1, (len(str(n)) - 1) // 3))
    return f"{n / 1000**power:.3g} {_UNITS[power]}"


def _from_meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None


def _within_container(limit: str, used: str) -> int | None:
    try:
        most, now = (int((_CGROUP / name).read_text(encoding="ascii")) for name in (limit, used))
    except (OSError, ValueError):  # no such group, or "max"
        return None
    return max(0, most - now)
