"""A recovery study (paper section 4.1): a known corruption goes in; is it learned, and is it the best to train with?

"Real" images are synthetic ones with a known corruption. Learn2Synth (L) sees clean synthetic images and learns an
augmentation of them from the real ones, starting from wrong values. Beside it stand plain segmenters: one trained
with the known corruption (N, naive) and one with what was learned (O, optimised). All are tested on every noise level.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from metasynth.experiments.recovery.study_data import GeneratorName
from numpy.typing import NDArray
from torch import nn

from metasynth.augment.augmenter import Augmenter
from metasynth.augment.corruption import Corruption
from metasynth.augment.noise import NoiseLevel
from metasynth.running.examples import save_examples
from metasynth.running.seeding import generator_for
from metasynth.running.settings.bounds import require_at_least, require_distinct
from metasynth.running.study import StudyContext
from metasynth.synthesis.config import PAPER, CornucopiaConfig
from metasynth.synthesis.generator import ImageGenerator
from metasynth.training.evaluation import TestSet, evaluate, middle_plane, segment
from metasynth.training.loop import Pace
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.settings import OuterSettings, check_together, require_window
from metasynth.training.sources import Augmented, Corrupted, Source
from metasynth.training.stages import BilevelResult, StudyData, train_bilevel, train_plain

LEVELS = tuple(map(NoiseLevel.parse, ("0", "0.05", "0.1", "0.15", "0.025:0.2")))


@dataclass(frozen=True)
class RecoveryConfig:
    """Settings that recovery studies share.

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
        Train N and O too; without them a run only recovers.
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
            require_distinct("at least one noise level", **{name: [level.label for level in getattr(self, name)]})
        if not 0 < self.start < float("inf"):
            raise ValueError(f"start must be a positive number, got {self.start}")
        require_at_least(1, test_repeats=self.test_repeats)
        if self.outer.reference == "matched" and self.generator != "batched":
            raise ValueError(f"outer.reference = matched needs generator = batched, got {self.generator}")
        if self.segmenter.patch_size and self.generator != "batched":
            raise ValueError(f"segmenter.patch_size needs generator = batched, got {self.generator}")
        if self.synthesis.priors and self.generator != "batched":
            raise ValueError(f"synthesis.priors needs generator = batched, got {self.generator}")
        check_together(self.segmenter, self.outer)
        if self.outer.warmup >= self.segmenter.steps:
            raise ValueError(
                f"outer.warmup must be below segmenter.steps = {self.segmenter.steps}, got {self.outer.warmup}"
            )
        require_window(self.outer, self.segmenter.steps, "segmenter.steps")
        if not self.outer.outer_steps(self.segmenter.steps):
            raise ValueError(
                f"outer.average must leave an outer step in segmenter.steps = {self.segmenter.steps} with outer.warmup "
                f"= {self.outer.warmup} and outer.every = {self.outer.every}, got {self.outer.average}"
            )


@dataclass(frozen=True)
class RecoveryCase:
    """One preset corruption and the augmenter that is to learn it.

    Attributes
    ----------
    level : NoiseLevel
        The preset noise, by whose label the case is known.
    real : Corruption
        All of the preset corruption.
    augmenter : Augmenter
        At its start.
    truth : mapping
        What rows say of the preset, such as ``sigma_true``.
    found : callable
        What rows say of what was learned, such as ``sigma_learned`` and ``sigma_sd``, if it has a sigma.
    known : callable or None
        From what the augmenter observes, the corruption with these values. O trains with that of the learned ones;
        None: O trains with the augmenter as it ended.
    """

    level: NoiseLevel
    real: Corruption
    augmenter: Augmenter
    truth: Mapping[str, Any]
    found: Callable[[BilevelResult], Mapping[str, Any]]
    known: Callable[[Mapping[str, float]], Corruption] | None = None


class _Trained(NamedTuple):
    """A segmenter, the sigma it was trained with where that is known, and the seconds its training took."""

    segmenter: nn.Module
    sigma: Any
    seconds: float


def recover(context: StudyContext, data: StudyData, cases: Sequence[RecoveryCase]) -> list[dict[str, Any]]:
    """Learn each case, train its baselines, and test all segmenters on every level.

    Images of one test item and its segmentations are kept as the run's examples, by ``level/name``.

    Returns
    -------
    list of dict
        Rows, one a segmenter, in the order N, L, O.
    """
    rows: list[dict[str, Any]] = []
    examples: dict[str, NDArray[Any]] = {}
    for case in cases:
        found = train_bilevel(
            context, data, bilevel_stage(case.level.label), case.augmenter, Corrupted(data.generator, case.real)
        )
        case.augmenter.cpu().eval()
        known = case.known(found.mean) if case.known else None
        trained = _with_baselines(context, data, case, found, known)
        rows += _rows(context, data, case, found, trained)
        examples |= _examples(context, data.test, case, known, trained)
    save_examples(context.folder, examples)
    return rows


def _with_baselines(
    context: StudyContext, data: StudyData, case: RecoveryCase, found: BilevelResult, known: Corruption | None
) -> dict[str, _Trained]:
    """The segmenters of a case by model; the baselines are trained here, where the settings ask for them."""
    settings: RecoveryConfig = context.config
    ours = {"L": _Trained(found.segmenter, None, found.seconds)}
    if not settings.baselines:
        return ours
    label = case.level.label
    learned = learned_source(data.generator, case, known)
    naive = train_plain(context, data, f"sigma={label}/naive", Corrupted(data.generator, case.real))
    optimised = train_plain(context, data, f"sigma={label}/optimised", learned)
    sigma = case.found(found).get("sigma_learned")
    return {
        "N": _Trained(naive[0], case.level.to_json(), naive[1]),
        **ours,
        "O": _Trained(optimised[0], sigma, optimised[1]),
    }


def learned_source(generator: ImageGenerator, case: RecoveryCase, known: Corruption | None) -> Source:
    """Images with what was learned: those that O trains with."""
    return Augmented(generator, case.augmenter) if known is None else Corrupted(generator, known)


def _rows(
    context: StudyContext, data: StudyData, case: RecoveryCase, found: BilevelResult, trained: Mapping[str, _Trained]
) -> list[dict[str, Any]]:
    settings: RecoveryConfig = context.config
    return [
        {
            "model": model,
            **case.truth,
            **case.found(found),
            "sigma_train": one.sigma,
            "steps": settings.segmenter.steps,
            "wall_s": round(one.seconds, 3),
            "dice": evaluate(one.segmenter, data.test, settings.test, context.device, settings.segmenter.window),
        }
        for model, one in trained.items()
    ]


def batches_of(config: RecoveryConfig) -> dict[str, int]:
    """The batches that the processes of a run share."""
    return {"segmenter.batch_size": config.segmenter.batch_size, "outer.batch_size": config.outer.batch_size}


def bilevel_stage(label: str) -> str:
    """Name of the stage that learns a case."""
    return f"sigma={label}/learn"


def _examples(
    context: StudyContext,
    test: TestSet,
    case: RecoveryCase,
    known: Corruption | None,
    trained: Mapping[str, _Trained],
) -> dict[str, NDArray[Any]]:
    """One test image three ways (Figure 2) and its segmentations, keyed by the level."""
    item = test.fullest_item()
    clean, real = test.clean[item : item + 1], test.noisy_image(case.level, item)
    draws = generator_for(context.seed, "example", case.level.label)
    if known is None:
        learned = case.augmenter(clean, case.augmenter.draw(clean, draws)).detach()
    else:
        learned = known.corrupt(clean, draws)
    settings: RecoveryConfig = context.config
    window = settings.segmenter.window
    shown = {
        "noise_free": clean[0, 0],
        "learned": learned[0, 0],
        "real": real[0, 0],
        "truth": test.labels[item],
        **{model: segment(one.segmenter, real, context.device, window)[0] for model, one in trained.items()},
    }
    return {f"{case.level.label}/{name}": middle_plane(image).numpy() for name, image in shown.items()}
