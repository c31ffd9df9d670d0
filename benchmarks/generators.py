"""What synthetic images cost: the batched generator beside cornucopia, on one thread.

The same label maps, batch and configuration for both. Times are medians of interleaved repeats in one process, so that
what else the machine does falls on all rows alike.
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from metasynth.data import Cache
from metasynth.synthesis import PAPER, BatchedGenerator, CornucopiaConfig, CornucopiaGenerator, SeededGenerator

FULL = CornucopiaConfig(order=3, bias=7, resolution=8, snr=10)
"""Cornucopia's own defaults: every step."""


@dataclass(frozen=True)
class Row:
    """One line of the table; the ratio is cornucopia's time to this row's."""

    name: str
    seconds: float
    ratio: float
    images_per_s: float


def patchwork(batch: int, size: int, classes: int) -> Tensor:
    """Label maps (B, H, W) of random patches in an ellipse; each class lies scattered over most of it."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    inside = (x / 0.7) ** 2 + (y / 0.85) ** 2 < 1
    fields = gaussian_filter(rng.standard_normal((batch, classes - 1, size, size)), (0, 0, size / 20, size / 20))
    return torch.from_numpy(np.where(inside, 1 + fields.argmax(1), 0))


def measured(cases: dict[str, tuple[SeededGenerator, Tensor]], repeats: int) -> dict[str, float]:
    """Median seconds per call of each case, after one call to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(1 + repeats):
        for name, (make, labels) in cases.items():
            generator = torch.Generator().manual_seed(repeat)
            start = time.perf_counter()
            make(labels, generator)
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--data", type=Path, help="take the label maps of this cache instead of random patches")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    if arguments.data:
        with Cache(arguments.data) as cache:
            # Slices from all over the cache: at its start may be the edge of a head.
            chosen = np.linspace(0, cache.n - 1, arguments.batch).astype(int)
            classes, labels = cache.n_classes, torch.from_numpy(cache.read_labels(chosen).astype(np.int64))
        settings = [(f"{arguments.data.name}, paper", PAPER, classes, labels)]
    else:
        settings = [
            (
                f"{classes - 1} labels, {size}x{size}, {title}",
                config,
                classes,
                patchwork(arguments.batch, size, classes),
            )
            for title, config, size, classes in (
                ("paper", PAPER, 192, 5),
                ("paper", PAPER, 192, 21),
                ("paper", PAPER, 64, 5),
                ("every step", FULL, 192, 5),
            )
        ]
    cases: dict[str, tuple[SeededGenerator, Tensor]] = {}
    for name, config, classes, labels in settings:
        cases[f"{name}: cornucopia"] = (CornucopiaGenerator(classes, config), labels)
        cases[f"{name}: batched"] = (BatchedGenerator(classes, config), labels)
    seconds = measured(cases, arguments.repeats)
    rows = []
    for name, _, _, labels in settings:
        peer = seconds[f"{name}: cornucopia"]
        for kind in ("cornucopia", "batched"):
            own = seconds[f"{name}: {kind}"]
            rows.append(Row(f"{name}: {kind}", own, peer / own, len(labels) / own))
    print(f"{'':48} {'s per batch':>11} {'faster':>7} {'images/s':>9}")
    for row in rows:
        print(f"{row.name:48} {row.seconds:11.3f} {row.ratio:6.1f}x {row.images_per_s:9.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
