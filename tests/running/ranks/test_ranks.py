"""Which of the processes of a run this one is, and what it says when another has ended."""

import os
import signal

import pytest

from metasynth.errors import RunError, UsageError
from metasynth.interrupts import Interrupted, watched
from metasynth.running.ranks import ranks as module
from metasynth.running.ranks.ranks import ALONE, Ranks


def test_the_environment_says_which(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert Ranks.started() == ALONE == Ranks(rank=0, count=1, local=0, here=1)
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert Ranks.started() == Ranks(rank=5, count=8, local=1, here=4)


def test_a_batch_that_does_not_divide_is_refused():
    Ranks(count=2).require_divisible(**{"segmenter.batch_size": 4, "outer.batch_size": 2})
    with pytest.raises(UsageError) as caught:
        Ranks(count=2).require_divisible(**{"segmenter.batch_size": 4, "outer.batch_size": 3})
    assert str(caught.value) == "outer.batch_size: expected a multiple of the 2 processes of the run, got 3"


def test_processes_do_not_share_a_gpu():
    Ranks(count=4, here=2).require_gpus("cuda", 2)
    Ranks(count=4, here=4).require_gpus("cpu", 0)
    with pytest.raises(UsageError) as caught:
        Ranks(count=4, here=4).require_gpus("cuda", 2)
    line = "--device cuda: expected at most as many processes as GPUs on a machine, 2 here, got 4"
    assert str(caught.value) == line


def test_that_another_process_has_ended_is_one_line():
    with pytest.raises(RunError) as caught, Ranks(count=2).together("out: noise"):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    assert str(caught.value) == "out: noise stopped: another of its 2 processes has ended; continue with --resume"


@pytest.mark.parametrize(("count", "error"), [(1, RuntimeError("gloo")), (2, RuntimeError("a")), (2, RunError("gloo"))])
def test_other_errors_pass(count, error):
    with pytest.raises(RuntimeError) as caught, Ranks(count=count).together("out"):
        raise error
    assert caught.value is error


def test_that_another_process_has_ended_before_the_run_began_is_the_same_line(monkeypatch):
    def ended(self):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")

    monkeypatch.setattr(Ranks, "_join", ended)
    with pytest.raises(RunError) as caught:
        Ranks(count=2).hand_out("out: noise", None)
    assert str(caught.value) == "out: noise stopped: another of its 2 processes has ended; continue with --resume"


def test_one_process_hands_nothing_out():
    ALONE.hand_out("out: noise", {"anything": 1})


def test_what_all_choose_by_is_what_the_first_found(monkeypatch):
    monkeypatch.setattr(Ranks, "_broadcast", lambda self, given: 0.5)
    assert Ranks(count=2).agreed(0.7) == 0.5
    assert ALONE.agreed(0.7) == 0.7


def test_a_process_that_is_asked_to_end_waits_for_no_other(monkeypatch):
    monkeypatch.setattr(Ranks, "_join", lambda self: pytest.fail("waited"))
    with watched():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            Ranks(count=2).hand_out("out: noise", None)


def test_the_end_of_torchrun_asks_its_processes_to_end(monkeypatch):
    asked = []
    monkeypatch.setattr(module, "when_gone", lambda *given: asked.append(given))
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    Ranks(count=2).end_with_launcher()
    assert asked == []
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    Ranks(count=2).end_with_launcher()
    assert asked == [(os.getppid(), signal.SIGTERM)]
