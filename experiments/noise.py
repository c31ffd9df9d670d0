"""Paper section 4.1.1: is the noise of the "real" images recovered, and is what was found the best to train with?

"Real" images are synthetic ones with Gaussian noise of a preset level. Learn2Synth (L) sees noise-free synthetic
images and learns, from the real ones, the sigma of the noise to add (Eq. 8), starting from a wrong value. Two plain
segmenters stand beside it: one trained with the preset noise (N, naive) and one with the sigma that was found
(O, optimised). All three are tested on every noise level.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from metasynth.data_prep.cohort import COHORTS, ensure_cohort
from numpy.typing import NDArray
from torch import nn

from metasynth.augment.noise import GaussianNoise, NoiseLevel, add_noise, standard_normal
from metasynth.report.html import ReportContent
from metasynth.report.published import NOISE_ONLY
from metasynth.report.recovery import (
    class_table,
    dice_figure,
    dice_table,
    error_of,
    image_figure,
    segmentation_figure,
    sigma_figure,
    sigma_table,
)
from metasynth.synthesis.config import PAPER, CornucopiaConfig
from metasynth.training.evaluation import TestSet, evaluate, middle_plane, segment
from metasynth.training.loop import Pace
from metasynth.training.progress import Progress
from metasynth.training.records import RunFolder
from metasynth.training.recovery import (
    GeneratorName,
    check_cache,
    gather,
    load_examples,
    save_examples,
    trajectory_of,
)
from metasynth.training.seeding import generator_for
from metasynth.training.settings import OuterSettings, SegmenterSettings
from metasynth.training.stages import learn, train_plain
from metasynth.training.streams import Corrupted
from metasynth.training.study import Experiment, PreparedData, StudyContext

LEVELS = tuple(map(NoiseLevel.parse, ("0", "0.05", "0.1", "0.15", "0.025:0.2")))


@dataclass(frozen=True)
class NoiseConfig:
    """Settings of the study.

    Attributes
    ----------
    sigma : tuple of NoiseLevel
        Preset levels of the real images: a number, or LOW:HIGH for one drawn per image.
    start : float
        Where the learned sigma starts.
    test : tuple of NoiseLevel
        Levels of the test images.
    test_repeats : int
        Synthetic test images of each test slice.
    baselines : bool
        Train N and O too; without them a run only recovers sigma.
    cohort : str
        The embedded cohort that is used when no cache is given.
    segmenter, outer, pace :
        See the classes.
    generator : {'batched', 'cornucopia'}
        What makes the images.
    synthesis : CornucopiaConfig
        Its steps for voxels of 1 mm; widths in voxels are adapted to the cache's.
    """

    sigma: tuple[NoiseLevel, ...] = LEVELS
    start: float = 0.4
    test: tuple[NoiseLevel, ...] = LEVELS
    test_repeats: int = 2
    baselines: bool = True
    cohort: Literal["template-64", "template-96", "template-192"] = "template-96"
    segmenter: SegmenterSettings = field(default_factory=SegmenterSettings)
    outer: OuterSettings = field(default_factory=OuterSettings)
    generator: GeneratorName = "batched"
    synthesis: CornucopiaConfig = PAPER
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        for name in ("sigma", "test"):
            labels = [level.label for level in getattr(self, name)]
            if not labels or len(set(labels)) != len(labels):
                raise ValueError(f"{name} must list at least one noise level, each once, got {labels}")
        if not 0 < self.start < float("inf"):
            raise ValueError(f"start must be a positive number, got {self.start}")
        if self.test_repeats < 1:
            raise ValueError(f"test_repeats must be at least 1, got {self.test_repeats}")
        if self.outer.warmup >= self.segmenter.steps:
            raise ValueError(
                f"outer.warmup must be below segmenter.steps = {self.segmenter.steps}, got {self.outer.warmup}"
            )
        if not self.outer.outer_steps(self.segmenter.steps):
            raise ValueError(
                f"outer.average must leave an outer step in segmenter.steps = {self.segmenter.steps} with outer.warmup "
                f"= {self.outer.warmup} and outer.every = {self.outer.every}, got {self.outer.average}"
            )


PRESETS = {
    "quick": NoiseConfig(
        sigma=LEVELS[2:3],
        cohort="template-64",
        # With the generator and layout that its published seeds were recovered with.
        segmenter=SegmenterSettings(widths=(8, 16, 32, 64), steps=1200, channels_last=False),
        generator="cornucopia",
    ),
    "standard": NoiseConfig(segmenter=SegmenterSettings(widths=(8, 16, 32, 64), steps=2000)),
    "paper": NoiseConfig(
        cohort="template-192",
        segmenter=SegmenterSettings(lr=1e-3, batch_size=64, steps=9000),
        outer=OuterSettings(batch_size=64, warmup=500),
        pace=Pace(checkpoint_every=500, workers=8),
    ),
}


def prepare(config: NoiseConfig, data: Path | None, progress: Progress) -> PreparedData:
    """The user's cache, or the embedded cohort (made on first use)."""
    if data is None:
        with progress.counter(f"embedded cohort {config.cohort}") as follow:
            data = ensure_cohort(COHORTS[config.cohort], progress=follow)
    return check_cache(data, levels=len(config.segmenter.widths))


def run(context: StudyContext) -> dict[str, Any]:
    """Learn each preset level, train its baselines, and test the three segmenters on every level."""
    config: NoiseConfig = context.config
    material = gather(context, config.synthesis, config.test_repeats, config.generator)
    rows: list[dict[str, Any]] = []
    examples: dict[str, NDArray[Any]] = {}
    for level in config.sigma:
        augmenter = GaussianNoise(config.start)
        real = Corrupted(material.generator, level)
        found = learn(context, material, learning(level.label), augmenter, real, _observe(augmenter))
        sigma = found.mean["sigma"]
        trained: dict[str, tuple[nn.Module, Any, float]] = {"L": (found.segmenter, None, found.seconds)}
        if config.baselines:
            same = Corrupted(material.generator, NoiseLevel(sigma, sigma))
            naive, seconds = train_plain(context, material, f"sigma={level.label}/naive", real)
            optimised, more_seconds = train_plain(context, material, f"sigma={level.label}/optimised", same)
            trained = {"N": (naive, level.to_json(), seconds), **trained, "O": (optimised, sigma, more_seconds)}
        for model, (segmenter, sigma_train, seconds) in trained.items():
            rows.append(
                {
                    "model": model,
                    "sigma_true": level.to_json(),
                    "sigma_learned": sigma,
                    "sigma_sd": found.sd["sigma"],
                    "sigma_train": sigma_train,
                    "steps": config.segmenter.steps,
                    "wall_s": round(seconds, 3),
                    "dice": evaluate(segmenter, material.test, config.test, context.device),
                }
            )
        segmenters = {model: segmenter for model, (segmenter, *_) in trained.items()}
        examples.update(_examples(context, material.test, level, sigma, segmenters))
    save_examples(context.folder, examples)
    return {"rows": rows, "reference": NOISE_ONLY}


def learning(label: str) -> str:
    """Name of the stage that learns a level."""
    return f"sigma={label}/learn"


def _observe(augmenter: GaussianNoise) -> Callable[[], dict[str, float]]:
    return lambda: {"sigma": augmenter.sigma.item()}


def _examples(
    context: StudyContext, test: TestSet, level: NoiseLevel, sigma: float, segmenters: Mapping[str, nn.Module]
) -> dict[str, NDArray[Any]]:
    """One test image three ways (Figure 2) and its segmentations, keyed by the level."""
    item = test.fullest()
    clean, real = test.images[item : item + 1], test.noisy(level)[item : item + 1]
    draws = standard_normal(clean, generator_for(context.seed, "example", level.label))
    shown = {
        "noise_free": clean[0, 0],
        "learned": add_noise(clean, sigma, draws)[0, 0],
        "real": real[0, 0],
        "truth": test.labels[item],
        **{model: segment(segmenter, real, context.device)[0] for model, segmenter in segmenters.items()},
    }
    return {f"{level.label}/{name}": middle_plane(image).numpy() for name, image in shown.items()}


def report(folder: RunFolder) -> ReportContent:
    """Tables 1 and 2, the course of sigma, Figure 2, segmentations and Dice by condition."""
    rows, config = folder.results["rows"], folder.manifest["config"]
    learned = [row for row in rows if row["model"] == "L"]
    labels = [_label(row["sigma_true"]) for row in learned]
    records, shown = folder.read_metrics(), load_examples(folder)
    courses = {name: trajectory_of(records, learning(name), "sigma") for name in labels}
    class_names = list(next(iter(rows[0]["dice"].values()))["per_class"])
    published = dict(zip(NOISE_ONLY["levels"], NOISE_ONLY["table_1"], strict=True))
    return ReportContent(
        title="The noise of the real images, learned through the segmenter's training",
        summary=_summary(learned, config),
        tables=[sigma_table(learned, _label, published), dice_table(rows, _label), class_table(rows, _label)],
        figures=[
            sigma_figure(courses, learned, _label, config["start"]),
            image_figure(shown, labels),
            segmentation_figure(shown, labels[0], class_names),
            dice_figure(rows, _label, labels[0]),
        ],
    )


def _label(value: Any) -> str:
    return NoiseLevel.from_json(value).label


def _summary(learned: list[dict[str, Any]], config: dict[str, Any]) -> list[str]:
    found = [
        f"Preset sigma {_label(row['sigma_true'])}: learned {row['sigma_learned']:.4f}"
        + ("." if error_of(row) is None else f", an error of {error_of(row):.4f}.")
        for row in learned
    ]
    steps, start = config["segmenter"]["steps"], config["start"]
    return [
        f"A segmenter was trained on synthetic images for {steps} steps. The noise added to them started at sigma = "
        f"{start:g} and was then moved by hypergradients of the segmenter's loss on real images only; the segmenter "
        "itself never saw these.",
        *found,
        "The real images are synthetic images with the preset noise, so that the truth is known; the anatomy is that "
        "of the cache named below. The learned value is the mean over the last tenth of the outer steps.",
    ]


EXPERIMENT = Experiment(
    name="noise",
    question="Is the noise of the real images recovered, and is it the best to train with? (paper 4.1.1)",
    presets=PRESETS,
    prepare=prepare,
    run=run,
    report=report,
)
