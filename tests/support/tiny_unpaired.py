"""The study of scans without labels at a size that takes a second."""

from pathlib import Path

from metasynth.experiments.unpaired import EXPERIMENT

from metasynth.run import execute

SETTINGS = {
    "methods": "naive,nonparametric,intensities,supervised",
    "segmenter.widths": "4,8",
    "segmenter.batch_size": "2",
    "segmenter.steps": "5",
    "discriminator.widths": "3,4",
    "discriminator.batch_size": "2",
    "discriminator.steps": "6",
    "outer.batch_size": "2",
    "outer.warmup": "2",
    "outer.every": "1",
    "generator.network": "2,2",
    "synthesis.elastic_nodes": "4",
    "baseline.elastic_nodes": "4",
    "pace.checkpoint_every": "2",
    "pace.workers": "0",
}


def carry_out(out, cache, *, resume=False, labels=None, **settings: str) -> Path:
    """The folder of a run of seed 1; ``a__b`` stands for the setting a.b."""
    changed = SETTINGS | {key.replace("__", "."): value for key, value in settings.items()}
    overrides = [f"{key}={value}" for key, value in changed.items()]
    options = {"resume": resume, "labels": labels, "seed": 1, "device": "cpu", "threads": 1, "quiet": True}
    return execute(EXPERIMENT, out, overrides=overrides, data=cache, **options).path
