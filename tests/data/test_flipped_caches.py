"""No bit of a cache can change unnoticed, and none ends or hangs the process that reads it."""

import json
import random
import subprocess
import sys
from collections import Counter

import pytest
from support.caches import FINE_INFO, INFO, make
from support.processes import TESTS

from metasynth.data import writer

SECONDS = 600  # of one program, which takes ten on a machine of its own
NOTICED = {"refused", "same"}


def outcomes(folder, cache, bits):
    """(bit, what became of a training's reading, of an inspection's) of every bit, read by a program of its own."""
    asked, log = folder / "bits.json", folder / "log"
    asked.write_text(json.dumps(bits))
    program = [sys.executable, str(TESTS / "support" / "flipping.py"), str(cache), str(log), str(asked)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=SECONDS, check=False)
    lines = log.read_text().splitlines() if log.exists() else []
    assert done.returncode == 0, f"ended by {done.returncode} at {lines[-1:]}: {done.stderr[-2000:]}"
    assert done.stderr == ""
    found = [json.loads(line) for line in lines]
    assert [bit for bit, *_ in found] == bits
    return found


def check_noticed(found):
    assert [each for each in found if not set(each[1:]) <= NOTICED] == []
    trained = Counter(outcome for _, outcome, _ in found)
    assert trained["refused"] > 0.8 * len(found)
    assert trained["same"] > 0  # between the records of a file there is room that holds nothing


@pytest.mark.parametrize("info", [INFO, FINE_INFO], ids=["classes", "generation labels"])
@pytest.mark.parametrize("images", [False, True])
def test_no_bit_of_a_cache_can_change_unnoticed(tmp_path, images, info):
    cache = make(tmp_path / "c.h5", n_subjects=2, per_subject=1, images=images, info=info)
    check_noticed(outcomes(tmp_path, cache, list(range(0, 8 * cache.stat().st_size, 97))))


def test_no_bit_of_a_cache_with_digests_of_its_items_can_change_unnoticed(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "CHECKED_WHOLE_BYTES", 0)
    cache = make(tmp_path / "c.h5", n_subjects=2, per_subject=1)
    check_noticed(outcomes(tmp_path, cache, list(range(0, 8 * cache.stat().st_size, 97))))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_six_thousand_bits_of_a_cache(tmp_path, part):
    cache = make(tmp_path / "c.h5")
    every = range(8 * cache.stat().st_size)
    check_noticed(outcomes(tmp_path, cache, random.Random(0).sample(every, 6000)[part::4]))
