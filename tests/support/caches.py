"""Small caches for the tests of this folder."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from metasynth.data.cache import CacheInfo, write_cache

INFO = CacheInfo(
    class_names=("background", "white matter", "grey matter"),
    mapping="drawn by a test",
    spacing_mm=(2.0, 3.0),
    axis="coronal",
    orientation="IR",
    source="random numbers",
    created_by="a test",
)


GENERATION = ("background", "white matter", "putamen", "fluid", "cortex")
TARGET = (0, 1, 2, 0, 2)
FINE_INFO = replace(INFO, generation_names=GENERATION, target=TARGET)


def arrays(n_subjects=5, per_subject=3, shape=(6, 7), images=True, seed=0, info=INFO):
    """Arguments of `write_cache`, all but the path."""
    rng = np.random.default_rng(seed)
    n = n_subjects * per_subject
    return {
        "labels": rng.integers(0, len(info.stored.names), (n, *shape)),
        "images": rng.random((n, *shape)).astype(np.float32) if images else None,
        "subject": np.repeat(np.arange(n_subjects), per_subject),
        "subjects": [f"s{i}" for i in range(n_subjects)],
        "slice_index": np.tile(np.arange(per_subject), n_subjects),
        "info": info,
    }


def make(path: Path, **options) -> Path:
    """Write a small valid cache."""
    write_cache(path, **arrays(**options))
    return path
