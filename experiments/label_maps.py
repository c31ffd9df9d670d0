"""How good is a segmenter that is trained on label maps alone, no scan seen, to be used on scans?

Images are synthesised from label maps in random contrasts, with fields, noise and coarse voxels (SynthSeg: Billot et
al., Medical Image Analysis 86 (2023) 102789); a share of them in the contrasts of a file of priors, where there is
one. Four fifths of the subjects are learned from; synthetic images of the others say whether it has learned, not how
good it is on scans. Nothing is learned about the images: this is what the segmenters of the package are trained with.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from metasynth.data_prep.cohorts.cohort import embedded
from metasynth.experiments.recovery.machine import require_test_set
from metasynth.experiments.recovery.study_data import check_cache, split_of_run

from metasynth.augment.noise import NoiseLevel
from metasynth.data.cache import Cache
from metasynth.data.dataset import Batch, SliceDataset, draw_items
from metasynth.report.html import ReportContent
from metasynth.report.tables import Table
from metasynth.running.prepared import PreparedData
from metasynth.running.progress import Progress
from metasynth.running.records import METRICS, RESULTS, RunFolder
from metasynth.running.seeding import generator_for
from metasynth.running.settings.bounds import require_at_least
from metasynth.running.study import Experiment, StudyContext
from metasynth.schema import TEXT, entries, json_value, listing
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.config import PAPER, CornucopiaConfig
from metasynth.synthesis.generator import SeededGenerator
from metasynth.synthesis.priors.structure_priors import StructurePriors
from metasynth.training.evaluation import evaluate, make_test_set
from metasynth.training.loop import Pace, Stage, run_stage
from metasynth.training.network_check import require_cache
from metasynth.training.priors import priors_in
from metasynth.training.run_sizes import Items, require_run
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.settings import OuterSettings
from metasynth.training.sources import Example, LearnedImages, in_patches
from metasynth.training.stages import keep_segmenter, plain_trainer, segmenter_for
from metasynth.training.streams import StepBatch, Steps

STAGE = "segmenter"
RANDOM, KNOWN = "random contrasts", "contrasts of the priors"
_CLEAN = NoiseLevel.parse("0")  # the generator's own noise is in the test images


@dataclass(frozen=True)
class LabelMapsConfig:
    """Settings of the study.

    Attributes
    ----------
    share : float
        Of the images in the contrasts of ``synthesis.priors``, in [0, 1]; without such a file all are random.
    inverted : float
        Of the images in the contrasts of ``synthesis.priors``, in [0, 1]: dark what is bright there, roughly as T2
        weighting shows what T1 weighting does.
    test_repeats : int
        Synthetic test images of each test slice.
    cohort : str
        The embedded cohort that is used when no cache is given.
    segmenter, synthesis, pace :
        The segmenter and its training, the generator, and checkpoints and workers.
    """

    share: float = 0.5
    inverted: float = 0.0
    test_repeats: int = 1
    cohort: str = "template-96"
    segmenter: SegmenterSettings = field(
        default_factory=lambda: SegmenterSettings(norm="instance", lr=5e-3, steps=20_000, cooldown=0.3)
    )
    synthesis: CornucopiaConfig = field(default_factory=lambda: replace(PAPER, bias=7, snr=10.0, resolution=3.0))
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        for name in ("share", "inverted"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        require_at_least(1, test_repeats=self.test_repeats)

    @property
    def outer(self) -> OuterSettings:
        """Nothing is learned about the images: the largest batch is that of the segmenter."""
        return OuterSettings(batch_size=self.segmenter.batch_size)


_QUICK = SegmenterSettings(widths=(8, 16, 32, 64), norm="instance", lr=5e-3, steps=1500, cooldown=0.3)
PRESETS = {"quick": LabelMapsConfig(cohort="template-64", segmenter=_QUICK), "standard": LabelMapsConfig()}


@dataclass(frozen=True)
class Mixed:
    """Synthetic images, each by one of several generators, drawn by their weights."""

    makers: tuple[SeededGenerator, ...]
    weights: tuple[float, ...]

    def __call__(self, batch: Batch, generator: torch.Generator) -> Example:
        """Images and deformed labels of a batch's label maps."""
        given = batch.structures
        ends = torch.tensor(self.weights).cumsum(0)[:-1]
        chosen = torch.bucketize(torch.rand(len(given), generator=generator), ends, right=True)
        seeds, shape = self.makers[0].draw_seeds(len(given), generator), self.makers[0].made_shape(given)
        images, structures = torch.empty(len(given), 1, *shape), given.new_empty(len(given), *shape)
        for at, maker in enumerate(self.makers):
            own = chosen == at
            if bool(own.any()):
                images[own], structures[own] = maker.synthesise(given[own], seeds[own])
        return Example.of(batch, images, structures)


@dataclass(frozen=True)
class MapData(Steps):
    """The data of every step: items of all subjects, evenly drawn, and images of them."""

    dataset: SliceDataset
    source: Mixed

    def __getitem__(self, step: int) -> StepBatch:
        items = draw_items(self.dataset, self.batch_size, generator_for(self.seed, "subjects", step))
        return StepBatch(self.source(self.dataset.read(items), generator_for(self.seed, "inner", step)), None, None)


def prepare(config: LabelMapsConfig, data: Path | None, progress: Progress) -> PreparedData:
    """The user's cache, or the embedded cohort (made on first use)."""
    if data is None:
        require_cache(config.segmenter, "labels LABEL_MAPS")
        data = embedded(config.cohort, progress.counter)
    return check_cache(data, config.segmenter, config)


def check_sizes(config: LabelMapsConfig, prepared: PreparedData, out: Path) -> None:
    """UsageError if the machine cannot hold a run."""
    items = Items.of(prepared.path)
    require_run(config, items, out)
    require_test_set(items, config.test_repeats)


def run(context: StudyContext) -> dict[str, Any]:
    """Train the segmenter and test it on synthetic images of other people."""
    config: LabelMapsConfig = context.config
    cache = Cache(context.data, check_values=False)  # checked before the folder was made
    split = split_of_run(context, cache)
    generators = _generators(config, cache, context)
    data = MapData(
        dataset=SliceDataset(cache, (*split.train, *split.val)),
        source=_mixed(config, generators, cache),
        seed=context.seed,
        batch_size=config.segmenter.batch_size,
    )
    segmenter = segmenter_for(context, cache)
    trainer = plain_trainer(context, segmenter, config.segmenter)
    seconds = run_stage(Stage(STAGE, config.segmenter.steps, data), trainer, config.pace, context)
    keep_segmenter(context, cache, STAGE, segmenter)
    held_out, dice = SliceDataset(cache, split.test), {}
    for name, generator in generators.items():
        test = make_test_set(held_out, generator, context.seed, config.test_repeats)
        (dice[name],) = evaluate(segmenter, test, (_CLEAN,), context.device, config.segmenter.window).values()
    return {"rows": [{"steps": config.segmenter.steps, "wall_s": seconds, "dice": dice}]}


def images(context: StudyContext) -> Mapping[str, LearnedImages]:
    """The segmenter's training images: nothing is learned about them."""
    config: LabelMapsConfig = context.config
    cache = Cache(context.data, check_values=False)
    split, source = split_of_run(context, cache), _mixed(config, _generators(config, cache, context), cache)
    return {STAGE: LearnedImages(SliceDataset(cache, (*split.train, *split.val)), source)}


def _mixed(config: LabelMapsConfig, generators: Mapping[str, BatchedGenerator], cache: Cache) -> Mixed:
    patches, target = config.segmenter.patches, cache.target.tolist()
    share, made = 0.0, [generators[RANDOM]]
    if KNOWN in generators:
        share = config.share
        made += [generators[KNOWN], _inverted(generators[KNOWN])]
    weights = (1 - share, share * (1 - config.inverted), share * config.inverted)[: len(made)]
    return Mixed(tuple(in_patches(each, patches, target) for each in made), weights)


def _inverted(known: BatchedGenerator) -> BatchedGenerator:
    """Intensities 1 - m where there are m; fields, blur and noise come later, so that they tell nothing of it."""
    assert known.priors is not None
    air, *labels = known.priors.labels
    turned = StructurePriors((air, *(replace(label, mean=1 - label.mean) for label in labels)))
    return BatchedGenerator(known.n_classes, known.config, priors=turned, head=known.head)


def _generators(config: LabelMapsConfig, cache: Cache, context: StudyContext) -> dict[str, BatchedGenerator]:
    """What makes images of random contrasts, and of those of the priors where there are some."""
    synthesis, head = config.synthesis.at_spacing(min(cache.info.spacing_mm)), cache.info.shows_heads
    found = {RANDOM: BatchedGenerator(cache.n_generation, replace(synthesis, priors=""), head=head)}
    priors = priors_in(context.others, cache).get("synthesis")
    if priors is not None:
        found[KNOWN] = BatchedGenerator(cache.n_generation, synthesis, priors=priors, head=head)
    return found


def report(folder: RunFolder) -> ReportContent:
    """Dice of every class on synthetic images of people who were not learned from."""
    (row,) = folder.results["rows"]
    _, *foreground = row["dice"][RANDOM]["per_class"]
    records = [
        {"class": name, **{condition: scores["per_class"][name] for condition, scores in row["dice"].items()}}
        for name in foreground
    ]
    means = ", ".join(f"{scores['mean']:.3f} in {condition}" for condition, scores in row["dice"].items())
    return ReportContent(
        title="A segmenter trained on label maps alone",
        summary=[
            f"A segmenter was trained on synthetic images for {row['steps']} steps; no scan was seen. Its mean Dice on "
            f"synthetic images of other people is {means}. What it is on scans, metasynth evaluate says.",
        ],
        tables=[Table.from_records("Dice per class, mean over test subjects.", records)],
        figures=[],
    )


QUESTION = "How good is a segmenter that is trained on label maps alone, no scan seen?"
CONTENTS = {
    METRICS: listing(entries({"stage": TEXT}), least=1),
    RESULTS: entries({"rows": listing(entries({"steps": json_value, "dice": json_value}), length=1)}),
}
EXPERIMENT = Experiment(
    name="label_maps",
    question=QUESTION,
    presets=PRESETS,
    prepare=prepare,
    run=run,
    report=report,
    check_sizes=check_sizes,
    contents=CONTENTS,
    images=images,
    batches=lambda config: {"segmenter.batch_size": config.segmenter.batch_size},
)
