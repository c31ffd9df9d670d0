"""How many cores a process may use; apart from `device`, so that torch is not needed to know it."""

import os


def usable_cores() -> int:
    """Cores this process may run on, which may be fewer than the machine has (affinity, containers, job schedulers)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
