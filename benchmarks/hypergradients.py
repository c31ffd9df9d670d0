"""What one hypergradient costs: time and memory of a bilevel step, relative to a plain training step.

The same U-Net, loss and batches for every row. Times are medians of interleaved repeats in one process; peak memory is
that of a process of its own for each row, above what it held before the first step. Ratios are to the plain training
step in torch's own layout; "own" is the ratio to the plain step in the same layout. A row that takes a hypergradient at
every n-th step is timed over n steps, and given per step.

    python benchmarks/hypergradients.py [--sizes 96,192] [--repeats 7] [--threads 2] [--json FILE]
"""

import argparse
import importlib.util
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import higher
import torch
from torch import Tensor, nn

from metasynth.augment import GaussianNoise
from metasynth.bilevel import (
    BilevelProblem,
    BilevelSolver,
    ConjugateGradient,
    FiniteDifference,
    Forward,
    HypergradientStrategy,
    Implicit,
    InParts,
    Mixed,
    Unrolled,
)
from metasynth.bilevel.batches import take_samples
from metasynth.running.device import keep_freed_memory
from metasynth.segment import UNet, soft_dice_loss

CLASSES = 5
LAST = ", channels-last"
PLAIN = "plain training step"
WARM_UP = 1

Batch = tuple[Tensor, Tensor, Tensor]
"""images (B, 1, H, W), labels (B, H, W), draws (B, 1, H, W)."""

Step = Callable[[], Any]


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


def inner_loss(model: nn.Module, outer: nn.Module, batch: Batch) -> Tensor:
    """Loss on augmented images, a mean over images."""
    images, labels, draws = batch
    return soft_dice_loss(model(outer(images, draws)), labels, batch=False)


def outer_loss(model: nn.Module, outer: nn.Module, batch: Batch) -> Tensor:
    """Loss on images as they are."""
    images, labels, _ = batch
    return soft_dice_loss(model(images), labels, batch=False)


@dataclass(frozen=True)
class Size:
    """What all rows share."""

    size: int
    batch: int
    widths: tuple[int, ...]


class Case:
    """A fresh model, augmenter, optimisers and two batches."""

    def __init__(self, shared: Size, channels_last: bool, checkpoint: bool = False) -> None:
        self.shared = shared
        generator = torch.Generator().manual_seed(0)
        self.model = UNet(CLASSES, widths=shared.widths, generator=generator, checkpoint=checkpoint)
        if channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.outer = GaussianNoise(0.1)
        self.inner_optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.outer_optimizer = torch.optim.Adam(self.outer.parameters(), lr=1e-3)
        self.synthetic, self.real = (self._draw(generator) for _ in range(2))

    def _draw(self, generator: torch.Generator) -> Batch:
        size, batch = self.shared.size, self.shared.batch
        shape = (batch, 1, size, size)
        labels = torch.randint(CLASSES, (batch, size, size), generator=generator)
        return torch.rand(shape, generator=generator), labels, torch.randn(shape, generator=generator)

    def plain(self) -> Step:
        """Forward, backward and Adam on the inner loss; the augmenter is not learned."""
        self.outer.requires_grad_(False)

        def step() -> None:
            self.inner_optimizer.zero_grad()
            inner_loss(self.model, self.outer, self.synthetic).backward()
            self.inner_optimizer.step()

        return step

    def solver(self, strategy: HypergradientStrategy, real: int = 1, every: int = 1) -> Step:
        """Whole committed steps of `BilevelSolver`, of which the last of ``every`` takes a hypergradient.

        ``real`` is the divisor of the real batch.
        """
        problem = BilevelProblem(inner_loss, outer_loss)
        solver = BilevelSolver(
            problem, self.model, self.inner_optimizer, self.outer, self.outer_optimizer, strategy, check=False
        )
        given = take_samples(self.real, torch.arange(self.shared.batch // real))

        def step() -> None:
            for _ in range(every - 1):
                solver.inner_step(self.synthetic)
            solver.step([self.synthetic], given)

        return step

    def higher_directly(self) -> Step:
        """The same hypergradient as a user of `higher` writes it; weights are copied back, moments are lost."""

        def step() -> None:
            with higher.innerloop_ctx(self.model, self.inner_optimizer) as (patched, optimizer):
                optimizer.step(inner_loss(patched, self.outer, self.synthetic))
                self._outer_step(outer_loss(patched, self.outer, self.real))
                with torch.no_grad():
                    for p, fast in zip(self.model.parameters(), patched.parameters(), strict=True):
                        p.copy_(fast)

        return step

    def torchopt(self) -> Step:
        """The same with TorchOpt's MetaAdam, which replaces the model's parameters by the results of its step."""
        import torchopt

        optimizer = torchopt.MetaAdam(self.model, lr=1e-3, eps_root=1e-8)

        def step() -> None:
            optimizer.step(inner_loss(self.model, self.outer, self.synthetic))
            self._outer_step(outer_loss(self.model, self.outer, self.real))
            torchopt.stop_gradient(self.model)
            torchopt.stop_gradient(optimizer)

        return step

    def _outer_step(self, loss: Tensor) -> None:
        parameters = list(self.outer.parameters())
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.grad = g
        self.outer_optimizer.step()


@dataclass(frozen=True)
class Method:
    """How a row is made from the shared size, and how many training steps a call of it takes."""

    make: Callable[[Case], Step]
    channels_last: bool = False
    checkpoint: bool = False
    every: int = 1


def _solver(strategy: HypergradientStrategy, **options: int) -> Callable[[Case], Step]:
    return lambda case: case.solver(strategy, **options)


def methods(batch: int) -> dict[str, Method]:
    """The rows, by name; the last ones only where their package is there."""
    differences = FiniteDifference()
    quarter = max(1, batch // 4)
    found = {
        PLAIN: Method(lambda case: case.plain()),
        "Mixed": Method(_solver(Mixed())),
        "Unrolled(1)": Method(_solver(Unrolled(1))),
        "Forward": Method(_solver(Forward())),
        "FiniteDifference": Method(_solver(differences)),
        "Implicit, 2 products": Method(_solver(Implicit(ConjugateGradient(2, tolerance=1e-12)))),
        "higher used directly": Method(lambda case: case.higher_directly()),
    }
    if importlib.util.find_spec("torchopt") is not None:
        found["TorchOpt MetaAdam"] = Method(lambda case: case.torchopt())
    economical = InParts(differences, samples=quarter)
    low = InParts(differences, chunk=quarter)
    return found | {
        "economical": Method(_solver(economical, real=4, every=2), every=2),
        "low memory": Method(_solver(low)),
        "low memory, checkpointed": Method(_solver(low), checkpoint=True),
        PLAIN + LAST: Method(lambda case: case.plain(), channels_last=True),
        "Mixed" + LAST: Method(_solver(Mixed()), channels_last=True),
        "FiniteDifference" + LAST: Method(_solver(differences), channels_last=True),
        "economical" + LAST: Method(_solver(economical, real=4, every=2), channels_last=True, every=2),
        "low memory" + LAST: Method(_solver(low), channels_last=True),
    }


def median_seconds(shared: Size, names: Sequence[str], repeats: int) -> dict[str, float]:
    """Per training step; interleaved, so that what else the machine does falls on all rows alike."""
    chosen = {name: method for name, method in methods(shared.batch).items() if name in names}
    steps = {name: m.make(Case(shared, m.channels_last, m.checkpoint)) for name, m in chosen.items()}
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
    method = methods(shared.batch)[name]
    step = method.make(Case(shared, method.channels_last, method.checkpoint))
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
