"""What a job does, with small programs in the place of runs."""

import os
import pickle
import signal
import subprocess
import sys
import threading

import pytest
from support.processes import wait_for

from metasynth.errors import RunError
from metasynth.running.jobs.job import RunJob

pytest.importorskip("submitit")
WAIT = "pathlib.Path(sys.argv[1]).touch(); time.sleep(60)\n"


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Makes the job of a program; the file that is there when the program runs is beside its log."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the handlers of the tests stay
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(program, **environment):
        (tmp_path / "program.py").write_text(f"import os, pathlib, signal, sys, time\n{program}")
        return RunJob("seed=0", ("program", str(tmp_path / "on")), tmp_path / "seed=0.log", environment)

    return make


def test_a_run_that_ends_well_is_all_there_is_to_it(job, tmp_path):
    told = "print(os.environ.get('A'), os.environ.get('B'), os.environ['METASYNTH_PARENT'], sys.flags.safe_path)\n"
    (tmp_path / "seed=0.log").write_text("of an earlier session\n")
    os.environ["B"] = "2"
    try:
        job(told, A="1", B=None)()
    finally:
        del os.environ["B"]
    expected = f"of an earlier session\n$ program {tmp_path / 'on'}\n1 None {os.getpid()} True\n"
    assert (tmp_path / "seed=0.log").read_text() == expected


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("print('Error: a.h5: no labels', file=sys.stderr); print('bye'); sys.exit(1)", "a.h5: no labels"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("sys.exit(7)", "exit code 7"),
    ],
)
def test_a_run_that_fails_says_so_by_its_last_error(job, tmp_path, program, told):
    (tmp_path / "seed=0.log").write_text("Error: of an earlier session\n")
    with pytest.raises(RunError) as caught:
        job(program)()
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("program", "code"),
    [("os.kill(os.getpid(), signal.SIGKILL)", 137), ("sys.exit(143)", 143), ("sys.exit(130)", 130)],
)
def test_a_run_that_was_ended_is_no_failure_of_its_own(job, program, code):
    with pytest.raises(SystemExit) as caught:
        job(program)()
    assert caught.value.code == code


def test_the_word_to_requeue_is_the_jobs_alone(job):
    """A cluster sends it to every process; a run that did not know it would end without a word."""
    job("os.kill(os.getpid(), signal.SIGUSR2); sys.exit(0 if signal.SIGUSR2 in signal.sigpending() else 1)\n")()


@pytest.mark.parametrize("program", [WAIT, "signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + WAIT])
def test_before_it_is_requeued_the_run_is_ended(job, tmp_path, monkeypatch, program):
    monkeypatch.setattr("metasynth.running.jobs.job.PATIENCE_S", 0.5 if "SIG_IGN" in program else 20)
    begun, ended = job(program), []

    def carry_out():
        with pytest.raises(SystemExit) as caught:
            begun()
        ended.append(caught.value.code)

    thread = threading.Thread(target=carry_out)
    thread.start()
    wait_for((tmp_path / "on").exists)
    again = begun.checkpoint()
    thread.join()
    assert ended == [137 if "SIG_IGN" in program else 130]
    assert again.function == begun
    assert pickle.loads(pickle.dumps(again.function)) == begun


def test_a_request_to_end_is_passed_on(job, tmp_path):
    begun, ended = job(WAIT), []

    def carry_out():
        with pytest.raises(SystemExit) as caught:
            begun()
        ended.append(caught.value.code)

    thread = threading.Thread(target=carry_out)
    thread.start()
    wait_for((tmp_path / "on").exists)
    begun._pass_on(signal.SIGTERM, None)
    thread.join()
    assert ended == [143]
    with pytest.raises(SystemExit) as caught:
        job(WAIT)._pass_on(signal.SIGTERM, None)  # which it may come before
    assert caught.value.code == 143


def test_a_job_of_this_machine_leaves_the_terminal_and_ends_with_its_parent():
    """Whose interrupts were held back when it was started: one that waits since then is forgotten."""
    child = "import os, signal, time; from metasynth.running.jobs.job import _leave_the_terminal as leave\n"
    child += "os.kill(os.getpid(), signal.SIGINT); leave(); free = signal.pthread_sigmask(signal.SIG_BLOCK, [])\n"
    child += "print(os.getsid(0) == os.getpid(), free, signal.getsignal(signal.SIGINT).__name__, os.getpid())\n"
    parent = "import subprocess, sys; from metasynth.interrupts import held\n"
    parent += f"with held(): process = subprocess.Popen([sys.executable, '-uc', {child + 'time.sleep(60)'!r}])\n"
    parent += "process.wait()"
    started = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    told = started.stdout.readline().split()
    started.kill()
    started.communicate()
    assert told[0] == "True"
    assert told[-2] == "default_int_handler"
    assert "SIGINT" not in " ".join(told)
    wait_for(lambda: not os.path.exists(f"/proc/{told[-1]}"))
