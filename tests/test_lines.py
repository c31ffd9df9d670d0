"""Lines that nobody reads any more: what writes them goes on, or ends quietly."""

import io
import logging
import os
import subprocess
import sys

import pytest
from support.processes import program
from support.tiny_noise import arguments, make_cache, start

from metasynth.lines import logger, tell
from metasynth.running.progress import Progress


def closed_pipe():
    """A stream into a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def test_messages_with_any_name_of_a_file_can_be_written_by_any_handler(caplog):
    name = os.fsdecode(b"caf\xe9 \xcf\x83.nii")
    for _ in range(2):  # asked for twice, it escapes once
        log = logger("metasynth.tests.names")
    with caplog.at_level(logging.INFO, log.name):
        log.info("%s: %d slices", name, 3)
        log.info("100 %% of %s", "σ")
    assert caplog.messages == ["caf\\udce9 σ.nii: 3 slices", "100 % of σ"]


def test_a_line_is_written_and_flushed():
    stream = io.StringIO()
    tell("σ = 0.1", stream)
    assert stream.getvalue() == "σ = 0.1\n"


def test_what_cannot_be_written_is_dropped_with_all_that_follows():
    with closed_pipe() as stream:
        tell("one", stream)
        print("two", file=stream, flush=True)  # as others do


class Terminal:
    """A terminal that is gone: the descriptor of a closed pipe."""

    def __init__(self, stream):
        self.stream = stream

    def isatty(self):
        return True

    def __getattr__(self, name):
        return getattr(self.stream, name)


def test_progress_goes_on_where_nobody_reads_it():
    with closed_pipe() as stream:
        shown = Progress(stream=stream)
        with shown.task("learn", 2) as task:
            task.advance(2)
        shown.say("done")


def test_bars_go_on_where_the_terminal_is_gone():
    with closed_pipe() as stream:
        shown = Progress(stream=Terminal(stream))
        with shown.task("learn", 2) as task:
            shown.say("a line")
            task.advance(2)


def test_the_end_of_the_reader_ends_no_training(tmp_path):
    """As in ``metasynth run ... 2>&1 | head -1``."""
    run = tmp_path / "run"
    words = arguments(run, make_cache(tmp_path / "c.h5"), baselines="false")
    reader, writer = os.pipe()
    process = start(words, stdout=writer, stderr=writer)
    os.close(writer)
    with os.fdopen(reader) as lines:
        assert lines.readline() == f"Run folder: {run}\n"
    assert process.wait(60) == 0
    assert (run / "report.html").is_file()


def test_closed_streams_end_no_training(tmp_path):
    run = tmp_path / "run"
    words = arguments(run, make_cache(tmp_path / "c.h5"), baselines="false")
    done = subprocess.run(["sh", "-c", 'exec "$@" >&- 2>&-', "sh", sys.executable, "-m", "metasynth", *words])
    assert done.returncode == 0
    assert (run / "report.html").is_file()


@pytest.mark.parametrize("words", ["'list'", "'inspect', sys.argv[1]", "'report', '--help'"])
def test_commands_that_only_print_end_quietly(tmp_path, words):
    cache = make_cache(tmp_path / "c.h5")
    code = f"import sys; sys.argv = ['', {str(cache)!r}]\nfrom metasynth.cli.main import main\nmain([{words}])"
    reader, writer = os.pipe()
    os.close(reader)
    process = program(code, stdout=writer)
    os.close(writer)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 1
