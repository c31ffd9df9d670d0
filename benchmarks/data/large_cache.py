"""How a cache of very many slices is opened, checked and read: time, bytes read and memory, and two runs at once.

A cache of nested discs with noise is written to a temporary folder, or to FILE, where it is found the next time. Every
line is measured in a fresh process: seconds, those that cores were busy with it (which other work on the machine does
not change), bytes read from files, and the largest memory above that of a process that has imported the package. Of
lines that take seconds the median of ``repeats`` is given.

    python benchmarks/data/large_cache.py [--slices 100000] [--size 192] [--cache FILE] [--json FILE]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from metasynth.data_prep.montage import describe

from metasynth.data import Cache, CacheInfo, SliceDataset, make_split, write_cache
from metasynth.training.sources import Real
from metasynth.training.streams import StepData, stream

CLASSES, SUBJECTS, DIFFERENT = 5, 1000, 256
BATCH, BATCHES, WORKERS = 64, 200, 2


class Slices:
    """Label maps, or images of them, made when they are asked for: ``DIFFERENT`` ones, each shifted anew."""

    def __init__(self, n: int, base: np.ndarray) -> None:
        self.base, self.shape, self.dtype = base, (n, *base.shape[1:]), base.dtype

    def __getitem__(self, part: slice) -> np.ndarray:
        chosen = range(*part.indices(self.shape[0]))
        return np.stack([np.roll(self.base[i % DIFFERENT], i // DIFFERENT % 64, axis=0) for i in chosen])


def make_cache(path: Path, n: int, size: int) -> None:
    """Nested discs: labels that compress like anatomy, images of 64 grey values with noise in the largest disc."""
    rng = np.random.default_rng(0)
    axis = np.linspace(-1, 1, size)
    radius = np.hypot(*np.meshgrid(axis, axis))
    scale = rng.uniform(0.5, 0.8, (DIFFERENT, 1, 1))
    labels = sum((radius < edge * scale).astype(np.uint8) for edge in (0.9, 0.7, 0.4, 0.2))
    noise = rng.integers(0, 8, labels.shape) * (labels > 0)
    images = ((labels * 12 + noise) / 64).astype(np.float16)
    subjects = min(SUBJECTS, n)
    write_cache(
        path,
        labels=Slices(n, labels),
        images=Slices(n, images),
        subject=np.arange(n) * subjects // n,
        slice_index=np.arange(n) % 256,
        subjects=[f"s{k}" for k in range(subjects)],
        info=CacheInfo(
            class_names=("background", "a", "b", "c", "d"),
            mapping="nested discs",
            spacing_mm=(1.0, 1.0),
            axis="coronal",
            orientation="IR",
            source="made for a benchmark",
            created_by="benchmarks/data/large_cache.py",
        ),
    )


def training_part(cache: Cache) -> SliceDataset:
    """The items that a study with this cache would learn from."""
    return SliceDataset(cache, make_split(cache.subjects, 0).train)


def random_batches(dataset: SliceDataset, count: int) -> None:
    """Read batches of items drawn at random."""
    draw = torch.Generator().manual_seed(0)
    for _ in range(count):
        dataset.read(torch.randint(len(dataset), (BATCH,), generator=draw))


def opened(cache: Path) -> None:
    """Open it."""
    Cache(cache).close()


def first_batch(cache: Path) -> None:
    """Open it, divide its subjects and read a batch."""
    with Cache(cache) as found:
        random_batches(training_part(found), 1)


def batches(cache: Path) -> None:
    """The same and many batches more."""
    with Cache(cache) as found:
        random_batches(training_part(found), 1 + BATCHES)


def steps(cache: Path) -> Iterator[int]:
    """Steps of a study, label maps and images of other subjects, made by workers; yields when these are at work."""
    with Cache(cache) as found:
        data = StepData(
            training_part(found),
            Real(),
            Real(),
            seed=0,
            batch_size=BATCH,
            outer_batch_size=BATCH,
            is_due=lambda step: True,
        )
        with closing(stream(data, 0, BATCHES, workers=WORKERS)) as made:
            for step, _ in enumerate(made):
                yield step


def inspected(cache: Path) -> None:
    """What ``metasynth inspect`` does: read and check everything."""
    describe(cache)


def looked_through(cache: Path) -> None:
    """Read and check everything, as opening does of a file that carries no digests of its items."""
    with Cache(cache, check_values=False) as found:
        assert found.is_as_written()


MEASURES: dict[str, Callable[[Path], Iterator[int] | None]] = {
    "open": opened,
    "open, split, first batch": first_batch,
    f"and {BATCHES} batches of {BATCH}": batches,
    f"{BATCHES} steps of 2 x {BATCH}, {WORKERS} workers": steps,
    "check whole": looked_through,
    "inspect": inspected,
}
LONG = ("check whole", "inspect")


@dataclass(frozen=True)
class Row:
    """One line; memory in MiB, of the workers that of the largest."""

    name: str
    seconds: float
    core_seconds: float
    read_mib: float
    memory_mib: float
    worker_mib: float | None = None


def status(process: int | str, key: str) -> float:
    """A number of a process's status, in MiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024


def children() -> list[str]:
    """The processes that this one has started."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def read_so_far() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def measure(name: str, cache: Path) -> Row:
    """One line, in this process, which has done nothing else."""
    torch.set_num_threads(1)
    imported, read = status("self", "VmRSS"), read_so_far()
    Path("/proc/self/clear_refs").write_text("5")  # the largest memory from now on
    begun, busy, workers = time.perf_counter(), os.times(), []
    for _ in MEASURES[name](cache) or ():
        workers = [status(child, "VmHWM") - imported for child in children()]
    seconds, now = time.perf_counter() - begun, os.times()
    core_seconds = sum(now[:4]) - sum(busy[:4])
    most = max(workers) if workers else None
    read_mib = (read_so_far() - read) / 2**20
    return Row(name, seconds, core_seconds, read_mib, status("self", "VmHWM") - imported, most)


def start(name: str, cache: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, "--cache", str(cache), "--measure", name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def ended(process: "subprocess.Popen[str]") -> Row:
    out = process.communicate()[0]
    assert process.returncode == 0
    return Row(**json.loads(out))


def median(rows: list[Row]) -> Row:
    """The rows' medians."""
    values = [list(asdict(row).values())[1:] for row in rows]
    return Row(rows[0].name, *(None if None in each else statistics.median(each) for each in zip(*values, strict=True)))


def measured(cache: Path, repeats: int) -> list[Row]:
    """All lines, and one of two processes that do the same at once."""
    rows = []
    for name in MEASURES:
        rows.append(median([ended(start(name, cache)) for _ in range(1 if name in LONG else repeats)]))
        print(line(rows[-1]), flush=True)
    name = f"and {BATCHES} batches of {BATCH}"
    both = [ended(each) for each in [start(name, cache) for _ in range(2)]]
    rows += [Row(f"{row.name}, one of two at once", *list(asdict(row).values())[1:]) for row in both]
    print(*map(line, rows[-2:]), sep="\n", flush=True)
    return rows


def line(row: Row) -> str:
    worker = "" if row.worker_mib is None else f"{row.worker_mib:10.0f}"
    return f"{row.name:48}{row.seconds:10.2f}{row.core_seconds:10.2f}{row.read_mib:10.1f}{row.memory_mib:10.0f}{worker}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cache", type=Path, help="made here if it is not there; it stays")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(asdict(measure(options.measure, options.cache))))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.cache or Path(folder) / "cache.h5"
        if not path.exists():
            begun = time.process_time()
            make_cache(path, options.slices, options.size)
            print(f"made in {time.process_time() - begun:.0f} s of a core")
        beside = {each.name for each in path.parent.iterdir()}
        print(f"{path.stat().st_size / 2**20:.0f} MiB")
        print(f"{'':48}{'seconds':>10}{'of a core':>10}{'MiB read':>10}{'memory':>10}{'workers':>10}")
        rows = measured(path, options.repeats)
        assert {each.name for each in path.parent.iterdir()} == beside
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
