"""Paper section 4.1.1: is the noise of the "real" images recovered, and is what was found the best to train with?

"Real" images are synthetic ones with Gaussian noise of a preset level. Learn2Synth (L) sees noise-free synthetic
images and learns, from the real ones, the sigma of the noise to add (Eq. 8), starting from a wrong value. Two plain
segmenters stand beside it: one trained with the preset noise (N, naive) and one with the sigma that was found
(O, optimised). All three are tested on every noise level.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from metasynth.data_prep.cohorts.cohort import embedded
from metasynth.experiments.recovery.grid_report import RecoveryGridReport
from metasynth.experiments.recovery.material import check_cache, load_study_data
from metasynth.experiments.recovery.sizes import require_recovery
from metasynth.experiments.recovery.study import LEVELS, SIZES, RecoveryCase, RecoveryConfig, bilevel_stage, recover
from metasynth.experiments.recovery.tables import (
    CONTENTS,
    class_table,
    dice_figure,
    dice_table,
    error_of,
    image_figure,
    segmentation_figure,
    sigma_figure,
    sigma_table,
)

from metasynth.augment.noise import GaussianNoise, NoiseLevel
from metasynth.augment.varying_noise import NoiseRange, RandomAmplitudeNoise
from metasynth.report.html import ReportContent
from metasynth.report.published import NOISE_ONLY
from metasynth.running.examples import load_examples, save_examples
from metasynth.running.prepared import PreparedData
from metasynth.running.progress import Progress
from metasynth.running.records import CONFIG, RunFolder
from metasynth.running.study import Experiment, StudyContext
from metasynth.schema import COUNT, NUMBER, TEXT, entries
from metasynth.training.courses import course_of
from metasynth.training.stages import BilevelResult


@dataclass(frozen=True)
class NoiseConfig(RecoveryConfig):
    """Settings of the study, beside those of `RecoveryConfig`.

    Attributes
    ----------
    augmenter : {'fixed', 'random_amplitude', 'range'}
        The noise that is learned: of one sigma (Eq. 8), of sigma times a normal draw per image (Eq. 9), or of a sigma
        drawn per image from a range of which both ends are learned (as in the authors' code), from 0.1 to 1 ``start``.
    """

    augmenter: Literal["fixed", "random_amplitude", "range"] = "fixed"


PRESETS = {
    "quick": NoiseConfig(sigma=LEVELS[2:3], **SIZES["quick"]),
    "standard": NoiseConfig(**SIZES["standard"]),
    "paper": NoiseConfig(**SIZES["paper"]),
}


def prepare(config: NoiseConfig, data: Path | None, progress: Progress) -> PreparedData:
    """The user's cache, or the embedded cohort (made on first use)."""
    if data is None:
        data = embedded(config.cohort, progress.counter)
    return check_cache(data, config.segmenter)


def run(context: StudyContext) -> dict[str, Any]:
    """Learn each preset level, train its baselines, and test the three segmenters on every level."""
    config: NoiseConfig = context.config
    material = load_study_data(context, config.synthesis, config.test_repeats, config.generator)
    rows, examples = recover(context, material, [_case(config, level) for level in config.sigma])
    save_examples(context.folder, examples)
    return {"rows": rows, "reference": NOISE_ONLY}


def _case(config: NoiseConfig, level: NoiseLevel) -> RecoveryCase:
    truth = {"sigma_true": level.to_json(), "augmenter": config.augmenter}
    if config.augmenter == "range":
        return RecoveryCase(level, level, NoiseRange(0.1 * config.start, config.start), truth, _range, _known_range)
    if config.augmenter == "random_amplitude":
        return RecoveryCase(level, level, RandomAmplitudeNoise(config.start), truth, _sigma)
    return RecoveryCase(level, level, GaussianNoise(config.start), truth, _sigma, _known)


def _sigma(found: BilevelResult) -> dict[str, Any]:
    return {"sigma_learned": found.mean["sigma"], "sigma_sd": found.sd["sigma"]}


def _range(found: BilevelResult) -> dict[str, Any]:
    ends = ("sigma_low", "sigma_high")
    return {"sigma_learned": [found.mean[end] for end in ends], "sigma_sd": [found.sd[end] for end in ends]}


def _known(found: BilevelResult) -> NoiseLevel:
    return NoiseLevel(found.mean["sigma"], found.mean["sigma"])


def _known_range(found: BilevelResult) -> NoiseLevel:
    return NoiseLevel(found.mean["sigma_low"], found.mean["sigma_high"])


def report(folder: RunFolder) -> ReportContent:
    """Tables 1 and 2, the course of sigma, Figure 2, segmentations and Dice by condition."""
    rows, config = folder.results["rows"], folder.manifest["config"]
    learned = [row for row in rows if row["model"] == "L"]
    labels = [_label(row["sigma_true"]) for row in learned]
    records, shown = folder.read_metrics(), load_examples(folder)
    observed = "sigma_high" if config["augmenter"] == "range" else "sigma"
    courses = {name: course_of(folder, records, bilevel_stage(name), observed) for name in labels}
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


def _learned(value: float | list[float]) -> str:
    """A level as it was learned, to more digits than a label has."""
    return f"{value:.4f}" if isinstance(value, float) else f"U[{value[0]:.4f}, {value[1]:.4f}]"


def _summary(learned: list[dict[str, Any]], config: dict[str, Any]) -> list[str]:
    found = [
        f"Preset sigma {_label(row['sigma_true'])}: learned {_learned(row['sigma_learned'])}"
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


_SETTINGS = {"start": NUMBER, "augmenter": TEXT, "segmenter": entries({"steps": COUNT})}
EXPERIMENT = Experiment(
    name="noise",
    question="Is the noise of the real images recovered, and is it the best to train with? (paper 4.1.1)",
    presets=PRESETS,
    prepare=prepare,
    run=run,
    report=report,
    check_sizes=require_recovery,
    grid_report=RecoveryGridReport("The noise of the real images, learned in many runs", _label, bilevel_stage),
    contents={**CONTENTS, CONFIG: entries({"config": entries(_SETTINGS)})},
)
