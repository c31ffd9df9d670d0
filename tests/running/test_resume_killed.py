"""The noise study in processes of its own that are killed and interrupted at any moment, and resumed."""

import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.tiny_noise import arguments, make_cache, results, start

from metasynth.cli.main import main

STEPS = 16
PATIENCE_S = 120

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def asked(run, cache, workers):
    small = {"segmenter.steps": STEPS, "segmenter.batch_size": 1, "outer.batch_size": 1, "pace.workers": workers}
    return arguments(run, cache, **{key: str(value) for key, value in small.items()})


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache") / "c.h5")


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    """The uninterrupted run, whose data no worker made."""
    run = tmp_path_factory.mktemp("whole") / "run"
    done = CliRunner().invoke(main, asked(run, cache, 0), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert lines(run) == 3 * STEPS
    return run


def same(run, whole):
    return (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes() and results(run) == results(
        whole
    )


def lines(run):
    metrics = run / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def wait_for(condition, process=None):
    """Until ``condition()`` holds, while the process runs."""
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.004)


def of_session(leader: int) -> list[int]:
    """Processes of the session that ``leader`` began, zombies aside."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue  # it ended meanwhile
        if int(session) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found


def begin(run, cache, workers):
    """Begin the run, or go on with it if it was begun."""
    begun = run.is_dir() and any(run.iterdir())
    return start([*asked(run, cache, workers), *(["--resume"] if begun else [])])


def finish(run, cache, workers):
    process = begin(run, cache, workers)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors


def kill(process, group=True):
    (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def kill_at(run, cache, count, workers=1):
    """Go on until there are ``count`` records, then kill the run with its workers."""
    process = begin(run, cache, workers)
    wait_for(lambda: lines(run) >= count, process)
    kill(process)


def test_a_run_killed_again_and_again_is_the_uninterrupted_one(tmp_path, cache, whole):
    moments = random.Random(time.time_ns())
    run = tmp_path / "run"
    process = begin(run, cache, workers=1)
    time.sleep(moments.uniform(0.5, 3.0))  # while it imports, reads its cache or begins its folder
    kill(process)
    kill_at(run, cache, moments.randint(1, STEPS))
    kill_at(run, cache, lines(run) + 1)  # and again, a moment later
    kill_at(run, cache, max(lines(run) + 1, moments.randint(STEPS, 3 * STEPS - 6)))
    finish(run, cache, workers=1)
    assert same(run, whole)


@pytest.mark.slow
@pytest.mark.parametrize("repeat", range(2))
def test_a_run_killed_many_times(tmp_path, cache, whole, repeat):
    moments = random.Random(time.time_ns() + repeat)
    run = tmp_path / "run"
    while lines(run) < 3 * STEPS - 8:
        if moments.random() < 0.3:  # at any moment, that of a checkpoint or of the start among them
            process = begin(run, cache, workers=2)
            time.sleep(moments.uniform(0.0, 5.0))
            if process.poll() is None:
                kill(process)
            else:  # it has come to the end, which is to be a good one
                _, errors = process.communicate()
                assert process.returncode == 0, errors
            continue
        kill_at(run, cache, lines(run) + moments.randint(1, 7), workers=2)
    finish(run, cache, workers=2)
    assert same(run, whole)


def test_a_killed_run_leaves_no_workers_and_can_be_resumed_at_once(tmp_path, cache, whole):
    run = tmp_path / "run"
    process = begin(run, cache, workers=2)
    wait_for(lambda: lines(run) >= STEPS + 4, process)
    assert len(of_session(process.pid)) == 3
    kill(process, group=False)  # alone: its workers notice by themselves
    resumed = CliRunner().invoke(main, ["run", "noise", "--resume", "--out", str(run), "--quiet"])
    assert resumed.exit_code == 0, resumed.output
    assert same(run, whole)
    wait_for(lambda: not of_session(process.pid))


def test_an_interrupted_run_says_how_to_go_on_and_does(tmp_path, cache, whole):
    run = tmp_path / "run"
    process = begin(run, cache, workers=2)
    wait_for(lambda: lines(run) >= 2 * STEPS + 4, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the workers too
    output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert output == ""
    told, last = errors.splitlines()[:-1], errors.splitlines()[-1]
    assert [line.partition(":")[0] for line in told] == ["Run folder", "sigma=0.1/learn", "sigma=0.1/naive"]
    assert last == f"Interrupted. Continue with: metasynth run noise --resume --out {run}"
    wait_for(lambda: not of_session(process.pid))
    command = re.search(r"metasynth (.*)", errors).group(1).split()
    resumed = CliRunner().invoke(main, command)
    assert resumed.exit_code == 0, resumed.output
    assert same(run, whole)
