"""The noise study at a size that takes a second: its cache, its settings and ways to run it."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from metasynth.data.cache import CacheInfo, write_cache
from metasynth.running.manifest import make_manifest
from metasynth.running.progress import Progress
from metasynth.running.records import RunFolder
from metasynth.running.seeding import seed_everything
from metasynth.running.study import StudyContext

CLASSES = ("background", "white matter", "grey matter")
STRUCTURES, TARGET = ("background", "fluid", "cortex", "white matter", "core"), (0, 0, 2, 1, 1)
STAGES = ("learn", "naive", "optimised")
STEPS, WARMUP, EVERY = 14, 5, 2

SETTINGS = {
    "segmenter.widths": "4,8",
    "segmenter.batch_size": "2",
    "segmenter.steps": str(STEPS),
    "outer.batch_size": "2",
    "outer.warmup": str(WARMUP),
    "outer.every": str(EVERY),
    "test": "0,0.1",
    "test_repeats": "1",
    "pace.checkpoint_every": "3",
    "pace.workers": "0",
    "synthesis.elastic_nodes": "4",
}


def make_cache(
    path: Path,
    *,
    subjects: int = 5,
    per_subject: int = 2,
    shape: tuple[int, ...] = (16, 16),
    images: bool = False,
    generation: bool = False,
    shows: str = "brain",
    views: tuple[str, str] = ("coronal", "IR"),
) -> Path:
    """A cache of nested balls, off-centre and of random radius: background, white and grey matter.

    With generation labels there is fluid about them, which is background, and the white matter has a core. Of several
    axes with commas between them, and their orientations, one slice after the other is of the next.
    """
    rng = np.random.default_rng(0)
    n = subjects * per_subject
    centre = rng.uniform(0.4, 0.6, (n, len(shape))) * shape
    grid = np.moveaxis(np.indices(shape), 0, -1)
    distance = np.linalg.norm(grid - centre[(slice(None), *[None] * len(shape))], axis=-1)
    radius = rng.uniform(0.3, 0.45, n).reshape(-1, *[1] * len(shape)) * min(shape)
    labels = (distance < radius).astype(np.uint8) + (distance < 0.6 * radius)
    labels = np.array([0, 2, 1], np.uint8)[labels]
    if generation:
        labels = sum(
            ((distance < share * radius).astype(np.uint8) for share in (1.2, 1, 0.6, 0.3)), np.zeros_like(labels)
        )
    axis, orientation = views if len(shape) == 2 else ("volume", "ARI")
    several = axis.count(",") + 1
    write_cache(
        path,
        labels=labels,
        images=(labels / (4 if generation else 2)).astype(np.float32) if images else None,
        subject=np.repeat(np.arange(subjects), per_subject),
        subjects=[f"s{i}" for i in range(subjects)],
        slice_index=np.tile(np.arange(per_subject), subjects),
        view=np.arange(n) % several if several > 1 else None,
        info=CacheInfo(
            class_names=CLASSES,
            mapping="drawn by a test",
            spacing_mm=(3.0,) * len(shape),
            axis=axis,
            orientation=orientation,
            source="random numbers",
            created_by="a test",
            generation_names=STRUCTURES if generation else (),
            target=TARGET if generation else (),
            shows=shows,
        ),
    )
    return path


def arguments(out: Path | str, cache: Path | str | None = None, seed: int | None = None, **settings: str) -> list[str]:
    """What follows ``metasynth`` on the command line; a double underscore in a setting stands for its dot."""
    changed = SETTINGS | {"sigma": "0.1"} | {key.replace("__", "."): value for key, value in settings.items()}
    command = ["run", "noise", "--out", str(out), "--device", "cpu", "--threads", "1", "--quiet"]
    command += ["--data", str(cache)] if cache else []
    command += ["--seed", str(seed)] if seed is not None else []
    return command + [word for key, value in changed.items() for word in ("--set", f"{key}={value}")]


def start(arguments: list[str], **options: Any) -> "subprocess.Popen[str]":
    """``metasynth`` in a process group of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # tests begun in the background, whose children inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen([sys.executable, "-m", "metasynth", *arguments], env=environment, **(settings | options))


def results(run: Path) -> dict[str, Any]:
    """The results without their timings."""
    found = json.loads((run / "results.json").read_text())
    del found["wall_s"]
    for row in found["rows"]:
        del row["wall_s"]
    return found


MANIFEST = make_manifest("noise", "quick", 0, {}, {"path": "c.h5", "digest": "d", "given": False})


@contextmanager
def session(run: Path, resume: bool = False, config: Any = None, data: Path = Path("c.h5")) -> Iterator[StudyContext]:
    """What an experiment is given, for a folder that is begun or gone on with."""
    make = RunFolder.resume if resume else RunFolder.create
    with make(run, MANIFEST) as folder:
        seed_everything(0)
        progress = Progress(quiet=True, stream=io.StringIO())
        yield StudyContext(config, "quick", 0, "cpu", 1, folder, data, resume, progress)
