"""Processes that are killed around a rename, when every file of a run comes into being."""

import itertools
import os
import shutil
from pathlib import Path

import pytest
from support.changed_runs import (
    content,
    invoke,
    resume,
)
from support.tiny_noise import arguments, results


class Killed(BaseException):
    """Stands for SIGKILL: nothing is cleaned up after it."""


def killed_at(run, cache, rename, when):
    """Begin the run, or go on, until just before or after so many renames; whether there were as many."""
    replace, unlink, count = os.replace, Path.unlink, itertools.count()

    def replaced(source, target):
        killed = next(count) == rename
        if killed and when == "before":
            raise Killed
        replace(source, target)
        if killed:
            raise Killed

    def unlinked(path, missing_ok=False):
        if not path.name.endswith(".tmp"):
            unlink(path, missing_ok)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replaced)
        patch.setattr(Path, "unlink", unlinked)
        try:
            done = invoke([*arguments(run, cache, seed=3), *(["--resume"] if run.exists() else [])])
        except Killed:
            return True
    assert done.exit_code == 0, done.output
    return False


def is_whole(run, whole):
    assert resume(run).exit_code == 0
    assert results(run) == results(whole)
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert content(run).keys() == content(whole).keys()  # nothing is left over
    shutil.rmtree(run)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_that_is_killed_again_and_again_around_a_rename(tmp_path, cache, whole, when):
    for rename in (1, 2, 3, 6, 4, 9):  # counted from the start of each session
        assert killed_at(tmp_path / "run", cache, rename, when)
    is_whole(tmp_path / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_that_is_killed_around_any_rename(tmp_path, cache, whole, when):
    renames = 0
    while killed_at(tmp_path / "run", cache, renames, when):
        if when == "after" or renames > 0:  # before the first, nothing says which run it is
            is_whole(tmp_path / "run", whole)
        else:
            shutil.rmtree(tmp_path / "run")
        renames += 1
    assert renames > 25
