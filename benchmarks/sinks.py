"""What loggers cost a training step: in the process that trains, and in the process beside it.

A U-Net takes plain steps, the cheapest of all studies, and each is recorded as a bilevel step is, with seven numbers.
Steps, records and the process beside are given in CPU time, which other work on the machine does not change. A step
waits for a record's. For that of the process beside it waits not at all where a core is free, and at worst for all.

    python benchmarks/sinks.py [--sinks tensorboard,mlflow,wandb] [--size 96] [--batch 16] [--steps 150] [--json FILE]
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from metasynth.running.jsonlines import JsonLines
from metasynth.segment import UNet, soft_dice_loss
from metasynth.sinks.feed import feeding
from metasynth.sinks.table import chosen

CLASSES = 5
NUMBERS = ("inner_loss", "outer_loss", "reference_loss", "hypergradient_norm", "outer_step", "sigma", "validation")


@dataclass(frozen=True)
class Row:
    """CPU seconds of a step, its record, and the process beside for it; seconds until all is open, and in the end."""

    sinks: str
    step: float
    record: float
    beside: float
    opening: float
    ending: float


def plain_step(size: int, batch: int) -> Callable[[], None]:
    """A step of a segmenter on images (B, 1, size, size)."""
    model = UNet(CLASSES, widths=(16, 32, 64, 128)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters())
    images, labels = torch.rand(batch, 1, size, size), torch.randint(CLASSES, (batch, size, size))

    def step() -> None:
        optimizer.zero_grad()
        soft_dice_loss(model(images), labels).backward()
        optimizer.step()

    return step


def descendants(process: int) -> Iterator[int]:
    """The processes that a process has started, and theirs."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
        if parent == process:
            yield int(path.parent.name)
            yield from descendants(int(path.parent.name))


def cpu_seconds(processes: list[int]) -> float:
    """What processes have taken of the cores."""
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # in user code, and in the kernel
    return ticks / os.sysconf("SC_CLK_TCK")


def measured(names: str, step: Callable[[], None], steps: int, run: Path) -> Row:
    """One session of these sinks."""
    metrics = run / "metrics.jsonl"
    lines = JsonLines(metrics)
    begun = time.perf_counter()
    taken, writing = [], []
    with feeding(run, metrics, {"experiment": "a benchmark"}, chosen(names), print) as feed:
        lines.told = feed.look
        opening = time.perf_counter() - begun
        helpers = list(descendants(os.getpid()))
        before = cpu_seconds(helpers)
        for number in range(1, steps + 1):
            start = time.process_time()
            step()
            between = time.process_time()
            lines.append({"stage": "learn", "step": number, **dict.fromkeys(NUMBERS, 1 / number)})
            taken.append(between - start)
            writing.append(time.process_time() - between)
        begun = time.perf_counter()
        feed.look(lines.position)
        while feed.behind():
            time.sleep(0.05)
            feed.look(lines.position)
        beside = (cpu_seconds(helpers) - before) / steps
        feed.finish(lines.position, {})
        ending = time.perf_counter() - begun
    lines.close()
    return Row(names, statistics.median(taken), statistics.mean(writing), beside, opening, ending)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sinks", default="none,tensorboard,mlflow,wandb", help="each by itself")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    step = plain_step(options.size, options.batch)
    step()
    rows = []
    print(f"steps of {options.batch} slices of {options.size}x{options.size}")
    print(f"{'':14}{'step, s':>9}{'record, µs':>12}{'%':>8}{'beside, ms':>12}{'%':>8}{'open, s':>9}{'end, s':>8}")
    for names in options.sinks.split(","):
        with tempfile.TemporaryDirectory() as folder:
            row = measured(names, step, options.steps, Path(folder))
        rows.append(row)
        shares = [100 * seconds / row.step for seconds in (row.record, row.beside)]
        print(
            f"{names:14}{row.step:9.3f}{1e6 * row.record:12.1f}{shares[0]:8.3f}"
            f"{1e3 * row.beside:12.2f}{shares[1]:8.3f}{row.opening:9.1f}{row.ending:8.1f}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
