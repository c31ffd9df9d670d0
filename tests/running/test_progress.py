import io

import pytest

from metasynth.running import progress
from metasynth.running.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_are_rare(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with Progress(stream=stream).task("learn", 100, done=10) as task:
        for step in range(90):
            now[0] += 0.5
            task.advance(note=f"step {step}")
    assert stream.getvalue().splitlines() == [
        "learn: 30/100, step 19, 10 s",
        "learn: 50/100, step 39, 20 s",
        "learn: 70/100, step 59, 30 s",
        "learn: 90/100, step 79, 40 s",
        "learn: 100/100, step 89, 45 s",
    ]


def test_quiet_means_plain_lines_on_a_terminal_too():
    stream = Terminal()
    shown = Progress(quiet=True, stream=stream)
    with shown.task("a", 1) as task:
        task.advance()
    shown.say("done")
    assert stream.getvalue() == "a: 1/1, 0 s\ndone\n"


def test_bars_on_a_terminal_give_it_back_after_a_failure():
    stream = Terminal()
    shown = Progress(stream=stream)

    def fail():
        with shown.task("outer [1]", 2) as task, shown.task("inner", 3) as inner:
            inner.advance(3, note="sigma .12")
            shown.say("a [b] line")
            task.advance()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    text = stream.getvalue()
    assert "outer [1]" in text
    assert "a [b] line" in text
    assert "3/3" in text
    assert "\x1b[?25h" in text  # the cursor is shown again
    shown.say("after")
    assert stream.getvalue().endswith("after\n")


def test_a_failed_task_says_no_last_line():
    stream = io.StringIO()
    with pytest.raises(ValueError, match="x"), Progress(stream=stream).task("a", 2):
        raise ValueError("x")
    assert stream.getvalue() == ""


def test_a_counter_shows_nothing_until_it_is_called():
    stream = io.StringIO()
    shown = Progress(stream=stream)
    with shown.counter("unused"):
        pass
    with shown.counter("cohort") as follow:
        follow(1, 2)
        follow(2, 2)
    assert stream.getvalue() == "cohort: 2/2, 0 s\n"
