"""What is set for a process that trains."""

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from metasynth.training.device import keep_freed_memory
torch.set_num_threads(1)
kept = keep_freed_memory() if sys.argv[1] == "keep" else False
blocks = lambda: [torch.ones(2**20) for _ in range(40)]  # 40 times 4 MiB, all let go
for _ in range(3):
    blocks()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    blocks()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def measured(how: str, **environment: str) -> tuple[bool, int]:
    """Whether it was done, and the page faults of five steps that use 160 MiB each."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    command = [sys.executable, "-c", FAULTS, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=clean | environment)
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


def test_what_is_freed_is_used_again() -> None:
    kept, faults = measured("keep")
    if not kept:
        pytest.skip("the C library has no mallopt")
    _, without = measured("leave")
    assert without > 500
    assert faults < without / 20


def test_settings_of_the_environment_are_respected() -> None:
    assert not measured("keep", MALLOC_ARENA_MAX="2")[0]
