"""Runs that were interrupted, are changed as by an editor, and have to be refused."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.tiny_noise import arguments

from metasynth.cli.main import main
from metasynth.training.trainers import Supervised

SEALED = {"config.json", "environment.json", "split.json"}
LEARN, NAIVE = "checkpoints/sigma=0.1-learn/final.pt", "checkpoints/sigma=0.1-naive/latest.pt"


def invoke(command):
    return CliRunner().invoke(main, list(map(str, command)), catch_exceptions=False)


def resume(run):
    return invoke(["run", "noise", "--resume", "--out", run, "--quiet"])


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def stopped(run, cache, seed=3):
    """A run that has learned, and was interrupted while it trained the naive segmenter."""
    step = Supervised.step

    def interrupted(self, index, batch):
        if index == 8:
            raise KeyboardInterrupt
        return step(self, index, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Supervised, "step", interrupted)
        assert invoke(arguments(run, cache, seed=seed)).exit_code == 130
    assert {LEARN, NAIVE} <= content(run).keys()
    return run


def refused(run, command=None) -> str:
    """The one line that the run is refused with; no file is touched."""
    before = content(run)
    done = invoke(command) if command else resume(run)
    assert done.exit_code in (1, 2), done.output
    told = ("Run folder: ", f"{run}: the run has finished")
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith(told)]
    assert line.startswith("Error: ")
    assert content(run) == before
    return line.removeprefix("Error: ")


def edit(name, *keys, to):
    """Change one value of a JSON file, as an editor would."""

    def change(run):
        value = json.loads((run / name).read_text())
        inner = value
        for key in keys[:-1]:
            inner = inner[key]
        assert inner[keys[-1]] != to
        inner[keys[-1]] = to
        (run / name).write_text(json.dumps(value, indent=2))

    return change


def write(name, text):
    return lambda run: (run / name).write_text(text)


EDITED = "was changed since the run wrote it (it does not have the digest of its content)"


def change_a_digit(run):
    metrics = bytearray((run / "metrics.jsonl").read_bytes())
    at = metrics.index(b'"sigma":0.') + len(b'"sigma":0.')
    metrics[at] = ord("5") if metrics[at] != ord("5") else ord("6")
    (run / "metrics.jsonl").write_bytes(metrics)


def cut(lines):
    def change(run):
        whole = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        (run / "metrics.jsonl").write_bytes(b"".join(whole[:-lines]))

    return change
