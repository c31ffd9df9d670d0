"""A study over the processes that torchrun starts is the study of one process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.tiny_noise import SETTINGS, make_cache

SCRIPT = Path(__file__).with_name("in_double.py")
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
SIZES = {**SETTINGS, "segmenter.batch_size": "4", "segmenter.steps": "30", "outer.batch_size": "4", "sigma": "0.1"}
BEGUN = ("run", "noise", "--data", "c.h5", "--seed", "0", "--device", "cpu", "--threads", "1")


def begun(name, **changes):
    settings = [f"--set={key}={value}" for key, value in {**SIZES, **changes}.items()]
    return (*BEGUN, *settings, "--out", name)


def start(folder, arguments, *launch):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(folder / "tmp")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *launch, SCRIPT, *arguments], cwd=folder, env=environment, **pipes)


def ended(process, code=0):
    output, errors = process.communicate(timeout=600)
    assert process.returncode == code, errors
    return output, errors


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same(found, wanted):
    assert len(found) == len(wanted) == 90
    for a, b in zip(found, wanted, strict=True):
        assert a.keys() == b.keys()
        for key, value in b.items():
            assert a[key] == (pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("over")
    (folder / "tmp").mkdir()
    make_cache(folder / "c.h5")
    ended(start(folder, begun("one")))
    return folder


@pytest.mark.slow
def test_two_processes_do_what_one_does(place):
    output, errors = ended(start(place, begun("two"), *TWO))
    assert_same(records(place / "two"), records(place / "one"))
    assert output.count("Report: two/report.html") == 1
    assert errors.count("Run folder: two") == 1
    assert not any((place / "tmp").glob("metasynth-*"))


@pytest.mark.slow
def test_a_process_that_dies_ends_all_and_the_run_goes_on_with_another_number(place):
    launched = start(place, begun("killed"), *TWO)
    path = place / "killed" / "metrics.jsonl"
    while launched.poll() is None and (not path.is_file() or path.read_bytes().count(b"\n") < 8):
        time.sleep(0.02)
    os.kill(second_of(launched.pid), signal.SIGKILL)
    ended(launched, 1)
    assert not (place / "killed" / "results.json").exists()
    ended(start(place, ("run", "noise", "--resume", "--out", "killed")))
    assert_same(records(place / "killed"), records(place / "one"))


@pytest.mark.slow
def test_a_batch_that_does_not_divide_is_refused_in_one_line(place):
    _, errors = ended(start(place, begun("odd", **{"outer.batch_size": "3"}), *TWO), 1)
    said = [line for line in errors.splitlines() if line.startswith("Error:")]
    assert said == ["Error: outer.batch_size: expected a multiple of the 2 processes of the run, got 3"]
    assert not (place / "odd").exists()


def second_of(parent):
    """The process id of rank 1 among the children of torchrun."""
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in children.read_text().split():
            if b"RANK=1" in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                return int(child)
    raise AssertionError("no second process")
