"""The real loss as a function of an augmentation parameter, measured directly: the check on what is learned.

Plain segmenters are trained with the augmentation fixed at each of several values, everything else being equal (the
same label maps, clean images and initial weights), and tested on the real domain. The value that learning should find
lies within the flat bottom of this curve; how flat it is says how well the value can be known at all.

    python benchmarks/real_loss_profile.py --sigma 0.1 --values 0.02,0.05,0.07,0.1,0.14,0.2,0.3 [--seeds 2]
    python benchmarks/real_loss_profile.py --sigma 0.05 --c 0.5,0.5,0.5 --vary c_low --values 0,0.25,0.5,0.75,1

``--sigma LOW:HIGH`` draws the noise of each real image from that range. With ``--c`` the real images have intensity
non-uniformity with these exponents too, and ``--vary`` says what is varied.
"""

import argparse
import json
import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args, get_type_hints

import torch
from metasynth.data_prep.cohorts.cohort import COHORTS, ensure_cohort
from metasynth.experiments.recovery.sizes import SIZES

from metasynth.augment import Corruption, Corruptions, KnownBias, NoiseLevel
from metasynth.data import Cache, SliceDataset, make_split
from metasynth.running.device import keep_freed_memory
from metasynth.running.seeding import generator_for
from metasynth.synthesis import PAPER, BatchedGenerator
from metasynth.training.evaluation import TestSet, evaluate, make_test_set
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.sources import Corrupted
from metasynth.training.streams import StepData, stream
from metasynth.training.trainers import Supervised

CHUNK = 32
NORMS = get_args(get_type_hints(SegmenterSettings)["norm"])
PARAMETERS = ("sigma", "c_low", "c_mid", "c_high")


@dataclass(frozen=True)
class Row:
    """One trained segmenter: loss and mean Dice on the real domain's test images."""

    parameter: str
    value: float
    seed: int
    loss: float
    dice: float


def corruption(values: dict[str, float]) -> Corruption:
    """Fields and noise with these parameters; no fields where there are no exponents."""
    noise = NoiseLevel(values["sigma"], values["sigma"])
    exponents = tuple(values[name] for name in PARAMETERS[1:] if name in values)
    return Corruptions((KnownBias(exponents), noise)) if exponents else noise


def trained(values: dict[str, float], seed: int, settings: SegmenterSettings, cache: Cache) -> torch.nn.Module:
    """A segmenter trained with the augmentation fixed at ``values``."""
    generator = BatchedGenerator(cache.n_generation, PAPER.at_spacing(min(cache.info.spacing_mm)))
    dataset = SliceDataset(cache, make_split(cache.subjects, seed).train)
    data = StepData(dataset, Corrupted(generator, corruption(values)), None, seed=seed, batch_size=settings.batch_size)
    segmenter = settings.build(cache.n_classes, len(cache.shape), generator_for(seed, "segmenter"))
    trainer = Supervised(segmenter, settings)
    for step, batch in enumerate(stream(data, 0, settings.steps, 0)):
        trainer.step(step, batch)
    return segmenter


def tested(
    segmenter: torch.nn.Module, test: TestSet, level: NoiseLevel, settings: SegmenterSettings
) -> tuple[float, float]:
    """Mean loss and mean foreground Dice on the test images with the real noise."""
    images = test.noisy(level)
    with torch.no_grad():
        losses = [
            settings.loss_of(segmenter(x), y).item()
            for x, y in zip(images.split(CHUNK), test.labels.split(CHUNK), strict=True)
        ]
    return statistics.fmean(losses), evaluate(segmenter, test, [level], "cpu")[level.label]["mean"]


def main() -> None:
    """Print one line a value: mean over seeds of loss and Dice."""
    quick: SegmenterSettings = SIZES["quick"]["segmenter"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sigma", type=NoiseLevel.parse, default=NoiseLevel(0.1, 0.1), help="noise of the real images")
    parser.add_argument("--c", type=_numbers, default=[], help="exponents of the real images' fields")
    parser.add_argument("--vary", choices=PARAMETERS, default="sigma")
    parser.add_argument("--values", type=_numbers, default=[0.02, 0.05, 0.07, 0.1, 0.14, 0.2, 0.3])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--norm", choices=NORMS, default=quick.norm)
    parser.add_argument("--lr", type=float, default=quick.lr)
    parser.add_argument("--data", type=Path, help="cache; the embedded cohort of 64 voxels by default")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    level: NoiseLevel = options.sigma
    truth = {"sigma": level.low, **dict(zip(PARAMETERS[1:], options.c, strict=False))}
    if options.vary not in truth:
        parser.error(f"--vary {options.vary}: needs --c with three exponents")
    if options.vary != "sigma" and level.low != level.high:
        parser.error(f"--sigma {level.label}: must be one level where {options.vary} is varied")
    settings = replace(quick, steps=options.steps, norm=options.norm, lr=options.lr)
    rows = []
    print(f"real images: noise {level.label}, c {options.c}; {options.steps} steps, {options.seeds} seeds")
    print(f"{options.vary:>10}{'loss':>9}{'Dice':>9}")
    with Cache(options.data or ensure_cohort(COHORTS["template-64"])) as cache:
        for value in options.values:
            found = []
            for seed in range(options.seeds):
                segmenter = trained(truth | {options.vary: value}, seed, settings, cache)
                held_out = SliceDataset(cache, make_split(cache.subjects, seed).test)
                generator = BatchedGenerator(cache.n_generation, PAPER.at_spacing(min(cache.info.spacing_mm)))
                fields = KnownBias(tuple(options.c)) if options.c else None
                test = make_test_set(held_out, generator, seed, 4, fields)
                loss, dice = tested(segmenter, test, level, settings)
                found.append(Row(options.vary, value, seed, loss, dice))
            rows += found
            means = [statistics.fmean(getattr(row, name) for row in found) for name in ("loss", "dice")]
            print(f"{value:10g}{means[0]:9.4f}{means[1]:9.4f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
