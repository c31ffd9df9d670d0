"""What a hypergradient says about intensity non-uniformity and noise, at any point on the way to the truth.

A segmenter is trained for a while with fields and noise held at given values, then frozen, and hypergradients of the
unconstrained exponents and sigma are drawn on fresh batches, each clipped at three times the median size. A positive
mean lowers the parameter. What counts is the mean per standard deviation: n draws tell a mean of 1 / sqrt(n) of it
from zero.

    python benchmarks/inu_signal.py --sigma 0.4 --c 0.9,0.9,0.9 [--reference matched] [--norm none] [--lr 2e-3]

A hypergradient is a product of v, the gap of the two domains' gradients, and M, the mixed derivative of the inner
batch. "alone" is v M with an inner batch for each; "averaged" is v times the mean of M over ``--inner`` batches, which
is what a running mean of v (`outer.memory`) comes near to.

``--reference paired`` gives the reference batch the clean images of the real ones, which leaves of the gap what
augmentation makes of it. It is a diagnosis only; real images do not come with their clean ones.
"""

import argparse
import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args, get_type_hints

import torch
from common.frozen import WIDTHS, Frozen, clipped, flat, generator_of, one_thread
from metasynth.data_prep.cohorts.cohort import COHORTS, ensure_cohort

from metasynth.augment import BiasField, Compose, Corruptions, GaussianNoise, KnownBias, NoiseLevel
from metasynth.bilevel.derivatives import Gradients
from metasynth.data import Cache, SliceDataset, draw_disjoint
from metasynth.running.device import keep_freed_memory
from metasynth.running.seeding import generator_for
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.sources import Corrupted, Example, Synthetic
from metasynth.training.streams import StepBatch, StepData, stream

NORMS = get_args(get_type_hints(SegmenterSettings)["norm"])


@dataclass(frozen=True)
class Row:
    """One parameter: mean and spread of its hypergradient, and their ratio with its standard error."""

    parameter: str
    product: str
    mean: float
    sd: float
    signal: float
    standard_error: float


class Paired(StepData):
    """The reference batch has the clean images of the real ones, and draws of its own."""

    def __getitem__(self, step: int) -> StepBatch:
        """Step ``step``'s data."""
        batch = super().__getitem__(step)
        if batch.outer is None or not isinstance(self.inner, Synthetic):
            return batch
        draw = generator_for(self.seed, "subjects", step)
        theirs = draw_disjoint(self.dataset, self.batch_size, self.outer_batch_size, draw)[1]
        clean = self.inner(self.dataset.read(theirs), generator_for(self.seed, "outer", step))
        own = self.inner.draw(clean.images, generator_for(self.seed, "paired", step))
        return batch._replace(reference=Example(clean.images, clean.labels, own))


def draws_of(options: argparse.Namespace, dataset: SliceDataset) -> dict[tuple[str, str], list[float]]:
    """Hypergradients of each unconstrained parameter, alone and averaged."""
    settings = SegmenterSettings(WIDTHS, norm=options.norm, lr=options.lr, steps=options.steps)
    generator = generator_of(dataset.cache)
    augmenter = Compose(BiasField(options.c), GaussianNoise(options.sigma))
    truth = Corruptions((KnownBias(tuple(options.true_c)), NoiseLevel(options.truth, options.truth)))
    data = (Paired if options.reference == "paired" else StepData)(
        dataset,
        Synthetic(generator, augmenter.draw),
        Corrupted(generator, truth),
        seed=options.seed,
        batch_size=settings.batch_size,
        outer_batch_size=options.real,
        is_due=lambda step: step >= options.steps,
        reference="random" if options.reference == "paired" else options.reference,
    )
    segmenter = settings.build(dataset.cache.n_classes, 2, generator_for(options.seed, "segmenter"))
    frozen = Frozen(settings, segmenter, augmenter)
    names = [*augmenter.observed()]
    gaps: list[Gradients] = []

    def product(inner: Example, outer: Example, reference: Example | None, gap: Gradients | None = None) -> list[float]:
        def combine(own: Gradients) -> Gradients:
            if gap is not None:
                return gap
            gaps.append([None if v is None else v.clone() for v in own])
            return own

        return flat(frozen.gradients(inner, outer, reference, combine))

    alone, further = [], []
    for step, batch in enumerate(stream(data, 0, options.steps + options.draws + options.inner, 0), -options.steps):
        if batch.outer is None:
            frozen.train(batch.inner)
        elif step < options.draws:
            alone.append(product(batch.inner, batch.outer, batch.reference))
        else:
            further.append(batch.inner)
    one = Example(batch.outer.images[:1], batch.outer.labels[:1], None)  # its gradient is replaced by that of the gap
    averaged = [torch.tensor([product(inner, one, None, gap) for inner in further]).mean(0).tolist() for gap in gaps]
    return {
        (name, kind): list(values)
        for kind, draws in (("alone", alone), ("averaged", averaged))
        if draws and further
        for name, values in zip(names, zip(*draws, strict=True), strict=True)
    }


def row_of(name: str, product: str, values: list[float]) -> Row:
    """The draws of a parameter, clipped."""
    kept = clipped(values)
    mean, sd = statistics.fmean(kept), statistics.stdev(kept)
    return Row(name, product, mean, sd, mean / sd, len(values) ** -0.5)


def main() -> None:
    """Print one row a parameter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=float, default=0.05, help="noise of the real images")
    parser.add_argument("--true-c", type=_three, default=[0.5, 0.5, 0.5], help="exponents of their fields")
    parser.add_argument("--sigma", type=float, default=0.05, help="noise of the segmenter's images")
    parser.add_argument("--c", type=_three, default=[0.5, 0.5, 0.5], help="exponents of their fields")
    parser.add_argument("--norm", choices=NORMS, default="none")
    parser.add_argument("--lr", type=float, default=2e-3, help="of the segmenter")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--real", type=int, default=16, help="real, and reference, images a draw")
    parser.add_argument("--inner", type=int, default=6, help="inner batches that M is averaged over")
    parser.add_argument("--reference", choices=("random", "matched", "paired"), default="random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    if min(options.draws, options.inner) < 2:
        parser.error(f"--draws and --inner: must be at least 2, got {options.draws} and {options.inner}")
    one_thread()
    keep_freed_memory()
    with Cache(ensure_cohort(COHORTS["template-64"])) as cache:
        draws = draws_of(options, SliceDataset(cache, cache.subjects))
    rows = [row_of(*key, values) for key, values in draws.items()]
    print(
        f"truth {options.truth:g}, {options.true_c}; trained {options.steps} steps with {options.sigma:g}, {options.c}"
    )
    print(f"{'parameter':<10}{'v M':<10}{'mean':>11}{'sd':>11}{'mean/sd':>9}{'+-':>6}")
    for row in rows:
        print(
            f"{row.parameter:<10}{row.product:<10}{row.mean:>11.2e}{row.sd:>11.2e}{row.signal:>9.2f}{row.standard_error:>6.2f}"
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))


def _three(text: str) -> list[float]:
    values = [float(part) for part in text.split(",")]
    if len(values) != 3:
        raise argparse.ArgumentTypeError(f"expected three exponents, got {text!r}")
    return values


if __name__ == "__main__":
    main()
