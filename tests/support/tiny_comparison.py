"""The studies on real images at a size that takes seconds: their caches, their settings and ways to run them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from support.tiny_noise import CLASSES, make_cache

from metasynth.data.cache import Cache, write_cache
from metasynth.data.digests import content_digest
from metasynth.data.schema import read_contents
from metasynth.run import execute
from metasynth.running.study import Experiment

STEPS, FINETUNE = 6, 3
OUTER = {
    "batch_size": "2",
    "warmup": "2",
    "every": "2",
    "until": "0",
    "horizon": "1",
    "mean_of": "1",
    "reference": "matched",
}
SETTINGS = {
    "segmenter.widths": "4,8",
    "segmenter.batch_size": "4",
    "segmenter.steps": str(STEPS),
    **{f"outer.{name}": value for name, value in OUTER.items()},
    **{f"outer_synthesis.{name}": value for name, value in OUTER.items()},
    "learned.network": "4,4",
    "finetune.steps": str(FINETUNE),
    "clustered.nodes": "4",
    "interpolations": "0,0.5,1",
    "synthesis.elastic_nodes": "4",
    "baseline.elastic_nodes": "4",
    "subjects.train": "2",
    "select_every": "2",
    "pace.checkpoint_every": "2",
    "pace.workers": "0",
}


def real_cache(path: Path, contrast: float = 1.0, shape: tuple[int, int] = (16, 16), **options: Any) -> Path:
    """A cache of `make_cache` with noisy images of its classes; ``contrast`` is the exponent of their intensities."""
    make_cache(path, shape=shape, images=True, **options)
    rng = np.random.default_rng(1)
    with Cache(path) as cache:
        labels = cache.read_stored("labels", range(cache.n))
        images = np.clip((labels / (cache.n_generation - 1)) ** contrast + rng.normal(0, 0.05, labels.shape), 0, 1) * (
            labels > 0
        )
        write_cache(
            path,
            labels=labels,
            images=images.astype(np.float32),
            subject=cache.subject_index,
            subjects=list(cache.subjects),
            slice_index=cache.slice_index,
            view=cache.view,
            info=cache.info,
        )
    return path


def rename(path: Path, name: Callable[[int, str], str]) -> Path:
    """The cache with other names of subjects, given by their index and old name."""
    with h5py.File(path, "r+") as file:
        names = [name(index, old) for index, old in enumerate(file["subjects"].asstr()[:])]
        del file["subjects"]
        file["subjects"] = names
    return sign(path)


def sign(path: Path) -> Path:
    """The cache with the digest of what it holds now, as if it had been written so."""
    with h5py.File(path, "r+") as file:
        info, contents = read_contents(file, str(path))
        file.attrs["digest"] = content_digest(str(path), contents, info.described())
    return path


def carry_out(experiment: Experiment, out: Path, data: Path, *, seed: int = 1, resume: bool = False, **settings: str):
    """Run a study; a double underscore in a setting stands for its dot. ``labels`` is the option of that name."""
    labels = settings.pop("labels", None)
    changed = SETTINGS | {key.replace("__", "."): value for key, value in settings.items()}
    return execute(
        experiment,
        out,
        overrides=[f"{key}={value}" for key, value in changed.items()],
        seed=seed,
        data=data,
        labels=None if labels is None else Path(labels),
        resume=resume,
        device="cpu",
        threads=1,
        quiet=True,
    )


def results(run: Path) -> list[dict[str, Any]]:
    """The rows without what a clock or the system says."""
    rows: list[dict[str, Any]] = json.loads((run / "results.json").read_text())["rows"]
    return [{key: value for key, value in row.items() if key not in ("wall_s", "total_s", "peak_mib")} for row in rows]


__all__ = ["CLASSES", "FINETUNE", "SETTINGS", "STEPS", "carry_out", "real_cache", "rename", "results", "sign"]
