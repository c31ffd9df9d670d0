"""What a process holds of memory, and the most it held."""

import gc
import resource
import sys
from pathlib import Path

MIB = 2**20
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def held_mib() -> float:
    """Resident memory now, with what Python can free freed; where the system does not say, the most there was."""
    gc.collect()
    return _of_linux("VmRSS") if _STATUS.exists() else _most_ever()


def peak_mib() -> float:
    """The most since `forget_peak`; where the system cannot forget, since the process began."""
    return _of_linux("VmHWM") if _STATUS.exists() else _most_ever()


def forget_peak() -> None:
    """Let the peak be what is held now, where the system can."""
    if _RESET.exists():
        _RESET.write_text("5", encoding="ascii")


def _of_linux(name: str) -> float:
    (line,) = [line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024 / MIB


def _most_ever() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB
