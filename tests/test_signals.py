"""Signals to the processes of commands: how these end, what they leave, and that a run goes on as if nothing was."""

import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from support.processes import alive, descendants, wait_for
from support.tiny_noise import arguments, make_cache, results, start

from metasynth.cli.main import main
from metasynth.training import streams
from metasynth.workers import Worker

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

# As many voxels a batch as in the preset "quick": more than a pipe holds, so that workers wait while they send.
SIZES = {"segmenter.batch_size": "16", "outer.batch_size": "16", "pace.workers": "2", "baselines": "false"}
NAMES = ("numpy", "click", "struct", "signal", "random", "pickle")  # what every program here imports


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("cache") / "c.h5", shape=(96, 96))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("small") / "c.h5")


def asked(run, cache, **more):
    return arguments(run, cache, **(SIZES | {"segmenter.steps": "30"} | more))


def finished(run, cache, **more):
    done = CliRunner().invoke(main, asked(run, cache, **more), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return run


def begin(words, run, records=2):
    """Start a command, and wait until its run has so many records more."""
    before = records + lines(run)
    process = start(words)
    wait_for(lambda: lines(run) >= before or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    return process, descendants(process.pid)


def lines(run):
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def ended(process, workers):
    """The status and the lines of a process that is to end soon, with its workers."""
    _, errors = process.communicate(timeout=20)
    wait_for(lambda: not any(map(alive, workers)), 5)
    assert "Traceback" not in errors
    return process.returncode, errors.splitlines()


def goes_on_as(whole, run, words):
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert results(run) == results(whole)
    return True


def test_a_killed_run_leaves_no_process(tmp_path, cache):
    process, workers = begin(asked(tmp_path / "run", cache), tmp_path / "run")
    assert len(workers) == 2
    process.kill()  # alone, with batches on their way that no pipe holds
    assert ended(process, workers)[0] == -signal.SIGKILL


@pytest.mark.slow
def test_terminated_hung_up_killed_and_resumed(tmp_path, cache):
    whole, run = finished(tmp_path / "whole", cache), tmp_path / "run"
    again = f"metasynth run noise --resume --out {run}"
    words = asked(run, cache)
    for number, to_all in ((signal.SIGTERM, False), (signal.SIGHUP, True), (signal.SIGTERM, True)):
        process, workers = begin(words, run)
        assert len(workers) == 2
        (os.killpg if to_all else os.kill)(process.pid, number)
        status, told = ended(process, workers)
        assert (status, told[-1]) == (128 + number, f"Interrupted. Continue with: {again}")
        assert len(told) == 2  # and where the run is
        words = shlex.split(again)[1:]
    process, workers = begin(words, run)
    process.kill()  # alone, with batches on their way that no pipe holds
    assert ended(process, workers)[0] == -signal.SIGKILL
    assert goes_on_as(whole, run, words)


def at_call(monkeypatch, moment, count, act):
    """Have ``act(worker)`` run before the ``count``-th call of what the main process does with workers."""
    function, calls = getattr(Worker, moment), []

    def counted(worker, *request):
        calls.append(worker)
        if len(calls) == count:
            act(worker)
        return function(worker, *request)

    monkeypatch.setattr(Worker, moment, counted)


def test_a_killed_worker_is_one_line_and_the_run_goes_on_with_fewer(tmp_path, small):
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        at_call(patch, "answer", 12, lambda worker: os.kill(worker.process.pid, signal.SIGKILL))
        failed = CliRunner().invoke(main, asked(run, small))
    line = "a data worker was killed, perhaps for want of memory: try --set pace.workers=1; continue with --resume"
    assert (failed.exit_code, failed.stderr.splitlines()) == (1, [f"Run folder: {run}", f"Error: {line}"])
    again = ["run", "noise", "--resume", "--out", str(run), "--set", "pace.workers=1"]
    assert goes_on_as(finished(tmp_path / "whole", small), run, again)
    assert json.loads((run / "config.json").read_text())["config"]["pace"]["workers"] == 2  # as it was begun


def test_no_other_setting_may_change_with_the_pace(tmp_path, small):
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        at_call(patch, "answer", 12, lambda worker: os.kill(worker.process.pid, signal.SIGKILL))
        CliRunner().invoke(main, asked(run, small))
    again = ["run", "noise", "--resume", "--out", str(run), "--set", "pace.workers=1", "--set", "start=0.3"]
    refused = CliRunner().invoke(main, again)
    assert refused.exit_code == 2
    assert "cannot resume with other settings: " in refused.stderr
    assert "config.start: 0.4 -> 0.3" in refused.stderr
    assert "config.pace" not in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["ask", "answer"])
def test_a_signal_while_data_are_asked_for_hangs_nothing(tmp_path, small, monkeypatch, number, moment):
    """In the midst of what the main process does with a worker: no lock is there to be left behind."""
    at_call(monkeypatch, moment, 12, lambda worker: os.kill(os.getpid(), number))
    stopped = CliRunner().invoke(main, asked(tmp_path / "run", small))
    assert stopped.exit_code == 128 + number, stopped.output
    assert stopped.stderr.splitlines()[-1].startswith("Interrupted. Continue with: metasynth run noise --resume ")
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_an_ignored_hangup_is_ignored(tmp_path, small):
    whole, run = finished(tmp_path / "whole", small), tmp_path / "run"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does; processes inherit it
    try:
        process, _ = begin(asked(run, small), run)
    finally:
        signal.signal(signal.SIGHUP, before)
    os.killpg(process.pid, signal.SIGHUP)
    assert process.communicate(timeout=60)[0].endswith(f"Report: {run / 'report.html'}\n")
    assert process.returncode == 0
    assert results(run) == results(whole)


def test_a_killed_grid_leaves_no_process(tmp_path, cache):
    words = [*asked(tmp_path / "grid", cache), "--seeds", "2", "--jobs", "2"]
    process, _ = begin(words, tmp_path / "grid" / "seed=1")
    every = descendants(process.pid)
    assert len(every) >= 4
    process.kill()
    assert ended(process, every)[0] == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_grid_that_is_asked_to_end(tmp_path, cache, number):
    out = tmp_path / "grid"
    process, _ = begin([*asked(out, cache), "--seeds", "1"], out / "seed=0")
    every = descendants(process.pid)
    os.kill(process.pid, number)
    status, told = ended(process, every)
    again = f"metasynth run noise --resume --out {out}"
    assert (status, told[-1]) == (128 + number, f"Interrupted. Continue with: {again}")
    assert "Interrupted. Continue with: " in (out / "seed=0.log").read_text()


@pytest.fixture
def heads(tmp_path):
    """Label maps that take some time."""
    (tmp_path / "aseg").mkdir()
    rng = np.random.default_rng(0)
    for index in range(4):
        labels = np.zeros((64, 64, 64), np.uint8)
        labels[16:48, 16:48, 16:48] = rng.choice([2, 3, 10, 4], (32, 32, 32))
        nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "aseg" / f"s{index}.nii.gz")
    return tmp_path


PREP = ["prep", "labels", "aseg", "--mapping", "freesurfer-4", "--quiet", "--no-montage", "--out"]


def test_preparing_with_several_processes_that_is_ended_leaves_none(heads):
    for number, status in ((signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)):
        process = start([*PREP, f"{number}.h5", "--jobs", "2"], cwd=heads)
        every = wait_for(lambda process=process: [p for p in descendants(process.pid) if p] if busy(process) else [])
        process.send_signal(number)
        found, told = ended(process, every)
        assert found == status
        kept = ["What was prepared is kept; the same command goes on from there.", "", "Interrupted."]
        assert told == ([] if number == signal.SIGKILL else kept)
        assert not (heads / f"{number}.h5").exists()


def busy(process):
    """Whether it has started two workers."""
    return len(descendants(process.pid)) >= 2


def console(words, folder):
    """A command as an installed script starts it: the current folder is not on the path."""
    code = "import sys; sys.path = [path for path in sys.path if path]\nfrom metasynth.cli.main import main\nmain()"
    return subprocess.run([sys.executable, "-c", code, *words], cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_no_command_imports_from_the_current_folder(heads, small):
    for name in NAMES:
        (heads / f"{name}.py").write_text("open('marked', 'a').write(f'{__name__} ')\n")
    done = console([*PREP, "a.h5", "--jobs", "2", "--size", "32,32"], heads)
    assert done.returncode == 0, done.stderr
    few = {"segmenter.steps": "8", "outer.warmup": "2", "pace.workers": "1"}
    done = console([*asked("grid", small, **few), "--seeds", "1"], heads)
    assert not (heads / "marked").exists(), (heads / "marked").read_text()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_unforeseen_error_in_the_making_of_data_is_one_line(tmp_path, small, monkeypatch, workers):
    def broken(data, step):
        if step == 3:
            raise IndexError("of no\nuse")
        return item(data, step)

    item = streams.StepData.__getitem__
    monkeypatch.setattr(streams.StepData, "__getitem__", broken)
    failed = CliRunner().invoke(main, asked(tmp_path / "run", small, **{"pace.workers": workers}))
    assert failed.exit_code == 1
    assert failed.stderr.splitlines()[1:] == ["Error: the data of step 4 could not be made: IndexError: of no use"]
    monkeypatch.setenv("METASYNTH_DEBUG", "1")
    failed = CliRunner().invoke(main, asked(tmp_path / "again", small, **{"pace.workers": workers}))
    cause = failed.exception.__cause__
    assert "IndexError" in (str(cause.__cause__) if workers == "1" else repr(cause))
