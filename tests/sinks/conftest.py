"""A run as the sinks see it: its folder, and records that come."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from metasynth.running.jsonlines import JsonLines
from metasynth.sinks import SinkEntry, feed

SETTINGS = {"experiment": "noise", "preset": "quick", "config.outer.lr": 0.1}


class Run:
    """A folder of a run whose records are written and fed."""

    def __init__(self, path: Path) -> None:
        self.path, self.metrics = path, path / "metrics.jsonl"
        self.said: list[str] = []
        path.mkdir()

    @contextmanager
    def session(self, *entries: SinkEntry, end: int | None = None) -> Iterator[tuple[JsonLines, feed.Feed]]:
        """The records, open, and what feeds the sinks from them."""
        with (
            closing(JsonLines(self.metrics, end)) as lines,
            feed.feeding(self.path, self.metrics, SETTINGS, entries, self.said.append) as fed,
        ):
            lines.told = fed.look
            yield lines, fed

    def finish(self, fed: feed.Feed, images: dict[str, Path] | None = None) -> None:
        fed.finish(self.metrics.stat().st_size, images or {})


def append(lines: JsonLines, *numbers: int) -> None:
    for number in numbers:
        lines.append({"stage": "s=0.1/learn", "step": number, "loss": 1 / number})


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(feed, "SECONDS_BETWEEN", 0.0)
    return Run(tmp_path / "run")


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[[str], dict[str, Path]]:
    """Of a report: a picture by the name 'sigma', of a colour."""
    from matplotlib.figure import Figure

    def draw(color: str) -> dict[str, Path]:
        figure = Figure(figsize=(0.2, 0.1), facecolor=color)
        figure.savefig(tmp_path / "sigma.png", dpi=100)
        return {"sigma": tmp_path / "sigma.png"}

    return draw


def points(numbers: list[int]) -> list[tuple[int, float]]:
    """(step, loss) of the records that `append` writes, as they read back."""
    return [(number, json.loads(json.dumps(1 / number))) for number in numbers]
