"""Five bilevel problems, solved with higher, TorchOpt, Betty, learn2learn and this core: one table.

Every library solves every problem as its users would write it, by exact derivatives, from the same data and weights
(`problems/`, `libraries/`), each in a process of its own, with one thread. The columns:

- the error of the hypergradient at the third outer step, relative to central differences in float64,
- the time of the processor for an outer step in float32, the median of repeats in turn with the other libraries,
- the peak of memory in the first two steps, above what was held before them,
- how much more memory is held after many steps,
- lines of user code, without blank ones, comments and docstrings.

`make peers` makes an environment for it, and runs it there, with the options in PEERS_SETTINGS:

    python -m benchmarks.peers [--problems ridge,noise] [--repeats 25] [--steps 1000] [--out peers]

What is not installed or cannot be expressed is told below the table. --out writes NAME.json and NAME.md.
"""

import argparse
import json
import multiprocessing
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.peers import problems
from benchmarks.peers.environment import refusals
from benchmarks.peers.libraries import LIBRARIES, OURS, Library
from benchmarks.peers.measure import Worker, differences_of
from benchmarks.peers.table import Row, markdown

FIRST = 3
"""Steps of each library that are not timed."""


def version(distribution: str) -> str | None:
    """Of what is installed; None: it is not."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def compare(problem: str, libraries: Sequence[Library], repeats: int, steps: int, tiny: bool = False) -> list[Row]:
    """A row for each library."""
    context = multiprocessing.get_context("spawn")
    rows = {library: Row(problem, library.name, steps=steps) for library in libraries}
    workers = {library: Worker(context, library, problem, tiny) for library in libraries}

    def side_by_side(name: str, *arguments: Any) -> list[Any]:
        for worker in workers.values():
            worker.ask(name, *arguments)
        return [worker.answer() for worker in workers.values()]

    def in_turn(name: str) -> list[Any]:
        answers = []
        for worker in workers.values():
            worker.ask(name)
            answers.append(worker.answer())
        return answers

    lines, peaks = side_by_side("lines"), side_by_side("peak")
    seconds = list(zip(*(in_turn("seconds") for _ in range(FIRST + repeats)), strict=True))
    growths, errors = side_by_side("growth", steps), side_by_side("error", differences_of(problem, tiny))
    for worker, row, *found, repeated in zip(
        workers.values(), rows.values(), lines, peaks, growths, errors, seconds, strict=True
    ):
        row.lines, row.peak_mib, row.growth_mib, row.error = found
        row.seconds = None if None in repeated else statistics.median(repeated[FIRST:])
        row.reason = worker.reason
        worker.close()
    return list(rows.values())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", default=",".join(problems.NAMES), help="some of them, separated by commas")
    parser.add_argument("--repeats", type=int, default=25, help="timed steps of each library")
    parser.add_argument("--steps", type=int, default=1000, help="steps after which memory is looked at again")
    parser.add_argument("--out", metavar="NAME", help="also write the rows and the table to files of this name")
    options = parser.parse_args(arguments)
    names = options.problems.split(",")
    if unknown := [name for name in names if name not in problems.NAMES]:
        parser.error(f"--problems: expected some of {','.join(problems.NAMES)}, got {','.join(unknown)}")
    for name in ("repeats", "steps"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: expected at least 1, got {getattr(options, name)}")
    rows: list[Row] = []
    for name in names:
        found = compare(name, LIBRARIES, options.repeats, options.steps)
        print(f"{problems.load(name).QUESTION}\n\n{markdown(found, OURS.name)}\n", flush=True)
        rows += found
    versions = {library.name: version(library.distribution) for library in LIBRARIES}
    versions |= {"torch": version("torch"), "Python": platform.python_version()}
    told = {"versions": versions, "not installed": refusals()}
    print(json.dumps(told, indent=2))
    if options.out:
        text = json.dumps(told | {"rows": [asdict(row) for row in rows]}, indent=2)
        Path(f"{options.out}.json").write_text(text + "\n", encoding="utf-8")
        Path(f"{options.out}.md").write_text(markdown(rows, OURS.name) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
