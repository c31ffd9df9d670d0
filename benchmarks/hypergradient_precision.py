"""How near each strategy comes, in float32, to the exact hypergradient of a segmenter trained with Adam.

A segmenter learns the noise problem in float32; then hypergradients of sigma are taken on fresh batches in float32,
and the exact one by double backward on a copy of everything in float64. Errors are given relative to each draw's own
exact value (a draw that nearly cancels has a large one) and to the root mean square over draws.

    python benchmarks/hypergradient_precision.py [--steps 600] [--draws 30] [--widths 16-32-64-128] [--json FILE]
"""

import argparse
import copy
import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from metasynth.data_prep.cohorts.cohort import COHORTS, ensure_cohort

from metasynth.augment import GaussianNoise, NoiseLevel
from metasynth.bilevel import (
    BilevelProblem,
    BilevelSolver,
    FiniteDifference,
    Forward,
    FunctionalModel,
    HypergradientStrategy,
    InnerUpdate,
    InParts,
    Mixed,
    StepInputs,
    hypergradient,
)
from metasynth.data import Cache, SliceDataset
from metasynth.running.seeding import generator_for
from metasynth.synthesis import PAPER, BatchedGenerator
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.sources import Corrupted, Example, Synthetic
from metasynth.training.streams import StepData, stream
from metasynth.training.trainers import bilevel_losses

STRATEGIES: dict[str, HypergradientStrategy] = {
    "Mixed": Mixed(),
    "Forward": Forward(),
    "FiniteDifference": FiniteDifference(estimate_error=True),
    "FiniteDifference, step 1e-5": FiniteDifference(1e-5, estimate_error=True),
    "FiniteDifference, step 1e-4": FiniteDifference(1e-4, estimate_error=True),
    "FiniteDifference, no tolerance": FiniteDifference(tolerance=None, estimate_error=True),
    "FiniteDifference, limit 30": FiniteDifference(limit=30.0, estimate_error=True),
    "FiniteDifference, excess dropped": FiniteDifference(limit=30.0, drop_excess=True),
    "FiniteDifference, kinks free": FiniteDifference(hold_kinks=False),
    "FiniteDifference, chunks of 2": InParts(FiniteDifference(estimate_error=True), chunk=2),
}


@dataclass(frozen=True)
class Row:
    """Quantiles of the relative error of one strategy; covered is the fraction of draws within the reported bound."""

    name: str
    median: float
    worst: float
    median_of_rms: float
    worst_of_rms: float
    covered: float | None


def widened(example: Example) -> Example:
    """The same in float64."""
    draws = None if example.draws is None else example.draws.double()
    return example._replace(images=example.images.double(), draws=draws)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help="training before the draws")
    parser.add_argument("--draws", type=int, default=30)
    parser.add_argument("--widths", default="16-32-64-128")
    parser.add_argument("--sigma", type=float, default=0.2, help="noise of the training images")
    parser.add_argument("--truth", type=float, default=0.1, help="noise of the real images")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    widths = tuple(int(width) for width in options.widths.split("-"))
    settings = SegmenterSettings(widths=widths, norm="none", lr=2e-3, steps=options.steps, dice_over="image")
    problem = BilevelProblem(*bilevel_losses(settings))
    with Cache(ensure_cohort(COHORTS["template-64"])) as cache:
        dataset = SliceDataset(cache, cache.subjects)
        generator = BatchedGenerator(cache.n_generation, PAPER.at_spacing(cache.info.spacing_mm[0]))
        real = Corrupted(generator, NoiseLevel(options.truth, options.truth))
        data = StepData(
            dataset, Synthetic(generator), real, 0, 8, 8, is_due=lambda step: step >= options.steps, reference="none"
        )
        segmenter = settings.build(cache.n_classes, 2, generator_for(0, "segmenter"))
        augmenter = GaussianNoise(options.sigma)
        optimizer = settings.optimizer(segmenter)
        frozen = torch.optim.SGD(augmenter.parameters(), lr=0.0)
        solver = BilevelSolver(problem, segmenter, optimizer, augmenter, frozen)
        exact: list[float] = []
        found: dict[str, list[tuple[float, float | None]]] = {name: [] for name in STRATEGIES}
        for batch in stream(data, 0, options.steps + options.draws, 1):
            if batch.outer is None:
                solver.inner_step(batch.inner)
                continue
            double = copy.deepcopy(segmenter).double()
            its_optimizer = settings.optimizer(double)
            its_optimizer.load_state_dict(optimizer.state_dict())  # casts the moments
            result, _ = hypergradient(
                StepInputs(
                    problem,
                    FunctionalModel(double),
                    InnerUpdate(its_optimizer),
                    copy.deepcopy(augmenter).double(),
                    [widened(batch.inner)],
                ),
                widened(batch.outer),
                Mixed(),
            )
            exact.append(result.gradients["raw_sigma"].item())  # type: ignore[union-attr]
            for name, strategy in STRATEGIES.items():
                result, _ = hypergradient(
                    StepInputs(problem, FunctionalModel(segmenter), InnerUpdate(optimizer), augmenter, [batch.inner]),
                    batch.outer,
                    strategy,
                )
                value = result.gradients["raw_sigma"].item()  # type: ignore[union-attr]
                found[name].append((value, result.diagnostics.get("error")))
    rms = statistics.fmean(e * e for e in exact) ** 0.5
    rows = []
    print(f"{options.steps} steps, widths {options.widths}, {options.draws} draws; errors in percent")
    print(f"{'':34}{'median':>9}{'worst':>9}{'of rms':>9}{'worst':>9}{'covered':>9}")
    for name, values in found.items():
        errors = [abs(v - e) for (v, _), e in zip(values, exact, strict=True)]
        own = [error / abs(e) for error, e in zip(errors, exact, strict=True)]
        bounds = [bound for _, bound in values if bound is not None]
        covered = None
        if bounds:
            covered = statistics.fmean(error <= bound for error, bound in zip(errors, bounds, strict=True))
        row = Row(name, statistics.median(own), max(own), statistics.median(errors) / rms, max(errors) / rms, covered)
        rows.append(row)
        numbers = "".join(f"{100 * x:9.3f}" for x in (row.median, row.worst, row.median_of_rms, row.worst_of_rms))
        print(f"{name:34}{numbers}{'' if covered is None else f'{covered:9.2f}'}")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
