"""What signals do to commands: each is ended at a random moment, started again to its end, and compared.

A small run, a grid of two, a preparation by two processes and a prediction are begun again and again. SIGINT, SIGTERM,
SIGHUP or SIGKILL comes to the main process, to one of its workers or to the whole group. Counted are commands that have
not ended after 30 seconds (hangs; a command may outlast a signal to a worker, and has thrice its own time more),
processes that are there 5 seconds after the command has ended (left over), tracebacks, and results that are not byte
for byte those of the undisturbed command.

    python benchmarks/signals.py [--trials 20] [--size 64] [--batch 16] [--steps 60] [--seed 0]
        [--signals INT,TERM,HUP,KILL] [--json FILE]

Linux only: processes are found in /proc.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np

from metasynth.data import CacheInfo, write_cache

TARGETS = ("main", "worker", "group")
HANG_S, LEFT_S = 30.0, 5.0
MAPPING = "id,class\n0,background\n1,a\n2,b\n"


@dataclass(frozen=True)
class Command:
    """One command and what it makes.

    Attributes
    ----------
    words : tuple of str
        What follows ``metasynth``; OUT stands for the folder of a trial.
    begun : str or None
        The file in that folder after which ``--resume`` is needed, if any.
    made : tuple of str
        Patterns of the files to compare.
    """

    words: tuple[str, ...]
    begun: str | None
    made: tuple[str, ...]

    def start(self, out: Path, log: Path) -> "subprocess.Popen[bytes]":
        """Begin it, or go on with what was begun, in a session of its own."""
        words = [word.replace("OUT", str(out)) for word in self.words]
        resume = ["--resume"] if self.begun and (out / self.begun).exists() else []
        with log.open("ab") as file:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "metasynth", *words, *resume],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def digest(self, out: Path) -> str:
        """Of all that it made."""
        found = hashlib.sha256()
        for pattern in self.made:
            for path in sorted(out.glob(pattern)):
                found.update(str(path.relative_to(out)).encode() + path.read_bytes())
        return found.hexdigest()


@dataclass
class Row:
    """What became of the trials of one command."""

    command: str
    trials: int = 0
    hangs: int = 0
    left_over: int = 0
    tracebacks: int = 0
    failed: int = 0
    other_bytes: int = 0
    slowest_end_s: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)


def of_session(leader: int) -> list[int]:
    """Processes of the session that ``leader`` began, zombies aside."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found


def prepare(folder: Path, size: int) -> None:
    """A cache for training, label maps for `prep`, scans for `predict`."""
    rng = np.random.default_rng(0)
    axis = np.linspace(-1, 1, size)
    radius = np.hypot(*np.meshgrid(axis, axis)) / rng.uniform(0.7, 1.0, (30, 1, 1))
    info = CacheInfo(("background", "a", "b"), "discs", (3.0, 3.0), "coronal", "IR", "made up", "benchmarks/signals.py")
    write_cache(
        folder / "c.h5",
        labels=(radius < 0.8).astype(np.uint8) + (radius < 0.4),
        subject=np.arange(30) // 3,
        subjects=[f"s{k}" for k in range(10)],
        slice_index=np.arange(30) % 3,
        info=info,
    )
    (folder / "ids.csv").write_text(MAPPING)
    for name in ("labels", "scans"):
        (folder / name).mkdir()
    for k in range(6):
        ids = np.zeros((64, 64, 64), np.uint8)
        ids[8:56, 8:56, 8:56] = rng.integers(1, 3, (48, 48, 48))
        for name, data in (("labels", ids), ("scans", ids * rng.random(ids.shape).astype(np.float32))):
            nib.save(nib.Nifti1Image(data, np.diag([3.0, 3.0, 3.0, 1.0])), folder / name / f"s{k}.nii.gz")


def commands(folder: Path, batch: int, steps: int) -> dict[str, Command]:
    """The four; the prediction is by the model of the undisturbed run."""
    settings = {"sigma": "0.1", "test": "0,0.1", "segmenter.steps": steps, "segmenter.batch_size": batch}
    settings |= {"segmenter.widths": "4,8", "outer.batch_size": batch, "outer.warmup": 5, "pace.checkpoint_every": 10}
    sets = tuple(word for key, value in settings.items() for word in ("--set", f"{key}={value}"))
    run = ("run", "noise", "--data", str(folder / "c.h5"), "--out", "OUT", "--device", "cpu", "--quiet", *sets)
    prep = ("prep", "labels", str(folder / "labels"), "--mapping", str(folder / "ids.csv"), "--out", "OUT/a.h5")
    model = (str(folder / "undisturbed-run"), str(folder / "scans"), "--stage", "sigma=0.1/naive")
    return {
        "run": Command((*run, "--threads", "1"), "config.json", ("metrics.jsonl", "models/**/*.pt")),
        "grid": Command((*run, "--seeds", "2", "--jobs", "2"), "grid.json", ("*/metrics.jsonl", "*/models/**/*.pt")),
        "prep": Command((*prep, "--jobs", "2", "--quiet", "--overwrite", "--no-montage"), None, ("a.h5",)),
        "predict": Command(("predict", *model, "--out", "OUT", "--stripped", "--quiet"), None, ("*.nii.gz",)),
    }


def finish(command: Command, out: Path, log: Path) -> bool:
    return command.start(out, log).wait(600) == 0


def trial(
    command: Command, out: Path, row: Row, whole_s: float, draw: random.Random, numbers: Sequence[signal.Signals]
) -> None:
    """One interrupted command; it is started again, undisturbed."""
    out.mkdir()
    log = out.with_suffix(".log")
    process = command.start(out, log)
    number, target = draw.choice(numbers), draw.choice(TARGETS)
    try:
        process.wait(draw.uniform(0.3, 1.0) * whole_s)
    except subprocess.TimeoutExpired:
        send(process.pid, number, target, draw)
    begun = time.monotonic()
    row.trials += 1
    goes_on = target == "worker"  # which leaves a signal to its parent, so that the command may go on to its end
    try:
        status = process.wait(HANG_S + goes_on * 3 * whole_s)
        if not goes_on:
            row.slowest_end_s = max(row.slowest_end_s, time.monotonic() - begun)
        row.statuses[f"{status}"] += 1
    except subprocess.TimeoutExpired:
        row.hangs += 1
        print(f"{signal.Signals(number).name} to {target}: has not ended", file=sys.stderr)
    until = time.monotonic() + LEFT_S
    while (left := of_session(process.pid)) and time.monotonic() < until:
        time.sleep(0.05)
    row.left_over += len(left)
    for each in left:
        os.kill(each, signal.SIGKILL)
    text = log.read_text(errors="replace")
    if "Traceback (most recent call last)" in text:
        row.tracebacks += 1
        print(f"{signal.Signals(number).name} to {target}:\n{text}", file=sys.stderr)


def send(leader: int, number: int, target: str, draw: random.Random) -> None:
    workers = [each for each in of_session(leader) if each != leader]
    if target == "group":
        os.killpg(leader, number)
    else:
        os.kill(draw.choice(workers) if target == "worker" and workers else leader, number)


def show(rows: list[Row]) -> None:
    heads = ("trials", "hangs", "left over", "tracebacks", "not resumed", "other bytes", "slowest end (s)")
    print(f"{'command':10}" + "".join(f"{head:>16}" for head in heads) + "  statuses")
    for row in rows:
        counts = (row.trials, row.hangs, row.left_over, row.tracebacks, row.failed, row.other_bytes)
        told = ", ".join(f"{status}: {count}" for status, count in sorted(row.statuses.items()))
        print(f"{row.command:10}" + "".join(f"{n:>16}" for n in counts) + f"{row.slowest_end_s:>16.1f}  {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20, help="of all commands together")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signals", default="INT,TERM,HUP,KILL", help="which are sent, with commas between them")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    draw, numbers = random.Random(options.seed), [signal.Signals[f"SIG{name}"] for name in options.signals.split(",")]
    # Begun by nohup or in the background, this process ignores hangups or interrupts, and so would the commands.
    signal.signal(signal.SIGHUP, lambda *_: None)  # handlers are not inherited
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.size)
        every = commands(folder, options.batch, options.steps)
        rows, whole, seconds = {key: Row(key) for key in every}, {}, {}
        for key, command in every.items():
            out = folder / f"undisturbed-{key}"
            out.mkdir()
            begun = time.monotonic()
            if not finish(command, out, out.with_suffix(".log")):
                raise SystemExit(f"{key}: {out.with_suffix('.log').read_text()}")
            whole[key], seconds[key] = command.digest(out), time.monotonic() - begun
        for number in range(options.trials):
            key = list(every)[number % len(every)]
            out = folder / f"{key}-{number}"
            trial(every[key], out, rows[key], seconds[key], draw, numbers)
            if not finish(every[key], out, out.with_suffix(".log")):
                rows[key].failed += 1
                print(out.with_suffix(".log").read_text(), file=sys.stderr)
            rows[key].other_bytes += every[key].digest(out) != whole[key]
            if options.json:  # each time: what was seen is not lost when this is stopped
                options.json.write_text(json.dumps([vars(row) for row in rows.values()], indent=2))
    show(list(rows.values()))


if __name__ == "__main__":
    main()
