"""What one hypergradient costs: time and memory of a bilevel step, relative to a plain training step.

The same U-Net and batch for every row. Times are medians of interleaved repeats in one process; peak memory is that of
a process of its own for each row, above what it held before the first step.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import higher
import torch
from torch import Tensor, nn

from metasynth.augment.noise import GaussianNoise
from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.mixed import Mixed
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.unrolled import Unrolled
from metasynth.segment.losses import soft_dice_loss
from metasynth.segment.unet import UNet

CLASSES = 5
PLAIN = "plain training step"
WARM_UP = 2

Batch = tuple[Tensor, Tensor, Tensor]
"""images (B, 1, H, W), labels (B, H, W), draws (B, 1, H, W)."""

Step = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One line of the table; the ratio is to the plain training step."""

    name: str
    seconds: float
    ratio: float
    peak_mib: float


def inner_loss(model: nn.Module, outer: nn.Module, batch: Batch) -> Tensor:
    """Loss on augmented images."""
    images, labels, draws = batch
    return soft_dice_loss(model(outer(images, draws)), labels)


def outer_loss(model: nn.Module, outer: nn.Module, batch: Batch) -> Tensor:
    """Loss on images as they are."""
    images, labels, _ = batch
    return soft_dice_loss(model(images), labels)


@dataclass
class Case:
    """A fresh model, augmenter, optimisers and two batches."""

    size: int
    batch: int
    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.model = UNet(CLASSES, widths=self.widths, generator=generator)
        self.outer = GaussianNoise(0.1)
        self.inner_optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.outer_optimizer = torch.optim.Adam(self.outer.parameters(), lr=1e-3)
        self.synthetic, self.real = (self._draw(generator) for _ in range(2))

    def _draw(self, generator: torch.Generator) -> Batch:
        shape = (self.batch, 1, self.size, self.size)
        labels = torch.randint(CLASSES, (self.batch, self.size, self.size), generator=generator)
        return torch.rand(shape, generator=generator), labels, torch.randn(shape, generator=generator)

    def plain(self) -> Step:
        """Forward, backward and Adam on the inner loss."""

        def step() -> None:
            self.inner_optimizer.zero_grad()
            inner_loss(self.model, self.outer, self.synthetic).backward()
            self.inner_optimizer.step()

        return step

    def solver(self, strategy: HypergradientStrategy) -> Step:
        """A whole committed step of `BilevelSolver`."""
        problem = BilevelProblem(inner_loss, outer_loss)
        solver = BilevelSolver(
            problem, self.model, self.inner_optimizer, self.outer, self.outer_optimizer, strategy, check=False
        )
        return lambda: solver.step([self.synthetic], self.real)

    def higher_directly(self) -> Step:
        """The same hypergradient as a user of `higher` writes it; weights are copied back, moments are lost."""

        def step() -> None:
            with higher.innerloop_ctx(self.model, self.inner_optimizer) as (patched, optimizer):
                optimizer.step(inner_loss(patched, self.outer, self.synthetic))
                loss = outer_loss(patched, self.outer, self.real)
                self.outer_optimizer.zero_grad()
                for p, g in zip(
                    self.outer.parameters(), torch.autograd.grad(loss, [*self.outer.parameters()]), strict=True
                ):
                    p.grad = g
                self.outer_optimizer.step()
                with torch.no_grad():
                    for p, fast in zip(self.model.parameters(), patched.parameters(), strict=True):
                        p.copy_(fast)

        return step


ROWS: dict[str, Callable[[Case], Step]] = {
    PLAIN: lambda case: case.plain(),
    "Mixed": lambda case: case.solver(Mixed()),
    "Unrolled(1)": lambda case: case.solver(Unrolled(1)),
    "higher used directly": lambda case: case.higher_directly(),
}


def median_seconds(case: tuple[int, int, tuple[int, ...]], repeats: int) -> dict[str, float]:
    """Interleaved, so that what else the machine does falls on all rows alike."""
    steps = {name: make(Case(*case)) for name, make in ROWS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(WARM_UP + repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if repeat >= WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_mib(case: tuple[int, int, tuple[int, ...]], name: str) -> float:
    """Peak resident memory of three steps, above what was held before them, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure_peak, (case, name, torch.get_num_threads()))


def _measure_peak(case: tuple[int, int, tuple[int, ...]], name: str, threads: int) -> float:
    torch.set_num_threads(threads)
    step = ROWS[name](Case(*case))
    before = _peak_bytes()
    for _ in range(3):
        step()
    return (_peak_bytes() - before) / 2**20


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=96, help="voxels per side of the square images")
    parser.add_argument("--batch", type=int, default=16, help="images per batch")
    parser.add_argument("--widths", default="16-32-64-128", help="channels of each level of the U-Net")
    parser.add_argument("--repeats", type=int, default=7, help="timed steps of each row")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--json", metavar="FILE", help="also write the rows to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    case = (options.size, options.batch, tuple(int(width) for width in options.widths.split("-")))

    # Memory first: on Linux a process inherits the peak of the one that started it, still low here.
    peaks = {name: peak_mib(case, name) for name in ROWS}
    seconds = median_seconds(case, options.repeats)
    rows = [Row(name, value, value / seconds[PLAIN], peaks[name]) for name, value in seconds.items()]
    print(f"{'':24}{'seconds':>9}{'ratio':>8}{'peak MiB':>10}")
    for row in rows:
        print(f"{row.name:24}{row.seconds:9.3f}{row.ratio:8.2f}{row.peak_mib:10.0f}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump([asdict(row) for row in rows], file, indent=2)


if __name__ == "__main__":
    main()
