"""Processes that tests start, and what is left of them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Until the condition holds; what it gave."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)
    return found


def alive(process: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descendants(process: int) -> list[int]:
    """All processes that a process has started, and those that they have."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
        except OSError:
            continue  # it ended meanwhile
    found = parents.get(process, [])
    return found + [deeper for child in found for deeper in _below(child, parents)]


def _below(process: int, parents: dict[int, list[int]]) -> list[int]:
    own = parents.get(process, [])
    return own + [deeper for child in own for deeper in _below(child, parents)]


def program(code: str, **options: Any) -> "subprocess.Popen[str]":
    """A Python program that may import what tests do."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, **(settings | options))
