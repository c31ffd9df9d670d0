"""Paper section 4.1.1: is the noise of the "real" images recovered, and is what was found the best to train with?

"Real" images are synthetic ones with Gaussian noise of a preset level. Learn2Synth (L) sees noise-free synthetic
images and learns, from the real ones, the sigma of the noise to add (Eq. 8), starting from a wrong value. Two plain
segmenters stand beside it: one trained with the preset noise (N, naive) and one with the sigma that was found
(O, optimised). All three are tested on every noise level. The sizes of the presets are in
`metasynth.experiments.recovery.study`.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from metasynth.data_prep.cohorts.cohort import embedded
from metasynth.experiments.recovery.augmenters import case_of, check_augmenter, learned_text, learned_values, start_of
from metasynth.experiments.recovery.figures import example_figures
from metasynth.experiments.recovery.grid_report import RecoveryGridReport
from metasynth.experiments.recovery.images import learned_images
from metasynth.experiments.recovery.machine import require_recovery
from metasynth.experiments.recovery.rows import CONTENTS, level_label
from metasynth.experiments.recovery.sizes import SIZES
from metasynth.experiments.recovery.study import (
    LEVELS,
    RecoveryCase,
    RecoveryConfig,
    batches_of,
    bilevel_stage,
    recover,
)
from metasynth.experiments.recovery.study_data import check_cache, load_study_data
from metasynth.experiments.recovery.tables import class_table, dice_table

from metasynth.augment.entry import Start
from metasynth.augment.table import entry_of, names
from metasynth.data.cache import Cache
from metasynth.report.html import ReportContent
from metasynth.report.published import NOISE_ONLY
from metasynth.running.prepared import PreparedData
from metasynth.running.progress import Progress
from metasynth.running.records import CONFIG, RunFolder
from metasynth.running.settings.values import OneOf
from metasynth.running.study import Experiment, StudyContext
from metasynth.schema import COUNT, NUMBER, TEXT, entries
from metasynth.training.network_check import require_cache


@dataclass(frozen=True)
class NoiseConfig(RecoveryConfig):
    """Settings of the study, beside those of `RecoveryConfig`.

    Attributes
    ----------
    augmenter : {'fixed', 'random_amplitude', 'range'} or one from outside the package
        The noise that is learned: of one sigma (Eq. 8), of sigma times a normal draw per image (Eq. 9), or of a sigma
        drawn per image from a range of which both ends are learned (as in the authors' code), from 0.1 to 1 ``start``.
    """

    augmenter: Annotated[str, OneOf(partial(names, "noise"))] = "fixed"


PRESETS = {
    "quick": NoiseConfig(sigma=LEVELS[2:3], **SIZES["quick"]),
    "standard": NoiseConfig(**SIZES["standard"]),
    "paper": NoiseConfig(**SIZES["paper"]),
    "quick-3d": NoiseConfig(sigma=LEVELS[2:3], **SIZES["quick-3d"]),
}


def prepare(config: NoiseConfig, data: Path | None, progress: Progress) -> PreparedData:
    """The user's cache, or the embedded cohort (made on first use)."""
    if data is None:
        require_cache(config.segmenter, "labels LABEL_MAPS")
        data = embedded(config.cohort, progress.counter)
    prepared = check_cache(data, config.segmenter, config)
    check_augmenter(config.augmenter, prepared, "augmenter", config.segmenter.window, sigma=config.start)
    return prepared


def check_sizes(config: NoiseConfig, prepared: PreparedData, out: Path) -> None:
    """UsageError if the machine cannot hold a run; fields and networks have the table's sizes here."""
    entry = entry_of(config.augmenter)
    require_recovery(config, prepared, out, Start.nodes if entry.fields else (), Start.network if entry.network else ())


def run(context: StudyContext) -> dict[str, Any]:
    """Learn each preset level, train its baselines, and test the three segmenters on every level."""
    config: NoiseConfig = context.config
    data = load_study_data(context, config.synthesis, config.test_repeats, config.generator)
    return {"rows": recover(context, data, _cases(context, data.train.cache)), "reference": NOISE_ONLY}


def _cases(context: StudyContext, cache: Cache) -> list[RecoveryCase]:
    config: NoiseConfig = context.config
    return [
        case_of(
            config.augmenter,
            start_of(cache, context.seed, sigma=config.start),
            level,
            level,
            {"sigma_true": level.to_json()},
        )
        for level in config.sigma
    ]


def report(folder: RunFolder) -> ReportContent:
    """Tables 1 and 2, the course of sigma, Figure 2, segmentations and Dice by condition."""
    rows, config = folder.results["rows"], folder.manifest["config"]
    learned = [row for row in rows if row["model"] == "L"]
    labels = [level_label(row["sigma_true"]) for row in learned]
    published = dict(zip(NOISE_ONLY["levels"], NOISE_ONLY["table_1"], strict=True))
    table, figures = learned_values(folder, learned, level_label, published)
    return ReportContent(
        title="The noise of the real images, learned through the segmenter's training",
        summary=_summary(learned, config),
        tables=[table, dice_table(rows, level_label), class_table(rows, level_label)],
        figures=[*figures, *example_figures(folder, rows, labels, level_label)],
    )


def _summary(learned: list[dict[str, Any]], config: dict[str, Any]) -> list[str]:
    found = [f"Preset sigma {level_label(row['sigma_true'])}: {learned_text(row)}." for row in learned]
    steps, start = config["segmenter"]["steps"], config["start"]
    what = f"The noise added to them started at sigma = {start:g} and was"
    if "sigma_learned" not in learned[0]:
        what = f"They were changed by the augmenter {config['augmenter']}, whose parameters were"
    return [
        f"A segmenter was trained on synthetic images for {steps} steps. {what} then "
        "moved by hypergradients of the segmenter's loss on real images only; the segmenter "
        "itself never saw these.",
        *found,
        "The real images are synthetic images with the preset noise, so that the truth is known; the anatomy is that "
        "of the cache named below. The learned value is the mean over the last tenth of the outer steps.",
    ]


_SETTINGS = {"start": NUMBER, "augmenter": TEXT, "segmenter": entries({"steps": COUNT})}
EXPERIMENT = Experiment(
    name="noise",
    question="Is the noise of the real images recovered, and is it the best to train with? (paper 4.1.1)",
    presets=PRESETS,
    prepare=prepare,
    run=run,
    report=report,
    check_sizes=check_sizes,
    grid_report=RecoveryGridReport("The noise of the real images, learned in many runs", level_label, bilevel_stage),
    contents={**CONTENTS, CONFIG: entries({"config": entries(_SETTINGS)})},
    images=partial(learned_images, cases_of=_cases),
    batches=batches_of,
)
