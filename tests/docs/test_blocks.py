"""Every command and program of the documentation is carried out, or is named here with the reason why not."""

import argparse
import re
import runpy
import shutil
import sys
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from docs.blocks import NAMES, ROOT, Block, blocks, commands
from docs.small import options, runs_of_grid, small_run, without
from docs.stock import metasynth

from metasynth.cli.main import main
from metasynth.running.settings.config import apply_overrides
from metasynth.running.study import load_experiment

CARRIED_OUT = {"sh", "python", "toml"}
SHOWN = {
    "text": "what a command prints, in part",
    "bash": "a line for the file that a shell begins with",
    "zsh": "the same of another shell",
    "fish": "the same of a third",
    "csv": "lines of a user's table",
    "snakemake": "tests/cluster/test_snakemake.py carries it out",
    "ini": "a part of another package's setup.cfg",
}
"""Languages of blocks that are only shown, with the reason."""


class _Parsed(Exception):
    """A script has taken its arguments."""


def takes_arguments(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The script is there and takes the arguments."""
    if len(words) == 2:
        assert (ROOT / words[1]).is_file(), words
        return
    parse = argparse.ArgumentParser.parse_args

    def only_parse(parser: argparse.ArgumentParser, *given: object, **named: object) -> None:
        parse(parser)
        raise _Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
        patch.setattr(sys, "argv", words[1:])
        patch.syspath_prepend(str((ROOT / words[1]).parent))  # as for a script that is run
        with pytest.raises(_Parsed):
            runpy.run_path(str(ROOT / words[1]), run_name="__main__")


def is_target(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words


def is_test(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert (ROOT / words[1]).is_file(), words


def is_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line takes the words."""
    command, given = main, words[1:]
    while hasattr(command, "commands"):
        command = command.commands[given[0]]
        given = given[1:]
    command.make_context(words[1], list(given))


def is_known(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this package to look at."""


Check = Callable[[list[str], pytest.MonkeyPatch], None]
NOT_RUN: dict[tuple[str, ...], tuple[str, Check]] = {
    ("python",): ("a measurement takes minutes to hours, and an example has its test", takes_arguments),
    ("pytest",): ("it is a test itself", is_test),
    ("make",): ("it makes an environment, or runs everything", is_target),
    ("torchrun",): ("tests/bilevel/test_processes_torchrun.py starts it", is_known),
    ("pip",): ("tests install nothing", is_known),
    ("tensorboard",): ("it serves pages until it is stopped", is_known),
    ("export",): ("there is no server", is_known),
    ("metasynth", "prep", "template"): ("tests/data_prep/test_cohort.py makes cohorts, in minutes", is_command),
}


def rule(words: list[str]) -> tuple[str, Check] | None:
    return next((NOT_RUN[head] for head in NOT_RUN if tuple(words[: len(head)]) == head), None)


def carry_out(words: list[str]) -> str:
    """A command as it is, but for the settings that make a run small; of a grid every run's settings are tried."""
    if words[1] == "prep":
        # What is there is of the stock; to align takes seconds a subject, and has tests of its own. So has the picture,
        # which takes most of the time else; those of the stock have one.
        plain = ["--no-montage"] if words[2] in ("bids", "labels", "nifti") else []
        return metasynth(*without(words[1:], "--align"), *plain, "--overwrite")
    if words[1] != "run":
        return metasynth(*words[1:])
    if any(find_spec(name) is None for name in options(words, "--log")):
        words = without(words, "--log")  # tests/sinks has each of them, where its package is installed
    words = without(
        words, "--start"
    )  # of another network than small runs have; tests/experiments/test_starts.py has it
    if "--launcher" in words:  # to jobs that take longer; tests/test_cli_launcher.py has some
        words = without(words, "--launcher", "--launcher-set")
    if "--print-commands" in words:
        words = words[: words.index("--print-commands")]
    if "--resume" not in words:
        experiment = load_experiment(words[2])
        preset = experiment.presets[(options(words, "--preset") or ["quick"])[0]]
        for overrides in runs_of_grid(words):
            apply_overrides(preset, overrides)
        if given := options(words, "--set"):
            assert apply_overrides(preset, given) != preset, words
        out = Path(options(words, "--out")[0])
        shutil.rmtree(out, ignore_errors=True)  # of the stock
        return metasynth(*small_run(words)[1:])
    return metasynth(*words[1:], "--device", "cpu", "--threads", "1", "--quiet")


def save(block: Block) -> None:
    """The file that a reader makes of a block; of a project, what an installation of it adds."""
    Path(str(block.saved)).write_text(block.text, encoding="utf-8")
    if block.saved == "pyproject.toml":
        project = tomllib.loads(block.text)["project"]
        installed = Path(f"{project['name']}-{project['version']}.dist-info")
        installed.mkdir()
        (installed / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
        groups = ((name, points) for name, points in project["entry-points"].items())
        lines = [f"[{name}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for name, points in groups]
        (installed / "entry_points.txt").write_text("\n".join(lines))


def execute(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.saved:
        save(block)
    elif block.shown:
        assert (ROOT / block.shown).is_file(), block.place
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "python":
        exec(compile("\n" * block.line + block.text, block.page, "exec"), {"__name__": "__main__"})
    elif block.language == "sh":
        for words in block.commands:
            if not_run := rule(words):
                not_run[1](words, monkeypatch)
            else:
                assert words[0] == "metasynth", f"{block.place}: a rule for {words[0]!r} is missing"
                print(carry_out(words))


@pytest.mark.parametrize("page", [name for name in NAMES if blocks(name)])
def test_a_page_can_be_followed(
    page: str, stocked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for block in blocks(page):
        execute(block, monkeypatch)
    said = capsys.readouterr().out
    assert all((stocked / name).is_file() for name in MADE.get(page, ()))
    for phrase, value, within in SAID.get(page, ()):
        found = re.search(re.escape(phrase) + r" ([\d.]+)", said)
        assert found, f"{page}: nothing printed {phrase!r}"
        assert float(found[1]) == pytest.approx(value, abs=within), page


MADE = {
    "docs/guides/your-data.md": ["runs/squares/report.html", "look.png"],
    "docs/guides/predict.md": ["labels/s1.nii.gz", "volumes.csv", "scores.csv", "some.csv", "bids.h5"],
}
"""Files that there are in the end."""

SAID = {
    "README.md": [("learned gain", 0.5, 0.1)],  # it starts at 1
    "docs/guides/own-augmenter.md": [("learned width", 2.0, 0.3)],  # it starts at 0.5
    "docs/guides/other-problems.md": [
        ("labels told right from wrong:", 0.9, 0.06),
        ("learning rate", 0.3, 0.1),
        ("own / exact", 1.0, 1e-4),
    ],
}
"""What the programs of a page print: a phrase, the number after it, and how far it may be off."""


def test_every_block_says_what_it_is() -> None:
    others = {block.place: block.language for page in NAMES for block in blocks(page)}
    assert {place: language for place, language in others.items() if language not in CARRIED_OUT | SHOWN.keys()} == {}


def test_every_rule_is_used_by_a_command() -> None:
    used = {head for head in NOT_RUN for _, words in commands() if tuple(words[: len(head)]) == head}
    assert used == set(NOT_RUN)
