"""What the options of the outer step do to the bias and the noise of the hypergradient, on the noise problem.

A segmenter is trained for a while at a fixed sigma, then frozen, and hypergradients of sigma are drawn on fresh
batches. At the true sigma their mean should be zero, away from it it should point there (negative raises sigma), and
what counts is how far the mean stands out of the spread of single draws.

    python benchmarks/hypergradient_signal.py [--truth 0.1] [--sigmas 0.02,0.05,0.1,0.2,0.4] [--steps 600] [--draws 100]
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from metasynth.data_prep.cohort import COHORTS, ensure_cohort

from metasynth.augment.noise import GaussianNoise, NoiseLevel
from metasynth.bilevel.functional import FunctionalModel
from metasynth.bilevel.hypergradient import hypergradient
from metasynth.bilevel.mixed import Mixed
from metasynth.bilevel.outer_step import CotangentMean
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.data.cache import Cache
from metasynth.data.dataset import SliceDataset
from metasynth.synthesis.cornucopia import PAPER, CornucopiaGenerator
from metasynth.training.loop import bilevel_losses
from metasynth.training.seeding import generator_for
from metasynth.training.settings import SegmenterSettings
from metasynth.training.streams import Corrupted, StepData, Synthetic, stream

MEMORIES = (0.9, 0.97)


def draws_at(sigma: float, options: argparse.Namespace, dataset: SliceDataset) -> dict[str, list[float]]:
    """Hypergradients of raw sigma by variant, at a segmenter trained with ``sigma``."""
    settings = SegmenterSettings(widths=(8, 16, 32, 64), steps=options.steps)
    generator = CornucopiaGenerator(dataset.cache.n_classes, PAPER.at_spacing(dataset.cache.info.spacing_mm[0]))
    data = StepData(
        dataset,
        Synthetic(generator),
        Corrupted(generator, NoiseLevel(options.truth, options.truth)),
        seed=options.seed,
        batch_size=settings.batch_size,
        outer_batch_size=settings.batch_size,
        is_due=lambda step: step >= options.steps,
    )
    segmenter = settings.build(dataset.cache.n_classes, 2, generator_for(options.seed, "segmenter"))
    augmenter = GaussianNoise(sigma)
    problem = BilevelProblem(*bilevel_losses(settings))
    optimizer = settings.optimizer(segmenter)
    solver = BilevelSolver(problem, segmenter, optimizer, augmenter, torch.optim.SGD(augmenter.parameters(), lr=0.0))
    model = FunctionalModel(segmenter)
    variants: dict[str, tuple[bool, Callable[[Any], Any] | None]] = {"plain": (False, None), "corrected": (True, None)}
    variants |= {f"corrected, memory {m:g}": (True, CotangentMean(m).add) for m in MEMORIES}
    found: dict[str, list[float]] = {name: [] for name in variants}
    for batch in stream(data, 0, options.steps + options.draws, options.workers):
        if batch.outer is None:
            solver.inner_step(batch.inner)
            continue
        for name, (corrected, combine) in variants.items():
            reference = batch.reference if corrected else None
            result, _ = hypergradient(
                problem, model, optimizer, augmenter, [batch.inner], batch.outer, Mixed(), reference, combine
            )
            gradient = result.gradients["raw_sigma"]
            assert gradient is not None
            # With respect to sigma itself: softplus has the derivative 1 - exp(-sigma).
            found[name].append(gradient.item() / (1 - torch.exp(-augmenter.sigma)).item())
    return found


def main() -> None:
    """Print one row a sigma and variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=float, default=0.1)
    parser.add_argument("--sigmas", type=lambda text: [float(s) for s in text.split(",")], default=[0.05, 0.1, 0.2])
    parser.add_argument("--steps", type=int, default=600, help="training before the draws")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    with Cache(ensure_cohort(COHORTS["template-64"])) as cache:
        dataset = SliceDataset(cache, cache.subjects)
        rows = []
        print(f"truth {options.truth:g}, {options.steps} steps of training, {options.draws} draws")
        print(f"{'sigma':>6}  {'variant':<24} {'mean':>10} {'sd':>10} {'mean / sd':>10}")
        for sigma in options.sigmas:
            for name, values in draws_at(sigma, options, dataset).items():
                late = values[len(values) // 3 :]  # the running means have settled by then
                mean, sd = statistics.fmean(late), statistics.stdev(late)
                rows.append({"name": name, "sigma": sigma, "mean": mean, "sd": sd, "signal": mean / sd})
                print(f"{sigma:>6g}  {name:<24} {mean:>10.3g} {sd:>10.3g} {mean / sd:>10.2f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
