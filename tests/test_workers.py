"""Processes beside this one: what they answer, how they fail, and that none outlives it."""

import _multiprocessing
import errno
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from support.processes import alive, descendants, program, wait_for

from metasynth.workers import WorkerEnded, WorkerFailed, as_done, in_order

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def nothing():
    pass


def half(number):
    time.sleep(0.02 * (number % 3 == 0))
    return 10 // number, os.getpid()


def test_answers_come_in_the_order_of_requests_from_all_workers():
    answers = list(in_order(half, range(1, 9), workers=3, ahead=2, prepare=nothing))
    assert [answer for answer, _ in answers] == [10, 5, 3, 2, 2, 1, 1, 1]
    assert len({process for _, process in answers}) == 3
    assert list(in_order(half, [], workers=2, ahead=2, prepare=nothing)) == []


def test_answers_come_as_they_are_done():
    def slow(number):
        time.sleep(0.3 * (number == 0))
        return -number

    answers = list(as_done(slow, range(5), workers=2, prepare=nothing, method="fork"))
    assert sorted(answers) == [(number, -number) for number in range(5)]
    assert answers[-1] == (0, 0)


def test_large_answers_pass_whole():
    arrays = in_order(lambda n: np.full((300, 1000), n), range(6), workers=2, ahead=4, prepare=nothing, method="fork")
    assert [array.sum() for array in arrays] == [n * 300_000 for n in range(6)]


def test_an_error_is_told_with_its_traceback_as_the_cause():
    answers = in_order(half, [5, 0, 2], workers=1, ahead=2, prepare=nothing)
    assert next(answers)[0] == 2
    with pytest.raises(WorkerFailed, match=r"^ZeroDivisionError: integer division or modulo by zero$") as caught:
        next(answers)
    assert "in half" in str(caught.value.__cause__)


def test_an_answer_that_cannot_be_sent_is_told():
    answers = in_order(lambda _: lambda: 1, [0], workers=1, ahead=1, prepare=nothing, method="fork")
    with pytest.raises(WorkerFailed, match="pickle"):
        next(answers)


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (lambda _: os.kill(os.getpid(), signal.SIGKILL), "killed"),
        (lambda _: os.kill(os.getpid(), signal.SIGTERM), "ended by SIGTERM"),
        (lambda _: os._exit(3), "ended with exit code 3"),
    ],
)
@pytest.mark.parametrize("made", [in_order, as_done])
def test_the_end_of_a_worker_is_told_and_is_that_of_the_others(made, end, told):
    more = {"ahead": 3} if made is in_order else {}
    with pytest.raises(WorkerEnded, match=f"^{told}$"):
        list(made(end, range(5), workers=2, prepare=nothing, method="fork", **more))
    assert not multiprocessing.active_children()


def test_workers_end_when_no_more_answers_are_wanted():
    answers = in_order(half, range(1, 99), workers=2, ahead=4, prepare=nothing)
    next(answers)
    assert len(multiprocessing.active_children()) == 2
    answers.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_a_terminal_sends_to_all_is_not_for_workers(number):
    answers = in_order(half, range(1, 9), workers=1, ahead=1, prepare=nothing)
    _, worker = next(answers)
    os.kill(worker, number)
    assert [answer for answer, _ in answers] == [5, 3, 2, 2, 1, 1, 1]


def refuse(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_no_shared_memory_is_needed(monkeypatch, method):
    """Locks and queues of the system's module are files in /dev/shm, which may have no room."""
    monkeypatch.setattr(_multiprocessing, "SemLock", refuse)
    assert sorted(as_done(abs, [-1, -2, -3], workers=2, prepare=int, method=method)) == [
        (-3, 3),
        (-2, 2),
        (-1, 1),
    ]


ORPHANS = """
import sys, threading, time
import numpy as np
from metasynth.workers import as_done, in_order

def work():
    answers = in_order(np.ones, [10**6] * 99, workers=2, ahead=4, prepare=int, method={method!r})
    next(answers)
    print("at work", flush=True)
    {then}

if {thread}:
    threading.Thread(target=work).start()
    time.sleep(60)
work()
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("thread", [False, True])
def test_workers_end_with_a_process_that_is_killed_while_they_send_what_no_pipe_holds(method, thread):
    process = program(ORPHANS.format(method=method, then="time.sleep(60)", thread=thread))
    assert process.stdout.readline() == "at work\n", process.stderr.read()
    time.sleep(0.2)
    workers = descendants(process.pid)
    assert len(workers) == 2
    process.kill()
    process.communicate()
    wait_for(lambda: not any(map(alive, workers)), 5)


@pytest.mark.parametrize("sent", [False, True])
def test_a_fresh_worker_whose_parent_ends_before_it_begins_says_nothing(sent):
    mine, its = multiprocessing.Pipe()
    code = f"from metasynth.worker_process import serve; serve({its.fileno()})"
    worker = subprocess.Popen(
        [sys.executable, "-c", code], pass_fds=[its.fileno()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    its.close()
    if sent:  # half of it
        os.write(mine.fileno(), struct.pack("!i", 1000) + b"x" * 10)
    mine.close()
    assert worker.communicate(timeout=30) == (b"", None)
    assert worker.returncode == 0


MARK = "open('marked', 'a').write(__name__)\n"


def test_a_worker_imports_nothing_from_the_current_folder(tmp_path):
    for name in ("numpy", "struct", "signal", "click"):  # those of the library are imported before any setting arrives
        (tmp_path / f"{name}.py").write_text(MARK)
    code = "import sys; sys.path = [path for path in sys.path if path]\n"
    code += "import numpy as np\nfrom metasynth.workers import in_order\n"
    code += "print(*in_order(np.ones, [1, 2], workers=1, ahead=1, prepare=int, method='spawn'))"
    process = program(code, cwd=tmp_path)
    output, errors = process.communicate(timeout=60)
    assert not (tmp_path / "marked").exists(), errors
    assert output == "[1.] [1. 1.]\n", errors
