"""The processes of a grid, with small programs in the place of runs; tests/test_cli_grid.py has real ones."""

import io
import os
import re
import signal
import sys
import threading
import time

import pytest

from metasynth.errors import RunError
from metasynth.running import grid_run
from metasynth.running.grid import Grid
from metasynth.running.grid_folder import GridFolder
from metasynth.running.grid_run import carry_out
from metasynth.running.progress import Progress

FINISH = "folder.mkdir(); [(folder / name).touch() for name in ('config.json', 'results.json', 'report.html')]\n"
WAIT = "time.sleep(60)\n"
DEAF = "signal.signal(signal.SIGINT, signal.SIG_IGN); (folder.parent / 'deaf').touch()\n"


@pytest.fixture
def folder(tmp_path):
    grid = GridFolder.create(tmp_path / "grid", Grid("tiny", "quick", (0, 1, 2)))
    yield grid
    grid.close()


@pytest.fixture
def programs(monkeypatch):
    """What each run does, by its seed; it finishes at once unless something else is said."""
    programs = {}

    def command(folder, run):
        head = "import os, pathlib, signal, sys, time; folder = pathlib.Path(sys.argv[1])\n"
        return [sys.executable, "-S", "-c", head + programs.get(run.seed, FINISH), str(folder.path / run.name)]

    monkeypatch.setattr(grid_run, "_command", command)
    return programs


def go(folder, jobs=3, gpus=()):
    """Carry the grid out; what failed, and what was said."""
    stream = io.StringIO()
    failed = carry_out(folder, jobs, Progress(stream=stream), gpus)
    return failed, stream.getvalue().splitlines()


def later(condition, action):
    """Do something from another thread, once a condition holds."""

    def wait():
        until = time.monotonic() + 30
        while not condition() and time.monotonic() < until:
            time.sleep(0.01)
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_every_run_is_carried_out_once(folder, programs):
    failed, said = go(folder, jobs=2)
    assert failed == {}
    assert all(map(folder.done, folder.grid.runs))
    assert all(re.fullmatch(rf"seed={n}: finished in \d+ s", line) for n, line in enumerate(sorted(said[:3])))
    assert re.fullmatch(r"grid of tiny: 3/3, \d+ s", *said[3:])
    programs |= dict.fromkeys(range(3), "sys.exit(1)")
    assert go(folder) == ({}, ["grid of tiny: 3/3, 0 s"])


def test_no_more_run_at_a_time_than_were_asked_for(folder, programs):
    counted = "others = [p for p in folder.parent.glob('*.here')]; here = folder.with_suffix('.here'); here.touch()\n"
    counted += "time.sleep(.1); here.unlink(); assert len(others) < 2, others\n"
    programs |= dict.fromkeys(range(3), counted + FINISH)
    assert go(folder, jobs=2)[0] == {}


SEES = "(folder.parent / f'{folder.name}.gpu').write_text(os.environ.get('CUDA_VISIBLE_DEVICES', 'all'))\n"


def seen(folder):
    """What each run was given to see, in the order of the runs."""
    return [(folder.path / f"{run.name}.gpu").read_text() for run in folder.grid.runs]


@pytest.mark.parametrize(
    ("jobs", "gpus", "given"),
    [
        (3, (), ["7", "7", "7"]),
        (3, ("4",), ["4", "4", "4"]),
        (3, ("4", "GPU-a"), ["4", "GPU-a", "4"]),
        (3, ("0", "1", "2", "3"), ["0", "1", "2"]),
        (1, ("0", "1", "2"), ["0", "0", "0"]),
    ],
)
def test_run_k_sees_the_gpu_k_mod_their_number(folder, programs, monkeypatch, jobs, gpus, given):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    together = f"while len(list(folder.parent.glob('*.gpu'))) < {jobs}: time.sleep(.01)\n"
    programs |= dict.fromkeys(range(3), SEES + together + FINISH)
    assert go(folder, jobs, gpus)[0] == {}
    assert seen(folder) == given
    first = (folder.path / "seed=0.log").read_text().splitlines()[0]
    assert first.startswith(f"$ CUDA_VISIBLE_DEVICES={given[0]} -S -c " if gpus else "$ -S -c ")


def test_the_next_run_has_the_gpu_that_is_free(folder, programs):
    """That of the run that ended first, not that which comes next in turn, where the other still is."""
    programs[0] = SEES + "while not (folder.parent / 'seed=2.gpu').exists(): time.sleep(.01)\n" + FINISH
    programs |= {1: SEES + FINISH, 2: SEES + FINISH}
    assert go(folder, 2, ("0", "1"))[0] == {}
    assert seen(folder) == ["0", "1", "1"]


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("print('Error: a.h5: no labels', file=sys.stderr); print('bye'); sys.exit(1)", "a.h5: no labels"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("sys.exit(7)", "exit code 7"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL (see {log})"),
    ],
)
def test_a_run_that_fails_is_told_and_stops_no_other(folder, programs, program, told):
    log = folder.path / "seed=1.log"
    log.write_text("Error: of an earlier session\n")
    programs[1] = program
    failed, said = go(folder, jobs=1)
    told = f"failed: {told.format(log=log)}"
    assert failed == {"seed=1": told}
    assert said[1] == f"seed=1: {told}"
    assert [folder.done(run) for run in folder.grid.runs] == [True, False, True]
    assert log.read_text().startswith("Error: of an earlier session\n$ -S -c ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_when_it_is_asked_to_end_so_are_its_runs(folder, programs, number):
    programs |= {0: FINISH, 1: "(folder.parent / 'on').touch()\n" + WAIT}
    before = signal.getsignal(number)
    thread = later((folder.path / "on").exists, lambda: os.kill(os.getpid(), number))
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        go(folder, jobs=1)
    thread.join()
    assert time.monotonic() - begun < 15
    assert "KeyboardInterrupt" in (folder.path / "seed=1.log").read_text()
    assert not (folder.path / "seed=2.log").exists()
    assert signal.getsignal(number) is before


def test_runs_that_do_not_end_are_made_to(folder, programs, monkeypatch):
    """Of themselves after some patience, and at once when asked again."""
    monkeypatch.setattr(grid_run, "PATIENCE_S", 0.2)
    programs[0] = DEAF + WAIT
    thread = later((folder.path / "deaf").exists, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        go(folder, jobs=1)
    thread.join()
    (folder.path / "deaf").unlink()
    monkeypatch.setattr(grid_run, "PATIENCE_S", 60)

    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    begun = time.monotonic()
    thread = later((folder.path / "deaf").exists, twice)
    with pytest.raises(KeyboardInterrupt):
        go(folder, jobs=1)
    thread.join()
    assert time.monotonic() - begun < 30


def test_runs_can_be_interrupted_where_the_grid_ignores_interrupts(folder, programs):
    """As one in the background of a script does, whose processes would inherit that."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        programs[0] = "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n" + FINISH
        assert go(folder, jobs=1)[0] == {}
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_runs_end_with_the_grid_and_import_nothing_from_the_current_folder(folder, programs):
    told = "assert sys.flags.safe_path; assert os.environ['METASYNTH_PARENT'] == str(os.getppid())\n"
    programs |= dict.fromkeys(range(3), told + FINISH)
    assert go(folder)[0] == {}


def test_a_log_that_cannot_be_written_is_one_line(folder, programs):
    (folder.path / "seed=0.log").mkdir()
    with pytest.raises(RunError, match=r"seed=0\.log: cannot be started: Is a directory"):
        go(folder)


def test_the_command_of_a_run(tmp_path):
    grid = Grid("noise", "standard", (3,), {"sigma": ("0.1",)}, ("start=0.2",), tmp_path / "c.h5", "cpu", 2)
    folder = GridFolder.create(tmp_path / "g", grid)
    (run,) = grid.runs
    out = folder.path / "seed=3,sigma=0.1"
    command = [sys.executable, "-m", "metasynth", "run", "noise", "--out", str(out), "--preset", "standard"]
    command += ["--seed", "3", "--data", str(tmp_path / "c.h5"), "--device", "cpu", "--threads", "2", "--quiet"]
    settings = ["--set", "start=0.2", "--set", "sigma=0.1"]
    assert grid_run._command(folder, run) == command + settings
    out.mkdir()
    (out / "config.json").touch()
    assert grid_run._command(folder, run) == [*command, "--resume", *settings]
