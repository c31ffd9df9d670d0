"""What docs/command-line.md shows works as it is written."""

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from metasynth.cli.main import main
from metasynth.cli.options import Renamed
from metasynth.running.settings.config_file import read_config_file
from metasynth.running.study import load_experiment

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


def test_the_commands_can_be_parsed():
    lines = [shlex.split(line, comments=True) for block in blocks("") for line in block.splitlines()]
    assert len(lines) == 4
    for _, name, *words in lines:
        command = main.commands[name]
        command.make_context(name, words, parent=click.Context(main, **main.context_settings))


def test_settings_are_shown_as_they_are_printed():
    (shown,) = blocks("text")
    assert shown in CliRunner().invoke(main, ["settings", "noise"]).stdout


def test_the_file_can_be_read(tmp_path):
    path = tmp_path / "fast.toml"
    (text,) = blocks("toml")
    path.write_text(text)
    start = load_experiment("noise").presets["quick"]
    given = ("sigma=0.05,0.025:0.2", "outer.lr=0.03", "segmenter.steps=600", "segmenter.widths=8,16,32")
    assert read_config_file(path, "noise", start) == given
    assert len(tomllib.loads(text)) == 3


def test_the_program_can_be_run():
    (program,) = blocks("python")
    compile(program, "docs/command-line.md", "exec")
    assert '"metasynth.progress"' in program


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_line(shell):
    (line,) = blocks(shell)
    assert f"_METASYNTH_COMPLETE={shell}_source metasynth" in line


def test_the_table_of_other_names_is_whole():
    prep = main.commands["prep"]
    assert isinstance(prep, click.Group)
    commands = [main.commands["run"], main.commands["predict"], *prep.commands.values()]
    renamed = {(p.old, p.opts[0]) for command in commands for p in command.params if isinstance(p, Renamed)}
    rows = [line.split("|")[2:4] for line in PAGE.splitlines() if line.startswith("| `")]
    told = ([re.findall(r"`(--[a-z0-9-]+)", cell) for cell in row] for row in rows)
    assert {pair for was, now in told for pair in zip(was, now, strict=True)} == renamed
