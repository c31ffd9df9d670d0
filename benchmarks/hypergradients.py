"""What one hypergradient costs: time and memory of a bilevel step, relative to a plain training step.

The same U-Net, loss and batches for every row. Times are medians of interleaved repeats in one process; peak memory is
that of a process of its own for each row, above what it held before the first step. Ratios are to the plain training
step in torch's own layout; "own" is the ratio to the plain step in the same layout. A row that takes a hypergradient at
every n-th step is timed over n steps, and given per step.

    python benchmarks/hypergradients.py [--sizes 96,192] [--repeats 7] [--threads 2] [--json FILE]
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from common.bilevel_steps import LAST, PLAIN, Size, methods

from metasynth.running.device import keep_freed_memory

WARM_UP = 1


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    size: int
    seconds: float
    ratio: float
    ratio_own_layout: float
    peak_mib: float
    peak_ratio: float


def median_seconds(shared: Size, names: Sequence[str], repeats: int) -> dict[str, float]:
    """Per training step; interleaved, so that what else the machine does falls on all rows alike."""
    chosen = {name: method for name, method in methods(shared.batch).items() if name in names}
    steps = {name: method.step(shared) for name, method in chosen.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(WARM_UP + repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if repeat >= WARM_UP:
                seconds[name].append((time.perf_counter() - start) / chosen[name].every)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_mib(shared: Size, name: str) -> float:
    """Peak resident memory of two calls, above what was held before them, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure_peak, (shared, name, torch.get_num_threads()))


def _measure_peak(shared: Size, name: str, threads: int) -> float:
    torch.set_num_threads(threads)
    keep_freed_memory()
    step = methods(shared.batch)[name].step(shared)
    before = _peak_bytes()
    for _ in range(2):
        step()
    return (_peak_bytes() - before) / 2**20


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def rows_of(shared: Size, names: Sequence[str], peaks: dict[str, float], repeats: int) -> list[Row]:
    """One row a method."""
    seconds = median_seconds(shared, names, repeats)
    return [
        Row(
            name=name,
            size=shared.size,
            seconds=value,
            ratio=value / seconds[PLAIN],
            ratio_own_layout=value / seconds[PLAIN + (LAST if name.endswith(LAST) else "")],
            peak_mib=peaks[name],
            peak_ratio=peaks[name] / peaks[PLAIN],
        )
        for name, value in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="96", help="voxels per side of the square images, one or several")
    parser.add_argument("--batch", type=int, default=16, help="images per batch")
    parser.add_argument("--widths", default="16-32-64-128", help="channels of each level of the U-Net")
    parser.add_argument("--rows", default="", help="only rows whose names begin so, separated by commas")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls of each row")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--json", metavar="FILE", help="also write the rows to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    if not keep_freed_memory():
        print("memory is given back to the system after every step: times are longer and less even")
    widths = tuple(int(width) for width in options.widths.split("-"))

    sizes = [Size(int(text), options.batch, widths) for text in options.sizes.split(",")]
    wanted = tuple(filter(None, options.rows.split(",")))
    names = [name for name in methods(options.batch) if name.startswith((PLAIN, *(wanted or [""])))]
    # Memory first: on Linux a process inherits the peak of the one that started it, still low here.
    peaks = [{name: peak_mib(shared, name) for name in names} for shared in sizes]
    rows = []
    for shared, its_peaks in zip(sizes, peaks, strict=True):
        found = rows_of(shared, names, its_peaks, options.repeats)
        size = shared.size
        print(f"{size}x{size}, batch {options.batch}, widths {options.widths}, threads {options.threads}")
        print(f"{'':34}{'seconds':>9}{'ratio':>8}{'own':>8}{'peak MiB':>10}{'ratio':>8}")
        for row in found:
            print(
                f"{row.name:34}{row.seconds:9.3f}{row.ratio:8.2f}{row.ratio_own_layout:8.2f}"
                f"{row.peak_mib:10.0f}{row.peak_ratio:8.2f}"
            )
        if "TorchOpt MetaAdam" not in methods(options.batch):
            print("TorchOpt is not installed: its row is left out (pip install 'metasynth-toolkit[peers]')")
        print(flush=True)
        rows += found
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump([asdict(row) for row in rows], file, indent=2)


if __name__ == "__main__":
    main()
