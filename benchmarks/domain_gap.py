"""Where a segmenter trained on synthetic images loses Dice on real ones: in its training, in anatomy or in the images.

A naive segmenter is trained on images made from label maps, then tested on

    own      more such images;
    anatomy  synthetic images of the real people, made from their own label maps in the contrast of their real images;
    real     their real images.

From ``own`` to ``anatomy`` people and contrasts change; from ``anatomy`` to ``real`` what an augmenter could learn:
noise, fields, textures, partial volumes, and what the maps do not show. Sizes of the classes stand below.

    python benchmarks/domain_gap.py [--steps 1500] [--norm none --lr 2e-3]
    python benchmarks/domain_gap.py --labels labels20.h5 --data ixi10.h5
"""

import argparse
from pathlib import Path
from typing import get_args, get_type_hints

import torch
from metasynth.data_prep.cohorts.cohort import COHORTS, ensure_cohort
from metasynth.experiments.real_images.settings import BASELINE
from torch import Tensor

from metasynth.data import Cache, SliceDataset
from metasynth.running.device import keep_freed_memory
from metasynth.running.seeding import generator_for
from metasynth.segment import DiceAccumulator
from metasynth.synthesis import BatchedGenerator
from metasynth.training.evaluation import segment
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.sources import Example, Synthetic
from metasynth.training.streams import StepData, stream
from metasynth.training.trainers import Supervised

OWN_IMAGES = 256


def trained(maps: SliceDataset, generator: BatchedGenerator, settings: SegmenterSettings, seed: int) -> torch.nn.Module:
    """A segmenter of synthetic images with random fields and noise."""
    segmenter = settings.build(maps.cache.n_classes, 2, generator_for(seed, "segmenter"))
    segmenter = segmenter.to(memory_format=torch.channels_last)
    trainer = Supervised(segmenter, settings)
    data = StepData(maps, Synthetic(generator), None, seed=seed, batch_size=settings.batch_size)
    for step, batch in enumerate(stream(data, 0, settings.steps, 0)):
        trainer.step(step, batch._replace(inner=batch.inner._replace(draws=None)))
    return segmenter


def scores(segmenter: torch.nn.Module, images: Tensor, labels: Tensor, cache: Cache) -> dict[str, float]:
    """Dice of all voxels of a class together, by its name; background left out."""
    counts = DiceAccumulator(cache.n_classes, 1)
    counts.update(segment(segmenter, images, "cpu"), labels, torch.zeros(len(labels), dtype=torch.int64))
    dice = counts.result()[0].tolist()
    found = dict(zip(cache.info.class_names[1:], dice[1:], strict=True))
    return {"mean": sum(found.values()) / len(found), **found}


def shares(labels: Tensor, cache: Cache) -> dict[str, float]:
    """Share of the labelled voxels, by the class's name."""
    counts = torch.bincount(labels.flatten(), minlength=cache.n_classes)[1:].double()
    return dict(zip(cache.info.class_names[1:], (counts / counts.sum()).tolist(), strict=True))


def main() -> None:
    """Print one row a test."""
    norms = get_args(get_type_hints(SegmenterSettings)["norm"])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, help="cache of the label maps; the embedded template's by default")
    parser.add_argument("--data", type=Path, help="cache of the real images; the embedded simulated ones by default")
    parser.add_argument("--norm", choices=norms, default="instance")
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    settings = SegmenterSettings((8, 16, 32, 64), norm=options.norm, lr=options.lr, steps=options.steps, cooldown=0.3)
    with (
        Cache(options.labels or ensure_cohort(COHORTS["template-64"])) as theirs,
        Cache(options.data or ensure_cohort(COHORTS["mprage-young-64"])) as cache,
    ):
        if theirs.info.class_names != cache.info.class_names:
            raise SystemExit(f"{theirs.path}: expected the classes of {cache.path}; prepare both with one --mapping")
        if not cache.has_images:
            raise SystemExit(f"{cache.path}: holds labels only; images are needed too")
        if (theirs.generation_names, theirs.target.tolist()) != (cache.generation_names, cache.target.tolist()):
            raise SystemExit(
                f"{theirs.path}: expected the structures of {cache.path}; prepare both with one --generate"
            )
        generator = BatchedGenerator(cache.n_generation, BASELINE.at_spacing(min(cache.info.spacing_mm)))
        maps, people = SliceDataset(theirs, theirs.subjects), SliceDataset(cache, cache.subjects)
        segmenter = trained(maps, generator, settings, options.seed)
        draw = generator_for(options.seed, "test")
        chosen = torch.randint(len(maps), (OWN_IMAGES,), generator=draw).sort().values.tolist()
        own, real = maps.read(chosen), people.read(range(len(people)))
        alike = generator.matched(real.images, real.structures, generator.draw_seeds(len(real.labels), draw))
        made = Example.of(own, *generator(own.structures, draw))
        rows = {
            "own": scores(segmenter, made.images, made.labels, cache),
            "anatomy": scores(segmenter, alike, real.labels, cache),
            "real": scores(segmenter, real.images, real.labels, cache),
            "share of the maps": shares(maps.read(range(len(maps))).labels, cache),
            "share of the real": shares(real.labels, cache),
        }
        print("test", *rows["own"], sep=" | ")
        for name, values in rows.items():
            print(name, *(f"{values[k]:.3f}" if k in values else "" for k in rows["own"]), sep=" | ")


if __name__ == "__main__":
    main()
