"""What reading a batch costs, beside the training step it is for.

A cache of slices with images and labels is written to a temporary folder and read back in random batches: kept in
memory, read from the file by the process itself, and as whole steps (label maps for synthesis, real images of other
subjects) handed over by a worker. The step is that of the paper's U-Net on as many slices.

    python benchmarks/loader.py [--size 192] [--batch 64] [--slices 320] [--threads 1] [--json FILE]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

import torch
from common.made_cache import CLASSES, make_cache

from metasynth.data import Cache, SliceDataset
from metasynth.data.dataset import IN_MEMORY_BYTES
from metasynth.segment import UNet, soft_dice_loss
from metasynth.training.sources import Real
from metasynth.training.streams import StepData, stream


@dataclass(frozen=True)
class Row:
    """One line; the ratio is to the training step."""

    name: str
    seconds: float
    ratio: float


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Of ``repeats`` calls after one that is not counted."""
    call()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--slices", type=int, default=320)
    parser.add_argument("--widths", default="16-32-64-128")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)

    model = UNet(CLASSES, widths=tuple(map(int, options.widths.split("-")))).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters())
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cache.h5"
        make_cache(path, (options.size, options.size), options.slices)
        with Cache(path) as cache:
            draw = torch.Generator().manual_seed(0)
            for name, most in (("kept in memory", IN_MEMORY_BYTES), ("read from the file", 0)):
                with mock.patch("metasynth.data.dataset.IN_MEMORY_BYTES", most):
                    dataset = SliceDataset(cache, cache.subjects)
                seconds[name] = median_seconds(
                    lambda dataset=dataset: dataset.read(torch.randint(len(dataset), (options.batch,), generator=draw)),
                    options.repeats,
                )
            real = Real()
            data = StepData(
                dataset,
                real,
                real,
                seed=0,
                batch_size=options.batch,
                outer_batch_size=options.batch,
                is_due=lambda step: True,
            )
            steps = iter(stream(data, 0, options.repeats + 1, workers=1))
            seconds["whole steps, one worker (wait)"] = median_seconds(lambda: next(steps), options.repeats)
            batch = dataset.read(range(options.batch))

    def step() -> None:
        optimizer.zero_grad()
        soft_dice_loss(model(batch.images), batch.labels).backward()
        optimizer.step()

    training = median_seconds(step, 3)
    rows = [Row("training step", training, 1.0)] + [Row(n, s, s / training) for n, s in seconds.items()]
    print(f"{options.batch} slices of {options.size}x{options.size}")
    print(f"{'':34}{'seconds':>9}{'ratio':>9}")
    for row in rows:
        print(f"{row.name:34}{row.seconds:9.4f}{row.ratio:9.4f}")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
