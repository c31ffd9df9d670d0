"""What the options of the outer step do to the bias and the noise of the hypergradient, on the noise problem.

A segmenter is trained for a while at a fixed sigma, then frozen, and hypergradients of sigma are drawn on fresh
batches. At the true sigma their mean should be zero, away from it it should point there (negative raises sigma), and
what counts is how far the mean stands out of the spread of single draws.

    python benchmarks/hypergradient_signal.py [--truth 0.1] [--sigmas 0.05,0.1,0.2] [--steps 100,600] [--draws 100]
    python benchmarks/hypergradient_signal.py --variants gap --real 32 --loss dice --sigmas 0.07,0.14 --steps 700
"""

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch
from common.frozen import CLIP, WIDTHS, Frozen, generator_of, one_thread
from metasynth.data_prep.cohorts.cohort import COHORTS, ensure_cohort

from metasynth.augment import GaussianNoise, NoiseLevel
from metasynth.bilevel import OuterStep
from metasynth.bilevel.outer_step import Accumulator, CotangentMean
from metasynth.data import Cache, SliceDataset
from metasynth.running.seeding import generator_for
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.sources import Corrupted, Synthetic
from metasynth.training.streams import StepData, stream

AVERAGE = 5
LOSSES, NORMS = (get_args(get_type_hints(SegmenterSettings)[name]) for name in ("loss", "norm"))
MEMORIES = (0.9, 0.97)
VARIANTS = ("plain", f"memory {MEMORIES[0]:g}", "gap", *(f"gap, memory {m:g}" for m in MEMORIES))
SETTLED = 30
"""Draws left out at the start, in which running means and scales find their level."""


@dataclass(frozen=True)
class Row:
    """One variant at one sigma after so many steps of training; signal is mean / sd of what enters one outer step."""

    steps: int
    sigma: float
    name: str
    mean: float
    standard_error: float
    sd: float
    signal: float
    largest: float


def draws_at(sigma: float, steps: int, options: argparse.Namespace, dataset: SliceDataset) -> dict[str, list[float]]:
    """Hypergradients of sigma by variant of v, at a segmenter trained with ``sigma``."""
    settings = SegmenterSettings(WIDTHS, norm=options.norm, loss=options.loss, lr=options.lr, steps=steps)
    generator = generator_of(dataset.cache)
    data = StepData(
        dataset,
        Synthetic(generator),
        Corrupted(generator, NoiseLevel(options.truth, options.truth)),
        seed=options.seed,
        batch_size=settings.batch_size,
        outer_batch_size=options.real or settings.batch_size,
        is_due=lambda step: step >= steps,
    )
    segmenter = settings.build(dataset.cache.n_classes, 2, generator_for(options.seed, "segmenter"))
    augmenter = GaussianNoise(sigma)
    frozen = Frozen(settings, segmenter, augmenter)
    variants: dict[str, tuple[bool, Callable[[Any], Any] | None]] = {
        "plain": (False, None),
        f"memory {MEMORIES[0]:g}": (False, CotangentMean(MEMORIES[0]).add),
        "gap": (True, None),
    }
    variants |= {f"gap, memory {m:g}": (True, CotangentMean(m).add) for m in MEMORIES}
    variants = {name: variants[name] for name in options.variants}
    found: dict[str, list[float]] = {name: [] for name in variants}
    for batch in stream(data, 0, steps + SETTLED + options.draws, options.workers):
        if batch.outer is None:
            frozen.train(batch.inner)
            continue
        for name, (corrected, combine) in variants.items():
            reference = batch.reference if corrected else None
            gradient = frozen.gradients(batch.inner, batch.outer, reference, combine)["raw_sigma"]
            # With respect to sigma itself: softplus has the derivative 1 - exp(-sigma).
            found[name].append(gradient.item() / (1 - torch.exp(-augmenter.sigma)).item())
    return found


def after(draws: list[float], step: OuterStep) -> list[float]:
    """What an `OuterStep` makes of a sequence of draws: one value an outer step."""
    accumulator, found = Accumulator(step, ["sigma"]), []
    for value in draws:
        mean = accumulator.add({"sigma": torch.tensor(value)})
        if mean is not None and mean["sigma"] is not None:
            found.append(mean["sigma"].item())
    return found


def rows_at(sigma: float, steps: int, options: argparse.Namespace, dataset: SliceDataset) -> list[Row]:
    """The variants of v, and the plain and the gap-corrected draws averaged or clipped."""
    draws = draws_at(sigma, steps, options, dataset)
    processed = dict(draws)
    for name in (name for name in ("plain", "gap") if name in draws):
        processed[f"{name}, clip {CLIP:g}"] = after(draws[name], OuterStep(clip=CLIP))
        processed[f"{name}, average {AVERAGE}"] = after(draws[name], OuterStep(average=AVERAGE))
    rows = []
    for name, values in processed.items():
        kept = values[len(values) * SETTLED // len(next(iter(draws.values()))) :]
        mean, sd = statistics.fmean(kept), statistics.stdev(kept)
        typical = statistics.median(abs(v) for v in kept)
        # The draws of a running mean hang together over about (1 + m) / (1 - m) of them.
        memory = float(name.rsplit(" ", 1)[1]) if "memory" in name else 0.0
        independent = max(1.0, len(kept) * (1 - memory) / (1 + memory))
        error = sd / independent**0.5
        rows.append(Row(steps, sigma, name, mean, error, sd, mean / sd, max(abs(v) for v in kept) / typical))
    return rows


def main() -> None:
    """Print one row a number of steps, sigma and variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=float, default=0.1)
    parser.add_argument("--sigmas", type=lambda text: [float(s) for s in text.split(",")], default=[0.05, 0.1, 0.2])
    parser.add_argument("--steps", type=lambda text: [int(s) for s in text.split(",")], default=[100, 600])
    parser.add_argument("--loss", choices=LOSSES, default=SegmenterSettings().loss)
    parser.add_argument("--norm", choices=NORMS, default=SegmenterSettings().norm)
    parser.add_argument("--lr", type=float, default=SegmenterSettings().lr, help="of the segmenter")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--real", type=int, default=0, help="real, and reference, images a draw; as many as inner ones")
    parser.add_argument("--variants", type=_variants, default=VARIANTS, help="some of: " + "; ".join(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    if options.draws < 2 * AVERAGE:
        parser.error(f"--draws: must be at least {2 * AVERAGE}, got {options.draws}")
    one_thread()
    with Cache(ensure_cohort(COHORTS["template-64"])) as cache:
        dataset = SliceDataset(cache, cache.subjects)
        rows = []
        print(f"truth {options.truth:g}, {options.draws} draws; largest: the largest |h| over the median")
        print(
            f"{'steps':>5} {'sigma':>6}  {'variant':<16} {'mean':>10} {'+-':>9} {'sd':>9} {'mean/sd':>8} {'largest':>8}"
        )
        for steps in options.steps:
            for sigma in options.sigmas:
                for row in rows_at(sigma, steps, options, dataset):
                    rows.append(row)
                    print(
                        f"{steps:>5} {sigma:>6g}  {row.name:<16} {row.mean:>10.3g} {row.standard_error:>9.2g}"
                        f" {row.sd:>9.2g} {row.signal:>8.2f} {row.largest:>8.1f}",
                        flush=True,
                    )
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))


def _variants(text: str) -> list[str]:
    names = [name.strip() for name in text.split(";")]
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such variant: {', '.join(unknown)}; there are {'; '.join(VARIANTS)}")
    return names


if __name__ == "__main__":
    main()
