"""Messages of the package go through the standard logging: a program routes them, the command line shows them."""

import ast
import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.tiny_study import tiny_experiment

from metasynth.cli import messages
from metasynth.cli.main import main
from metasynth.cli.messages import messages_shown
from metasynth.run import execute
from metasynth.running import progress, study
from metasynth.running.progress import Progress

ROOT = Path(__file__).parent.parent
LINES = ["tiny: 4/4, total ", "a: the run has finished; its report is written again"]


class Point:
    value = "tiny_study:EXPERIMENT"

    def load(self):
        return tiny_experiment()


@pytest.fixture
def place(monkeypatch, tmp_path):
    """An empty folder, with the tiny study."""
    monkeypatch.setattr(study, "discover_experiments", lambda: {"tiny": Point()})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> list[str]:
    """What a run of the tiny study says on standard error."""
    result = CliRunner().invoke(main, [*words, "run", "tiny", "--out", "a", "--device", "cpu", "--threads", "1"])
    assert result.exit_code == 0, result.output
    return result.stderr.splitlines()


def test_a_program_gets_every_message_and_nothing_is_printed(place, caplog, capsys):
    caplog.set_level(logging.DEBUG, "metasynth")
    for _ in range(2):
        execute(tiny_experiment(), "a", device="cpu", threads=1, resume=(place / "a").exists())
    found = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert [text for name, level, text in found if (name, level) == ("metasynth.progress", "INFO")] == [
        next(text for *_, text in found if text.startswith(LINES[0])),
        LINES[1],
    ]
    assert ("metasynth.run", "INFO", "a: tiny, preset quick, seed 0") in found
    assert ("metasynth.running.checkpoint", "DEBUG", "a/checkpoints/last.pt: written") in found
    assert capsys.readouterr() == ("", "")


def test_a_program_that_sets_nothing_up_is_told_nothing(place, capsys):
    execute(tiny_experiment(), "a", device="cpu", threads=1)
    assert capsys.readouterr() == ("", "")
    (handler,) = logging.getLogger("metasynth").handlers
    assert isinstance(handler, logging.NullHandler)
    assert logging.getLogger("metasynth").level == logging.NOTSET


def test_the_command_line_shows_progress_alone(place):
    said = run()
    assert said[0] == "Run folder: a"
    assert said[1].startswith(LINES[0])
    assert len(said) == 2


def test_verbose_says_what_is_done_and_more(place):
    (place / "b.toml").write_text("steps = 4")
    said = run("-v")
    assert "metasynth.run: a: tiny, preset quick, seed 0" in said
    assert not [line for line in said if "checkpoint" in line]
    (place / "a").rename("b")
    more = run("-vv")
    assert set(said) - {line for line in said if line.startswith("tiny: ")} <= set(more)
    assert "metasynth.running.checkpoint: a/checkpoints/last.pt: written" in more


def test_verbose_changes_nothing_of_a_run(place):
    run("-vv")
    (place / "a").rename("b")
    run()
    for name in ("config.json", "metrics.jsonl", "table.csv"):
        assert (place / "a" / name).read_bytes() == (place / "b" / name).read_bytes()
    assert json.loads((place / "a/environment.json").read_text()).keys()


@pytest.mark.parametrize("verbose", [0, 1, 5])
def test_what_is_shown_and_that_it_ends(capsys, verbose):
    with messages_shown(verbose):
        logging.getLogger("metasynth.some.where").debug("one %d", 1)
        logging.getLogger("metasynth.some.where").info("two")
        logging.getLogger("metasynth.some.where").warning("three %s")
        logging.getLogger("metasynth.progress").info("four")
    logging.getLogger("metasynth.progress").warning("five")
    shown = ["metasynth.some.where: one 1", "metasynth.some.where: two", "three %s", "four"]
    assert capsys.readouterr().err.splitlines() == shown[2 - min(verbose, 2) :]
    test_a_logger_is_as_it_was()


def test_a_logger_is_as_it_was():
    assert [type(handler) for handler in logging.getLogger("metasynth").handlers] == [logging.NullHandler]
    assert {logging.getLogger(name).level for name in ("metasynth", "metasynth.progress")} == {logging.NOTSET}


def test_a_stream_that_is_named_gets_the_lines_instead(caplog):
    caplog.set_level(logging.DEBUG, "metasynth")
    stream = io.StringIO()
    Progress(stream=stream).say("a line")
    assert (stream.getvalue(), caplog.records) == ("a line\n", [])


def test_the_name_of_the_logger_is_one():
    assert progress.LOGGER.name == messages.PROGRESS == "metasynth.progress"


PRINTING = ("print", "click.echo", "tell", "warnings.warn")
BARS = """
import logging
from metasynth.cli.messages import messages_shown
from metasynth.running.progress import Progress
with messages_shown(0):
    shown = Progress()
    with shown.task("outer", 2) as task:
        task.advance()
        shown.say("a [b] line")
        logging.getLogger("metasynth.elsewhere").warning("a warning")
        task.advance()
    shown.say("after")
"""


def test_messages_stand_above_the_bars_of_a_terminal():
    reader, writer = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", BARS], stderr=writer, env={**os.environ, "TERM": "xterm"})
    assert process.wait(60) == 0
    os.close(writer)
    text = b""
    while chunk := _read(reader):
        text += chunk
    os.close(reader)
    lines = text.decode().replace("\r", "\n").splitlines()
    said = ["a [b] line", "a warning", "after"]
    assert [
        end for line in lines for end in said if re.fullmatch(rf"(\x1b\[\S+[a-zA-Z])*{re.escape(end)}", line)
    ] == said
    assert any("outer" in line and "2/2" in line for line in lines)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # what a terminal gives at its end
        return b""


def test_nothing_but_the_command_line_prints():
    """Results and errors are the command line's to print; all else is a message."""
    paths = [path for folder in ("metasynth", "experiments", "data_prep") for path in (ROOT / folder).rglob("*.py")]
    found = []
    for path in paths:
        if ROOT / "metasynth" / "cli" not in path.parents and path.name != "lines.py":
            nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) in PRINTING]
            found += [ast.unparse(call) for call in calls]
    assert found == ["tell(text, self._stream)"]  # of `Progress`, where its caller names a stream
