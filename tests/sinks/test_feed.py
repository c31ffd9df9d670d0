"""Sinks are fed from the file: each record once, whatever ends, and no failure of one ends a run."""

import os
import signal
import sys

import pytest
from sinks.conftest import append
from support.noting_sink import ENDING, FAILING, LEAVING, NOTING, PRINTING, REFUSING, Noting, noted, notes

from metasynth.errors import RunError
from metasynth.sinks import SinkEntry, feed
from metasynth.workers import WorkerEnded

LATER = "the run goes on, and --resume hands on the records that it has not"


def expected(count):
    return [[number, "s=0.1/learn", number, {"loss": 1 / number}] for number in range(1, count + 1)]


def test_every_record_once_and_the_pictures(run, pictures):
    with run.session(NOTING) as (lines, fed):
        append(lines, *range(1, 30))
        run.finish(fed, pictures("red"))
    opened, *records, shown, closed = notes(run.path)
    assert opened == ["open", "run", "noise"]
    assert records == expected(29)
    assert [shown, closed] == [["show", "sigma", True], ["close", True]]
    assert run.said == []


def test_nobody_is_asked_where_there_is_no_sink(run, monkeypatch):
    monkeypatch.setattr(feed, "one_worker", None)
    with run.session() as (lines, fed):
        append(lines, 1)
        run.finish(fed)
    assert {path.name for path in run.path.iterdir()} == {"metrics.jsonl"}


def test_a_run_that_is_stopped_hands_on_what_it_has(run):
    def stopped():
        with run.session(NOTING) as (lines, _):
            append(lines, *range(1, 10))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert noted(run.path) == expected(9)
    assert notes(run.path)[-1] == ["close", False]


def test_records_that_are_made_again_are_not_handed_on_again(run):
    with run.session(NOTING) as (lines, _):
        append(lines, 1, 2)
        known = lines.position
        append(lines, 3, 4)
    with run.session(NOTING, end=known) as (lines, fed):
        append(lines, 3, 4, 5)
        lines.truncate(known)  # within a session, too
        append(lines, *range(3, 8))
        run.finish(fed)
    assert noted(run.path) == expected(7)


def test_a_sink_that_comes_later_has_all(run):
    with run.session() as (lines, _):
        append(lines, *range(1, 6))
    with run.session(NOTING) as (_, fed):
        run.finish(fed)
    assert noted(run.path) == expected(5)


def test_many_records_go_in_several_requests(run, monkeypatch):
    monkeypatch.setattr(feed, "MOST_BYTES", 200)
    monkeypatch.setattr(feed, "SECONDS_BETWEEN", 60.0)
    with run.session(NOTING) as (lines, fed):
        append(lines, *range(1, 30))
        run.finish(fed)
    assert noted(run.path) == expected(29)


@pytest.mark.parametrize(
    ("entry", "why", "has"),
    [
        (FAILING, "OSError: [Errno 28] No space left on device: '/store'", 2),
        (LEAVING, "SystemExit: no licence", 0),
    ],
)
def test_a_sink_that_fails_is_told_once_and_ends_neither_the_run_nor_the_others(run, entry, why, has):
    with run.session(entry, NOTING) as (lines, fed):
        append(lines, 1, 2)
        append(lines, 3, 4, 5, 6)
        run.finish(fed)
    assert run.said == [f"sink {entry.name!r} failed: {why}; {LATER}"]
    assert noted(run.path) == expected(6)
    assert noted(run.path, entry.name) == expected(has)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_process_of_sinks_that_ends_does_not_end_the_run(run, stopped):
    with run.session(ENDING) as (lines, fed):
        append(lines, 1, 2, 3, 4)
        if not stopped:
            run.finish(fed)
    assert run.said == [f"the process of the sinks: ended with exit code 7; {LATER}"]


class Interrupted:
    """A process of sinks whose first answer is not waited for to its end, and which is busy from then on."""

    def __init__(self):
        self.asked = []

    def ask(self, request):
        self.asked.append(request[0])

    def has_answered(self, within=0.0):
        return False

    def answer(self):
        raise KeyboardInterrupt


def test_a_process_that_is_still_busy_at_an_interrupt_is_not_asked_again(run):
    """Where the pipe is full, asking would wait for it."""
    worker = Interrupted()
    run.metrics.write_bytes(b'{"step": 1}\n{"step": 2}\n')
    fed = feed.Feed(run.metrics, worker, run.said.append)
    fed.look(12)
    assert worker.asked == ["write"]
    with pytest.raises(KeyboardInterrupt):
        fed.finish(24, {})
    fed.leave()
    assert worker.asked == ["write"]
    assert run.said == []


def test_records_that_are_gone_do_not_end_the_run(run):
    with run.session(NOTING) as (lines, _):
        append(lines, 1)
        run.metrics.unlink()
        append(lines, 2)
    assert run.said == [f"{run.metrics}: cannot be read: No such file or directory; {LATER}"]


def test_a_sink_that_cannot_be_opened_ends_the_run_before_it_begins(run):
    with pytest.raises(RunError) as refused, run.session(NOTING, REFUSING):
        pytest.fail("was begun")
    why = "ValueError: MYLOG_URI: expected an address, got ''"
    where = run.path / "logs" / "refusing"
    assert str(refused.value) == f"{where}: the sink 'refusing' cannot be opened: {why}; --log none runs without"


@pytest.mark.parametrize(("where", "got"), [(None, "<lambda>"), ("__main__", "Noting of the program that runs")])
def test_a_sink_that_no_other_process_can_make(run, monkeypatch, where, got):
    if where:
        monkeypatch.setattr(Noting, "__module__", where)
        monkeypatch.setattr(sys.modules[where], "Noting", Noting, raising=False)
    entry = SinkEntry("mine", Noting if where else lambda run: None)
    with pytest.raises(RunError) as refused, run.session(entry):
        pytest.fail("was begun")
    told = "sink 'mine': open: expected a function or class that another process can import, got "
    assert str(refused.value).startswith(told)
    assert got in str(refused.value)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("logs", "logs/noting: cannot be written: Not a directory"),
        ("logs/noting", "logs/noting: cannot be written: File exists"),
    ],
)
def test_a_folder_that_cannot_be_written(run, file, line):
    (run.path / file).parent.mkdir(exist_ok=True)
    (run.path / file).touch()
    with pytest.raises(RunError) as refused, run.session(NOTING):
        pytest.fail("was begun")
    assert str(refused.value) == f"{run.path}/{line}"


def test_a_place_for_messages_that_cannot_be_written(run):
    (run.path / "logs" / "messages.log").mkdir(parents=True)
    with pytest.raises(RunError) as refused, run.session(NOTING):
        pytest.fail("was begun")
    assert str(refused.value) == f"{run.path}/logs/messages.log: cannot be written: Is a directory"


def test_a_process_that_cannot_be_started(run, monkeypatch):
    def answer(self):
        raise WorkerEnded("killed")

    monkeypatch.setattr(feed.Worker, "answer", answer)
    with pytest.raises(RunError) as refused, run.session(NOTING):
        pytest.fail("was begun")
    assert str(refused.value) == f"{run.path}/logs: the process of the sinks cannot be started: killed"


def test_what_loggers_print_is_kept_and_not_shown(run, capfd):
    with run.session(PRINTING) as (_, fed):
        run.finish(fed)
    assert capfd.readouterr() == ("", "")
    assert (run.path / "logs" / "messages.log").read_text().splitlines() == ["out", "err"]


def test_the_process_ends_with_the_session_and_leaves_interrupts_to_the_run(run):
    with run.session(NOTING) as (lines, fed):
        os.kill(fed._worker.process.pid, signal.SIGINT)
        process = fed._worker.process
        append(lines, 1)
        run.finish(fed)
    assert noted(run.path) == expected(1)
    assert process.exitcode is not None
