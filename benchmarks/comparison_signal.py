"""Where the hypergradients of noise and fields point on (simulated) real images, and what trained segmenters say.

A segmenter is trained with the augmenter fixed, then frozen, and hypergradients of sigma and of the exponents are
drawn; beside them stands the mean Dice of the segmenter on test subjects. Where the hypergradient at a large sigma
raises it further while a smaller one gives the better segmenter, learning cannot find it.

    python benchmarks/comparison_signal.py --sigma 0.02,0.3 --norm instance --lr 5e-3 --steps 600 --cooldown 0,0.5
    python benchmarks/comparison_signal.py --sigma 0.02,0.3 --norm none --lr 2e-3 --steps 600
"""

import argparse
import itertools
import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args, get_type_hints

import torch
from common.frozen import WIDTHS, Frozen, clipped, flat, generator_of, one_thread
from metasynth.data_prep.cohorts.cohort import COHORTS, ensure_cohort

from metasynth.augment import BiasField, Compose, GaussianNoise
from metasynth.data import Cache, SliceDataset, make_split
from metasynth.running.device import keep_freed_memory
from metasynth.running.seeding import generator_for
from metasynth.segment import DiceAccumulator
from metasynth.training.evaluation import segment
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.sources import Real, Synthetic
from metasynth.training.streams import StepData, stream

HINTS = get_type_hints(SegmenterSettings)


@dataclass(frozen=True)
class Row:
    """One parameter of a trained segmenter's augmenter: mean hypergradient / sd of a draw; positive lowers it."""

    sigma: float
    cooldown: float
    dice: float
    parameter: str
    signal: float
    standard_error: float


def rows_of(options: argparse.Namespace, dataset: SliceDataset, test: SliceDataset) -> list[Row]:
    """Train with the augmenter fixed, test, and draw."""
    cache, sigma, cooldown = dataset.cache, options.sigma, options.cooldown
    settings = SegmenterSettings(
        WIDTHS, norm=options.norm, loss=options.loss, lr=options.lr, steps=options.steps, cooldown=cooldown
    )
    augmenter = Compose(BiasField((options.c,) * 3), GaussianNoise(sigma))
    data = StepData(
        dataset,
        Synthetic(generator_of(cache), augmenter.draw),
        Real(),
        seed=options.seed,
        batch_size=settings.batch_size,
        outer_batch_size=options.real,
        is_due=lambda step: step >= options.steps,
        reference=options.reference,
    )
    segmenter = settings.build(cache.n_classes, 2, generator_for(options.seed, "segmenter"))
    segmenter = segmenter.to(memory_format=torch.channels_last)
    frozen, draws = Frozen(settings, segmenter, augmenter), []
    for step, batch in enumerate(stream(data, 0, options.steps + options.draws, 0)):
        if batch.outer is None:
            frozen.optimizer.param_groups[0]["lr"] = settings.lr * settings.rate_at(step)
            frozen.train(batch.inner)
        else:
            draws.append(flat(frozen.gradients(batch.inner, batch.outer, batch.reference)))
    dice = _dice(segmenter, test)
    rows = []
    for name, values in zip(augmenter.observed(), zip(*draws, strict=True), strict=True):
        kept = clipped(values)
        signal = statistics.fmean(kept) / statistics.stdev(kept)
        rows.append(Row(sigma, cooldown, dice, name, signal, len(kept) ** -0.5))
    return rows


def _dice(segmenter: torch.nn.Module, test: SliceDataset) -> float:
    items = test.read(range(len(test)))
    if items.images is None:
        raise TypeError("expected a cohort with images")
    table = DiceAccumulator(test.cache.n_classes, len(test.subjects))
    table.update(segment(segmenter, items.images, "cpu"), items.labels, items.subject)
    return float(table.summary(test.cache.info.class_names, test.subjects)["mean"])


def main() -> None:
    """Print one row a parameter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sigma", type=_numbers, default=[0.02, 0.3], help="noise of the segmenters' images")
    parser.add_argument("--cooldown", type=_numbers, default=[0.3], help="see SegmenterSettings")
    parser.add_argument("--c", type=float, default=0.3, help="exponent of all three fields")
    parser.add_argument("--norm", choices=get_args(HINTS["norm"]), default="none")
    parser.add_argument("--loss", choices=get_args(HINTS["loss"]), default="dice_cross_entropy")
    parser.add_argument("--reference", choices=get_args(get_type_hints(StepData)["reference"]), default="matched")
    parser.add_argument("--lr", type=float, default=2e-3, help="of the segmenter")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument("--real", type=int, default=16, help="real images a draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the rows here too")
    options = parser.parse_args()
    one_thread()
    keep_freed_memory()
    rows = []
    with Cache(ensure_cohort(COHORTS["mprage-young-64"])) as cache:
        split = make_split(cache.subjects, options.seed)
        train, test = SliceDataset(cache, split.train), SliceDataset(cache, split.test)
        print("sigma cooldown dice parameter signal standard_error")
        for sigma, cooldown in itertools.product(options.sigma, options.cooldown):
            given = argparse.Namespace(**{**vars(options), "sigma": sigma, "cooldown": cooldown})
            for row in rows_of(given, train, test):
                rows.append(row)
                print(*(f"{v:.3g}" if isinstance(v, float) else v for v in asdict(row).values()), flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
