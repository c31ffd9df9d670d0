"""How each method of a comparison gets its segmenter.

Every method is a configuration of the same loop: what its training images are made by, what it starts from, and
whether an augmenter is learned beside it. All segmenters of a run start from the same weights.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from metasynth.experiments.comparison.atlas import atlas_segmenter
from metasynth.experiments.comparison.methods import BILEVEL_METHODS, variants_among
from metasynth.experiments.comparison.trial import Trial
from metasynth.experiments.real_images.cohorts import RealImages
from metasynth.experiments.real_images.evaluation import Checkpoint, Segment
from metasynth.experiments.real_images.method_result import BEST, LAST, ONLY, MethodResult
from metasynth.experiments.real_images.streams import cropped_or_padded
from torch import Tensor

from metasynth.augment.augmenter import Augmenter
from metasynth.augment.corruption import Corruptions
from metasynth.augment.entry import Start
from metasynth.augment.learned_synthesis import Priors
from metasynth.augment.table import entry_of
from metasynth.training.augmenter_file import FROZEN, augmenter_bytes, augmenter_name, load_augmenter
from metasynth.training.courses import Course
from metasynth.training.selection import Weights
from metasynth.training.sources import Augmented, Corrupted, Source, Synthetic
from metasynth.training.stages import bilevel_trainer, note_of

Fit = Callable[[Trial], MethodResult]


def _plain(trial: Trial, synthetic: Source, fraction: float = 0.0) -> MethodResult:
    segmenter = trial.new_segmenter()
    settings = trial.config.segmenter
    return trial.train(trial.data(synthetic, fraction), segmenter, trial.plain(segmenter, settings), settings)


def _naive(trial: Trial) -> MethodResult:
    return _plain(trial, trial.baseline)


def _clustered(trial: Trial) -> MethodResult:
    return _plain(trial, Corrupted(trial.clustered, Corruptions(())))


def _estimated(trial: Trial) -> MethodResult:
    """Naive but for its contrasts: those of the real subjects to learn from, raised to no power as real images are."""
    name, priors = trial.estimate()
    generator = trial.cohorts.generator_of(replace(trial.config.baseline, gamma=0.0), priors)
    return replace(_plain(trial, Corrupted(generator, Corruptions(()))), found={"priors": name})


def _mixed(trial: Trial) -> MethodResult:
    return _plain(trial, trial.baseline, trial.config.mixed.fraction)


def _supervised(trial: Trial) -> MethodResult:
    return _plain(trial, trial.baseline, fraction=1.0)


def _finetuned(trial: Trial) -> MethodResult:
    """From the last weights of the naive segmenter, which no validation subject has a part in."""
    before, own = trial.done["naive"], trial.config.finetune
    segmenter = trial.new_segmenter()
    segmenter.load_state_dict(_checkpoint(before, LAST).weights)
    settings = replace(trial.config.segmenter, lr=own.lr, steps=own.steps)
    trainer = trial.plain(segmenter, settings)
    found = trial.train(trial.data(trial.baseline, fraction=1.0), segmenter, trainer, settings)
    return replace(found, total_seconds=found.seconds + before.total_seconds)


def _interpolated(trial: Trial) -> MethodResult:
    """Weights between those of the naive and the finetuned segmenter (Wortsman et al., CVPR 2022, WiSE-FT)."""
    begin, end = trial.done["naive"], trial.done["finetuned"]
    checkpoints, validation, chosen = {}, {}, {}
    for name in (BEST, LAST):
        ends = _checkpoint(begin, name), _checkpoint(end, name)
        between = {
            weight: replace(ends[1], weights=interpolate(ends[0].weights, ends[1].weights, weight))
            for weight in trial.config.interpolations
        }
        values = {weight: trial.validated(checkpoint) for weight, checkpoint in between.items()}
        chosen[name] = max(values, key=values.__getitem__)
        checkpoints[name], validation[name] = between[chosen[name]], values[chosen[name]]
        trial.keep(name, checkpoints[name])
    return MethodResult(checkpoints, validation, 0, 0.0, end.total_seconds, found={"weight": chosen})


def interpolate(begin: Weights, end: Weights, weight: float) -> Weights:
    """(1 - weight) begin + weight end, exactly either at 0 and 1; counters are those of the nearer end."""
    return {
        name: torch.lerp(begin[name], last, weight)
        if last.is_floating_point()
        else (last if weight >= 0.5 else begin[name])
        for name, last in end.items()
    }


def _bilevel(trial: Trial, variant: str) -> MethodResult:
    """Learn2Synth: the real images reach the segmenter through the augmenter alone."""
    config, segmenter, (start, kept) = trial.config, trial.new_segmenter(), _start_of(trial, variant)
    outer = config.outer_of(variant)
    augmenter = entry_of(variant).made(start)
    began = deepcopy(augmenter)
    trainer = bilevel_trainer(trial.context, segmenter, augmenter, outer)
    data = trial.data(
        Synthetic(trial.cohorts.generator, augmenter.draw, augmenter.takes),
        outer_batch_size=outer.batch_size,
        is_due=outer.is_due,
        window_end=outer.window_end,
        reference=outer.reference,
    )
    course = Course(augmenter.observed())
    options = {"note": note_of(augmenter), "check": trainer.check, "course": course}
    found = trial.train(data, segmenter, trainer, config.segmenter, **options)
    mean, sd = course.tails()
    labels = trial.cohorts.maps.cache.generation_names
    content = augmenter_bytes(variant, start, labels, augmenter, began)
    trial.context.folder.write_bytes(augmenter_name(trial.name), content)
    kept |= trial.keep_learned(augmenter.priors())
    ends = {"augmenter": augmenter.cpu().eval(), "start": began.cpu().eval()}
    return replace(found, **ends, found={"learned": mean, "learned_sd": sd, **kept})


def _start_of(trial: Trial, variant: str) -> tuple[Start, dict[str, str]]:
    """Where a variant of Learn2Synth starts, and what its rows say of it: the run's file of priors, if it has one.

    Priors are those that the settings name, or else estimated from the real subjects to learn from.
    """
    cohorts, kept, priors = trial.cohorts, {}, None
    if entry_of(variant).priors:
        found = cohorts.priors.get("synthesis")
        if found is None:
            kept["priors"], found = trial.estimate()
        priors = Priors(found.mean, found.spread, found.texture)
    ndim, structures = len(cohorts.cache.shape), cohorts.maps.cache.n_generation
    return trial.config.learned.start_of(ndim, trial.context.seed, structures, priors), kept


def _optimised(trial: Trial) -> MethodResult:
    """From scratch, with the augmenter of the variant that is best on the validation subjects, as it ended.

    Or with that of an earlier run, if the settings name one.
    """
    name, augmenter, _, seconds = _learned(trial)
    return _frozen(trial, name, augmenter, seconds)


def _unlearned(trial: Trial) -> MethodResult:
    """The same with that augmenter where it started: what learning it is to be held against."""
    name, _, start, _ = _learned(trial)
    return _frozen(trial, name, start, 0.0)


def _learned(trial: Trial) -> tuple[str, Augmenter[Any], Augmenter[Any], float]:
    """What `FROZEN_METHODS` are about: its name, how it ended and started, and the seconds that learning it took."""
    if FROZEN in trial.context.others:
        learned = load_augmenter(trial.context.others[FROZEN])
        return learned.name, learned.augmenter, learned.start, 0.0
    variant = best_variant(trial.done)
    before = trial.done[variant]
    if before.augmenter is None or before.start is None:
        raise TypeError(f"{variant}: expected an augmenter")
    return variant, before.augmenter, before.start, before.total_seconds


def _frozen(trial: Trial, name: str, augmenter: Augmenter[Any], seconds: float) -> MethodResult:
    found = _plain(trial, Augmented(trial.cohorts.generator, augmenter))
    return replace(found, total_seconds=found.seconds + seconds, found={"augmenter": name})


def best_variant(done: Mapping[str, MethodResult], checkpoint: str = BEST) -> str:
    """The variant of Learn2Synth with the largest Dice of the validation subjects."""
    return max(variants_among(done), key=lambda name: done[name].validation[checkpoint])


def without_training(make: Callable[[Tensor, RealImages], Segment]) -> Fit:
    """A method that is no training, such as the fit of an atlas made from label maps.

    There is nothing to choose, so validation subjects are not segmented.

    Parameters
    ----------
    make : callable
        From the label maps for synthesis (N, *S) int64 and the cohorts, whose cache describes them, to a segmenter.
    """

    def fit(trial: Trial) -> MethodResult:
        maps = trial.cohorts.maps
        labels = cropped_or_padded(maps.read(range(len(maps))), trial.cohorts.cache.shape).labels
        return MethodResult({ONLY: make(labels, trial.cohorts)}, {}, 0, 0.0, 0.0)

    return fit


# A method that needs no training gets its line here and one in `METHODS`.
FITS: Mapping[str, Fit] = {
    "supervised_all": _supervised,
    "supervised": _supervised,
    "naive": _naive,
    "clustered": _clustered,
    "atlas": without_training(atlas_segmenter),
    "estimated": _estimated,
    "mixed": _mixed,
    "finetuned": _finetuned,
    "interpolated": _interpolated,
    **{variant: partial(_bilevel, variant=variant) for variant in BILEVEL_METHODS},
    "optimised": _optimised,
    "unlearned": _unlearned,
}


def fit_of(name: str) -> Fit:
    """That of a method: one of `FITS`, or Learn2Synth with an augmenter from outside the package."""
    return FITS[name] if name in FITS else partial(_bilevel, variant=name)


def _checkpoint(trained: MethodResult, name: str) -> Checkpoint:
    checkpoint = trained.checkpoints[name]
    if not isinstance(checkpoint, Checkpoint):
        raise TypeError(f"{name}: expected a trained network, got {type(checkpoint).__name__}")
    return checkpoint
