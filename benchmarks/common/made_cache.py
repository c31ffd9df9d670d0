"""A cache of labels and images for benchmarks that need some size of data, and none in particular."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from metasynth.data import CacheInfo, write_cache

CLASSES = 5


def make_cache(path: Path, shape: Sequence[int], items: int, subjects: int = 8) -> None:
    """Nested balls with noise: labels that compress like anatomy, images that hardly do; of 1 mm, 2D or 3D."""
    rng = np.random.default_rng(0)
    radius = np.linalg.norm(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"), axis=0)
    scale = rng.uniform(0.7, 1.0, (items, *[1] * len(shape)))
    labels = sum((radius < edge * scale).astype(np.uint8) for edge in (0.9, 0.7, 0.4, 0.2))
    images = np.clip(labels / CLASSES + 0.05 * rng.standard_normal(labels.shape), 0, 1).astype(np.float16)
    subject = np.arange(items) * subjects // items
    axis, orientation = ("coronal", "IR") if len(shape) == 2 else ("volume", "ARI")
    write_cache(
        path,
        labels=labels,
        images=images,
        subject=subject,
        slice_index=np.arange(items),
        subjects=[f"s{k}" for k in range(subjects)],
        info=CacheInfo(
            class_names=("background", "a", "b", "c", "d"),
            mapping="nested balls",
            spacing_mm=(1.0,) * len(shape),
            axis=axis,
            orientation=orientation,
            source="made for a benchmark",
            created_by="benchmarks/common/made_cache.py",
        ),
    )
