"""What the README shows works as it is written."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from metasynth.cli.main import main
from metasynth.running.settings.config import apply_overrides
from metasynth.running.study import load_experiment

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_the_program_for_an_own_augmenter_finds_the_gain() -> None:
    program = next(block for block in blocks("python") if "BilevelSolver" in block)
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    learned = float(re.search(r"learned gain ([\d.]+)", done.stdout).group(1))
    assert learned == pytest.approx(0.5, abs=0.1)  # it starts at 1


def test_the_cache_of_own_arrays_can_be_inspected_and_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(next(block for block in blocks("python") if "write_cache" in block), "README", "exec"), {})
    inspected = CliRunner().invoke(main, ["inspect", "mine.h5"])
    assert inspected.exit_code == 0
    assert "core" in inspected.output
    small = ["segmenter.steps=6", "outer.warmup=2", "segmenter.widths=4,8", "pace.workers=0"]
    options = [part for setting in small for part in ("--set", setting)]
    ran = CliRunner().invoke(main, ["run", "noise", "--data", "mine.h5", "--out", "run", *options])
    assert ran.exit_code == 0, ran.output
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_commands_name_existing_commands_options_and_settings() -> None:
    block = next(block for block in blocks("") if "metasynth list" in block)
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert len(commands) == 10
    for program, name, *arguments in commands:
        assert program == "metasynth"
        command = main.commands[name]
        context = main.make_context("metasynth", [name])
        parsed = command if not hasattr(command, "commands") else command.commands[arguments.pop(0)]
        values = parsed.make_context(name, list(arguments), parent=context).params
        if values.get("overrides"):
            preset = load_experiment("noise").presets[values["preset"]]
            assert apply_overrides(preset, values["overrides"]) != preset


def test_the_pictures_exist() -> None:
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README.read_text())
    assert pictures
    assert all((README.parent / picture).is_file() for picture in pictures)
