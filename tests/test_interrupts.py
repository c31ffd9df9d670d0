"""Signals as flags: noted, read, insisted upon."""

import os
import signal
import threading
import time

import pytest
from support.processes import alive, program, wait_for

from metasynth import interrupts
from metasynth.interrupts import SIGNALS, Interrupted, check, exit_status, watched


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_raised_where_it_is_looked_for(number):
    before = [signal.getsignal(each) for each in (*SIGNALS, signal.SIGALRM)]
    with watched() as received:
        check()
        send(number)
        assert received == [number]
        with pytest.raises(Interrupted, match=number.name) as caught:
            check()
    assert exit_status(caught.value) == 128 + number
    assert [signal.getsignal(each) for each in (*SIGNALS, signal.SIGALRM)] == before
    check()


def test_a_plain_interrupt_has_the_status_of_one():
    assert exit_status(KeyboardInterrupt()) == exit_status(None) == 130


def test_nothing_changes_in_another_thread():
    found = []

    def work():
        with watched() as received:
            check()
            found.append((received, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [([], signal.getsignal(signal.SIGTERM))]


def test_what_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with watched() as received:
            send(signal.SIGHUP)
            check()
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert received == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_same_signal_twice_at_once_is_one_request():
    with watched() as received:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert received == [signal.SIGTERM]


def test_work_that_does_not_look_is_interrupted_where_it_is(monkeypatch):
    monkeypatch.setattr(interrupts, "PATIENCE_S", 0.1)
    begun = time.monotonic()
    with watched():
        send(signal.SIGINT)
        with pytest.raises(Interrupted):
            time.sleep(30)
    assert 0.1 <= time.monotonic() - begun < 10
    time.sleep(0.2)  # the alarm is off


def test_an_inner_watch_knows_what_the_outer_one_noted_and_ends_nothing(monkeypatch):
    monkeypatch.setattr(interrupts, "AGAIN_S", 0.0)
    monkeypatch.setattr(interrupts, "PATIENCE_S", 0.05)
    with watched():
        send(signal.SIGINT)
        with watched(forceful=False) as received:
            assert received == [signal.SIGINT]
            send(signal.SIGTERM)
            time.sleep(0.2)
            assert received == [signal.SIGINT, signal.SIGTERM]


TWICE = """
import signal, sys, time
from metasynth.interrupts import watched
from metasynth.workers import in_order
with watched():
    answers = in_order(float, range(9), workers=1, ahead=1, prepare=int)
    next(answers)
    import multiprocessing
    print(multiprocessing.active_children()[0].pid, flush=True)
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_the_second_signal_ends_the_process_and_its_workers_at_once(number):
    process = program(TWICE)
    worker = int(process.stdout.readline())
    process.send_signal(number)
    time.sleep(0.5)
    assert alive(process.pid)
    process.send_signal(number)
    output, errors = process.communicate(timeout=5)
    assert (process.returncode, output, errors) == (128 + number, "", "")
    wait_for(lambda: not alive(worker), 5)
