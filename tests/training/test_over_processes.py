"""A study over the processes that torchrun starts is the study of one process, however it is ended and gone on with."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import tiny_comparison
from support.processes import alive, descendants, wait_for
from support.tiny_comparison import real_cache, rename
from support.tiny_noise import SETTINGS, make_cache

SCRIPT = Path(__file__).with_name("in_double.py")
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
SIZES = {**SETTINGS, "segmenter.batch_size": "4", "segmenter.steps": "30", "outer.batch_size": "4", "sigma": "0.1"}
REAL = {**tiny_comparison.SETTINGS, "segmenter.steps": "8"}
WINDOWS = {"outer_synthesis.horizon": "2", "outer_synthesis.mean_of": "2"}
LEARNED = ("parametric_fixed", "synthesis_estimated")
METHODS = ("supervised", "naive", "estimated", "mixed", "finetuned", "interpolated", *LEARNED, "optimised", "unlearned")
MAPS = ("segmenter.", "pace.", "synthesis.")
STUDIES = {
    "noise": ("c.h5", SIZES, 90),
    "inu": ("c.h5", SIZES, 90),
    "label_maps": ("c.h5", {key: value for key, value in SIZES.items() if key.startswith(MAPS)}, 30),
    "real_world": ("real.h5", {**REAL, **WINDOWS, "methods": ",".join(METHODS)}, 67),
    "cross_contrast": (
        "real.h5",
        {**REAL, "methods": "naive,supervised,parametric_fixed", "tests": "flash=flash.h5", "labels": "others.h5"},
        24,
    ),
}
WORKED = {"pace.workers": "1"}  # each process has one that makes its data
CLOCKS = ("wall_s", "total_s", "peak_mib")
AGAIN = ("run", "noise", "--resume", "--out")
DIED = "Error: {0}: noise stopped: another of its 2 processes has ended; continue with --resume"
INTERRUPTED = "Interrupted. Continue with: metasynth run noise --resume --out {0}"


def begun(study, name, **changes):
    cache, sizes, _ = STUDIES[study]
    settings = [f"--set={key}={value}" for key, value in {**sizes, **changes}.items()]
    words = ("--data", cache, "--seed", "0", "--device", "cpu", "--threads", "1", "--out", name)
    return ("run", study, *words, *settings)


def start(folder, arguments, *launch):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(folder / "tmp")}
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # tests begun in the background, whose children inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    options = {"cwd": folder, "env": environment, "start_new_session": True}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *launch, SCRIPT, *arguments], **options, **pipes)


def ended(process, code=0):
    output, errors = process.communicate(timeout=600)
    assert process.returncode == code, errors
    return output, errors


def said(errors):
    """The lines that are no launcher's."""
    return [line for line in errors.splitlines() if line.startswith(("Error:", "Interrupted."))]


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def rows(folder):
    return json.loads((folder / "results.json").read_text())["rows"]


def assert_close(found, wanted):
    """Equal to 1e-9, but for what a clock or the system says."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted.keys() - {*CLOCKS}:
            assert_close(found[key], wanted[key])
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_close(one, other)
    else:
        assert found == (pytest.approx(wanted, rel=1e-9, abs=1e-12) if isinstance(wanted, float) else wanted)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("over")
    (folder / "tmp").mkdir()
    make_cache(folder / "c.h5")
    real_cache(folder / "real.h5", subjects=6)
    real_cache(folder / "flash.h5", 2.0, subjects=8)
    rename(make_cache(folder / "others.h5", subjects=4), lambda index, name: f"other {name}")
    return folder


@pytest.fixture(scope="module")
def noise(place):
    ended(start(place, begun("noise", "noise-1")))
    return place / "noise-1"


def test_a_run_that_has_finished_is_reported_again_by_two_processes(place, noise):
    report = noise / "report.html"
    report.unlink()
    _, errors = ended(start(place, (*AGAIN, "noise-1"), *TWO))
    assert said(errors) == []
    assert report.is_file()


def leftovers(place):
    return [path.name for path in (place / "tmp").glob("metasynth-*")]


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
def test_two_processes_do_what_one_does(place, study, request):
    one, two = place / f"{study}-1", place / f"{study}-2"
    if study == "noise":
        request.getfixturevalue("noise")
    else:
        ended(start(place, begun(study, one.name)))
    output, errors = ended(start(place, begun(study, two.name), *TWO))
    assert len(records(two)) == STUDIES[study][2]
    assert_close(records(two), records(one))
    assert_close(rows(two), rows(one))
    assert output.count(f"Report: {two.name}/report.html") == 1
    assert errors.count(f"Run folder: {two.name}") == 1
    assert leftovers(place) == []


def begun_with_ranks(place, arguments, count):
    """The launcher, once the run has so many records, and its two ranks with the workers of both."""
    launched = start(place, arguments, *TWO)
    path = place / "ended" / "metrics.jsonl"
    wait_for(lambda: launched.poll() is not None or (path.is_file() and path.read_bytes().count(b"\n") >= count), 600)
    assert launched.poll() is None, launched.communicate()
    ranks = [rank_of(launched.pid, rank) for rank in range(2)]
    return launched, ranks, descendants(launched.pid)


@pytest.mark.slow
def test_a_run_that_is_ended_in_any_way_says_so_and_goes_on(place, noise):
    """Whoever is asked to end or killed: all end, leave nothing behind, and any number of processes goes on."""
    again = (*AGAIN, "ended")
    for who, number, lines in (
        ("launcher", signal.SIGINT, [[INTERRUPTED]]),
        ("launcher", signal.SIGTERM, [[INTERRUPTED]]),
        ("rank 0", signal.SIGKILL, [[]]),
        ("rank 1", signal.SIGKILL, [[DIED], [INTERRUPTED]]),  # the second where torchrun asked it to end before
        ("launcher", signal.SIGKILL, [[INTERRUPTED]]),
    ):
        resumed = (place / "ended").exists()
        at = len(records(place / "ended")) + 1 if resumed else 8
        launched, ranks, every = begun_with_ranks(place, again if resumed else begun("noise", "ended", **WORKED), at)
        assert len(every) == 5  # two ranks with a worker each, and what clears up after the second
        os.kill({"launcher": launched.pid, "rank 0": ranks[0], "rank 1": ranks[1]}[who], number)
        _, errors = ended(launched, -number if (who, number) == ("launcher", signal.SIGKILL) else 1)
        assert said(errors) in [[line.format("ended") for line in each] for each in lines]
        wait_for(lambda every=every: not any(map(alive, every)))
        wait_for(lambda: leftovers(place) == [])
        assert not (place / "ended" / "results.json").exists()
    ended(start(place, again))
    assert_close(records(place / "ended"), records(noise))
    assert_close(rows(place / "ended"), rows(noise))


@pytest.mark.slow
def test_a_batch_that_does_not_divide_is_refused_in_one_line(place):
    _, errors = ended(start(place, begun("noise", "odd", **{"outer.batch_size": "3"}), *TWO), 1)
    assert said(errors) == ["Error: outer.batch_size: expected a multiple of the 2 processes of the run, got 3"]
    assert not (place / "odd").exists()


def rank_of(parent, rank):
    """The process id of a rank among the children of torchrun."""
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in children.read_text().split():
            if b"RANK=%d" % rank in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                return int(child)
    raise AssertionError(f"no process of rank {rank}")
