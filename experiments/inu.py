"""Paper section 4.1.2: are noise and intensity non-uniformity (INU) recovered together?

"Real" images are synthetic ones multiplied by random smooth fields (Eqs 6-7) with Gaussian noise added. Learn2Synth
learns the exponents of the fields and sigma ("parametric"), or a network that is to make its images like the real
ones ("nonparametric", Eqs 9-11). The baselines are those of the noise study.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from metasynth.data_prep.cohorts.cohort import embedded
from metasynth.experiments.recovery.augmenters import (
    case_of,
    check_augmenter,
    learned_text,
    learned_values,
    start_of,
    told,
)
from metasynth.experiments.recovery.figures import example_figures, exponent_figures
from metasynth.experiments.recovery.grid_report import RecoveryGridReport
from metasynth.experiments.recovery.images import learned_images
from metasynth.experiments.recovery.machine import require_recovery
from metasynth.experiments.recovery.quantities import SIGMA, exponents
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
from metasynth.experiments.recovery.tables import class_table, dice_table, exponent_table

from metasynth.augment.bias_field import KnownBias
from metasynth.augment.corruption import Corruptions
from metasynth.augment.table import entry_of, known_entry, names
from metasynth.data.cache import Cache
from metasynth.errors import UsageError
from metasynth.report.html import ReportContent
from metasynth.report.published import NOISE_AND_INU
from metasynth.running.prepared import PreparedData
from metasynth.running.progress import Progress
from metasynth.running.records import CONFIG, RunFolder
from metasynth.running.settings.values import OneOf
from metasynth.running.study import Experiment, StudyContext
from metasynth.schema import COUNT, NUMBER, TEXT, entries
from metasynth.training.courses import course_of
from metasynth.training.network_check import require_cache
from metasynth.training.settings import MATCHED

FIELDS = ("c_low", "c_mid", "c_high")


@dataclass(frozen=True)
class InuConfig(RecoveryConfig):
    """Settings of the study, beside those of `RecoveryConfig`.

    Attributes
    ----------
    c : tuple of three float
        Preset exponents of the fields, coarsest first.
    nodes : tuple of three int
        Nodes per axis of the fields' grids.
    start_c : float
        Where each learned exponent starts, in (0, 1).
    augmenter : {'parametric', 'nonparametric'} or one from outside the package
        Fields and noise (Eqs 7-8), or a network on the image and a channel of noise, then noise of random amplitude
        (Eqs 9-11).
    network : tuple of int
        Channels of each level of that network.
    """

    c: tuple[float, float, float] = (0.5, 0.5, 0.5)
    nodes: tuple[int, int, int] = (2, 4, 8)
    start_c: float = 0.1
    augmenter: Annotated[str, OneOf(partial(names, "inu"))] = "parametric"
    network: tuple[int, ...] = (8, 16, 16, 16, 16)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 <= c < float("inf") for c in self.c):
            raise ValueError(f"c must be three numbers of at least 0, got {self.c}")
        if not 0 < self.start_c < 1:
            raise ValueError(f"start_c must be between 0 and 1, got {self.start_c}")
        if min(self.nodes) < 2:
            raise ValueError(f"nodes must be at least 2, got {self.nodes}")
        if not self.network or min(self.network) < 1:
            raise ValueError(f"network must list at least one width of at least 1, got {self.network}")

    @property
    def bias(self) -> KnownBias:
        """The preset fields."""
        return KnownBias(self.c, self.nodes)


_OUTER = replace(MATCHED, batch_size=32)


def _sized(preset: str, **settings: Any) -> InuConfig:
    """The sizes that recovery studies share, for parameters that a hypergradient says less about than about noise.

    With a normalisation, fields are driven up as long as sigma is too large, and too strong ones then hardly cost
    anything. Where single draws say little, a hypergradient needs more images and contrasts that are the same in both
    domains; a lower rate keeps exponents together that the first steps would pull apart, and has to fall more slowly
    (docs/measurements/inu.md).
    """
    config = InuConfig(**SIZES[preset], **settings)
    segmenter = replace(config.segmenter, norm="none", lr=2e-3)
    return replace(config, segmenter=segmenter, outer=_OUTER)  # type: ignore[call-arg]  # fields of its base class


QUICK = _sized("quick", sigma=LEVELS[1:2])
PRESETS = {
    "quick": QUICK,
    # A network has no exponents that a normalisation could drive up, and its segmenter learns the better with one. It
    # does so too when its images begin with little noise, and its many weights move slowly (docs/measurements/inu.md).
    "nonparametric": InuConfig(
        **SIZES["quick"],
        sigma=QUICK.sigma,
        start=0.02,
        augmenter="nonparametric",
        outer=replace(_OUTER, network_lr=3e-4),
    ),
    "standard": _sized("standard"),
    "paper": InuConfig(**SIZES["paper"]),
}


def prepare(config: InuConfig, data: Path | None, progress: Progress) -> PreparedData:
    """The user's cache, or the embedded cohort (made on first use)."""
    if data is None:
        require_cache(config.segmenter, "labels LABEL_MAPS")
        data = embedded(config.cohort, progress.counter)
    prepared = check_cache(data, config.segmenter, config)
    observed = check_augmenter(config.augmenter, prepared, "network", config.segmenter.window, **_values(config))
    named = entry_of(config.augmenter).exponents
    if named and (len(named) != len(FIELDS) or not set(named) <= set(observed)):
        expected = f"expected {len(FIELDS)} of the values that it observes ({', '.join(observed)})"
        raise UsageError(f"augmenter {config.augmenter!r}: exponents: {expected}, got {', '.join(named)}")
    return prepared


def run(context: StudyContext) -> dict[str, Any]:
    """Learn each preset, train its baselines, and test the three segmenters on every level of noise."""
    config: InuConfig = context.config
    data = load_study_data(context, config.synthesis, config.test_repeats, config.generator, config.bias)
    return {"rows": recover(context, data, _cases(context, data.train.cache)), "reference": NOISE_AND_INU}


def _cases(context: StudyContext, cache: Cache) -> list[RecoveryCase]:
    config: InuConfig = context.config
    return [
        case_of(
            config.augmenter,
            start_of(cache, context.seed, **_values(config)),
            level,
            Corruptions((config.bias, level)),
            {"sigma_true": level.to_json(), "c_true": list(config.c)},
        )
        for level in config.sigma
    ]


def _values(config: InuConfig) -> dict[str, Any]:
    """Where its augmenter starts."""
    return {"sigma": config.start, "exponent": config.start_c, "nodes": config.nodes, "network": config.network}


def report(folder: RunFolder) -> ReportContent:
    """Tables 3 and 4, the courses of sigma and the exponents, Figure 2, segmentations and Dice by condition."""
    rows, config = folder.results["rows"], folder.manifest["config"]
    learned = [row for row in rows if row["model"] == "L"]
    labels = [level_label(row["sigma_true"]) for row in learned]
    records = folder.read_metrics()
    published = dict(zip(NOISE_AND_INU["levels"], NOISE_AND_INU["table_3"], strict=True))
    table, figures = learned_values(folder, learned, level_label, published)
    tables = [table, dice_table(rows, level_label), class_table(rows, level_label)]
    if "c_learned" in learned[0]:
        tables.insert(1, exponent_table(learned, level_label, FIELDS))
        entry = known_entry(config["augmenter"])
        observed = dict(zip(FIELDS, entry.exponents, strict=True)) if entry else {}
        exponents = {
            label: {own: course_of(folder, records, bilevel_stage(label), name) for own, name in observed.items()}
            for label in labels
        }
        figures += exponent_figures(exponents, learned, level_label, config["start_c"]) if observed else []
    figures += example_figures(folder, rows, labels, level_label)
    title = "The noise and intensity non-uniformity of the real images, learned through the segmenter's training"
    return ReportContent(title=title, summary=_summary(learned, config), tables=tables, figures=figures)


def _summary(learned: list[dict[str, Any]], config: dict[str, Any]) -> list[str]:
    found = []
    for row in learned:
        text = f"Preset sigma {level_label(row['sigma_true'])}: {learned_text(row)}"
        if "c_learned" in row:
            pairs = zip(row["c_true"], row["c_learned"], strict=True)
            text += "; exponents " + ", ".join(f"{found_c:.2f} for {true:g}" for true, found_c in pairs)
        found.append(text + ".")
    what = "The images were " + told(config["augmenter"], sigma=config["start"], exponent=config["start_c"])
    return [
        f"A segmenter was trained on synthetic images for {config['segmenter']['steps']} steps. {what}. All of it was "
        "moved by hypergradients of the segmenter's loss on real images only; the segmenter itself never saw these.",
        *found,
        "The real images are synthetic images with preset fields and noise, so that the truth is known; the anatomy is "
        "that of the cache named below. Learned values are means over the last tenth of the outer steps.",
    ]


_SETTINGS = {"start": NUMBER, "start_c": NUMBER, "augmenter": TEXT, "segmenter": entries({"steps": COUNT})}
EXPERIMENT = Experiment(
    name="inu",
    question="Are noise and intensity non-uniformity of the real images recovered together? (paper 4.1.2)",
    presets=PRESETS,
    prepare=prepare,
    run=run,
    report=report,
    check_sizes=lambda config, prepared, out: require_recovery(
        config, prepared, out, config.nodes, config.network if entry_of(config.augmenter).network else ()
    ),
    grid_report=RecoveryGridReport(
        "The noise and intensity non-uniformity of the real images, learned in many runs",
        level_label,
        bilevel_stage,
        (SIGMA, *exponents(FIELDS)),
    ),
    contents={**CONTENTS, CONFIG: entries({"config": entries(_SETTINGS)})},
    images=partial(learned_images, cases_of=_cases),
    batches=batches_of,
)
