"""The page of a run or a grid: one file with its tables, figures, settings and surroundings, which fetches nothing."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from metasynth.files import place_inside
from metasynth.report.style import png
from metasynth.report.tables import Table, escaped


class Reported(Protocol):
    """The folder of finished work: a `metasynth.running.records.RunFolder`, or that of a grid of runs."""

    path: Path

    @property
    def results(self) -> dict[str, Any]:
        """``rows`` and what they come from."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for, with dotted keys."""

    @property
    def environment(self) -> dict[str, Any]:
        """What it ran on, with ``started`` (seconds since 1970) and ``resumed``, one entry a time."""

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write one whole file, atomically."""


@dataclass(frozen=True)
class ReportFigure:
    """A figure with the name of its file (no ending) and a caption."""

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class ReportContent:
    """What a study has to say about a finished run, or a grid of runs.

    Attributes
    ----------
    title : str
        The question or the finding.
    summary : sequence of str
        Paragraphs of plain text: what was done, what came out, what it does not show.
    tables : sequence of Table
        For people; ``table.csv`` holds every row of the results whatever they show.
    figures : sequence of ReportFigure
        In order.
    """

    title: str
    summary: Sequence[str]
    tables: Sequence[Table]
    figures: Sequence[ReportFigure]


def write_report(folder: Reported, content: ReportContent) -> Path:
    """Write table.csv, table.md, figures/*.png and report.html, each atomically; return the page's place.

    Raises
    ------
    UsageError
        The run has not finished.
    DataError
        The name of a figure leads out of the folder.
    RunError
        A file could not be written.
    """
    results = folder.results
    for figure in content.figures:
        place_inside(folder.path, f"figures/{figure.name}.png")
    every_row = Table.from_records("Every row of the results.", results["rows"])
    folder.write_bytes("table.csv", _encoded(every_row.csv()))
    folder.write_bytes("table.md", _encoded(_markdown(content.tables)))
    images = {figure.name: png(figure.figure) for figure in content.figures}
    for name, image in images.items():
        folder.write_bytes(f"figures/{name}.png", image)
    return folder.write_bytes("report.html", _encoded(_page(folder, results, content, images)))


def _encoded(text: str) -> bytes:
    """UTF-8; bytes of a file's name that are none as escapes."""
    return text.encode(errors="backslashreplace")


def _markdown(tables: Sequence[Table]) -> str:
    return "\n".join(f"{escaped(table.caption)}\n\n{table.markdown()}" for table in tables)


def _page(folder: Reported, results: dict[str, Any], content: ReportContent, images: dict[str, bytes]) -> str:
    source = files("metasynth.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(source)
    figures = [
        {"caption": figure.caption, "data": base64.b64encode(images[figure.name]).decode("ascii")}
        for figure in content.figures
    ]
    return template.render(
        content=content,
        tables=[(table, table.numeric(), table.cells()) for table in content.tables],
        figures=figures,
        what=f"{folder.path.resolve().name}: {', '.join(_facts(results))}",
        settings=folder.settings,
        environment=_readable(folder.environment),
    )


def _facts(results: dict[str, Any]) -> list[str]:
    """What was run, for the line under the title; a grid has several seeds and no device of its own."""
    facts = [f"experiment {results['experiment']}", f"preset {results['preset']}"]
    if "seed" in results:
        facts += [f"seed {results['seed']}", results["device"]]
    else:
        facts += [f"seeds {', '.join(map(str, results['seeds']))}"]
    return [*facts, f"{results['wall_s'] / 60:.1f} minutes"]


def _readable(environment: dict[str, Any]) -> dict[str, Any]:
    """The surroundings with the times in words; how often the run was resumed instead of each time."""
    shown = {key: value for key, value in environment.items() if key not in ("started", "resumed")}
    started = datetime.fromtimestamp(environment["started"], UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {**shown, "started": started, "resumed": f"{len(environment['resumed'])} times"}
