"""A comparison of methods on real images (paper section 4.2): train each, test its checkpoints on the same subjects.

Methods that learn from real subjects are trained once for each number of these; those that see none are trained once.
A row is one checkpoint of one method: the best by the validation subjects, and the last.
"""

from collections.abc import Mapping
from typing import Any

from metasynth.experiments.comparison.fits import best_variant, fit_of
from metasynth.experiments.comparison.methods import CHOSEN, METHODS, Method, in_order, variants_among
from metasynth.experiments.comparison.trial import Trial
from metasynth.experiments.real_images.cohorts import RealImages
from metasynth.experiments.real_images.evaluation import score
from metasynth.experiments.real_images.examples import Examples
from metasynth.experiments.real_images.method_result import MethodResult

from metasynth.running.examples import save_examples
from metasynth.running.study import StudyContext

Row = dict[str, Any]


def compare(context: StudyContext, cohorts: RealImages) -> list[Row]:
    """Train the methods that the run's settings name and test them; images for the report are kept as examples.

    Returns
    -------
    list of dict
        Rows: ``method``; ``subjects``, the number of real subjects it learned from; ``checkpoint``, 'best', 'last' or
        'only'; ``validation``, the mean Dice by which it was chosen, if any; ``steps``; ``wall_s`` of its training and
        ``total_s`` with that of what it is made from; ``peak_mib``; ``dice`` by test condition, see `score`; what it
        found. Of several variants of Learn2Synth, the one that is best on the validation subjects has a row once more.
    """
    wanted = in_order(context.config.methods)
    examples = Examples(context, cohorts)
    alone, rows = _fit_all(context, cohorts, [method for method in wanted if not method.sized], None, {}, examples)
    sized = [method for method in wanted if method.sized]
    for size in cohorts.sizes if sized else ():
        done, more = _fit_all(context, cohorts, sized, size, alone, examples)
        rows += [*more, *_chosen_rows(done, more)]
    save_examples(context.folder, examples.arrays)
    return rows


def stage_name(method: str, subjects: int) -> str:
    """Name of a method's stage in records, checkpoints and models."""
    # An augmenter from outside may be missing where a report is made again; it learns from real subjects.
    return f"n={subjects}/{method}" if method not in METHODS or METHODS[method].sized else method


def _fit_all(
    context: StudyContext,
    cohorts: RealImages,
    methods: list[Method],
    size: int | None,
    done: Mapping[str, MethodResult],
    examples: Examples,
) -> tuple[dict[str, MethodResult], list[Row]]:
    done, rows = dict(done), []
    for method in methods:
        subjects = size if size is not None else len(cohorts.train.subjects) if method.real == "training" else 0
        # What sees no real subject leaves out the label maps of the same people as what learns from the fewest.
        real = cohorts.real(subjects or min(cohorts.sizes))
        trial = Trial(context, cohorts, real, stage_name(method.name, subjects), done)
        done[method.name] = fit_of(method.name)(trial)
        rows += _rows(cohorts, method.name, subjects, done[method.name])
        examples.add(method.name, subjects, done[method.name])
    return done, rows


def _rows(cohorts: RealImages, method: str, subjects: int, fitted: MethodResult) -> list[Row]:
    return [
        {
            "method": method,
            "subjects": subjects,
            "checkpoint": checkpoint,
            "validation": fitted.validation.get(checkpoint),
            "steps": fitted.steps,
            "wall_s": round(fitted.seconds, 3),
            "total_s": round(fitted.total_seconds, 3),
            "peak_mib": None if fitted.peak_mib is None else round(fitted.peak_mib, 1),
            **fitted.found,
            "dice": {name: score(segments, test) for name, test in cohorts.tests.items()},
        }
        for checkpoint, segments in fitted.checkpoints.items()
    ]


def _chosen_rows(done: Mapping[str, MethodResult], rows: list[Row]) -> list[Row]:
    """The rows of the variant that is best on the validation subjects, under its own name; it costs them all."""
    variants = variants_among(done)
    if len(variants) < 2:
        return []
    total = round(sum(done[name].total_seconds for name in variants), 3)
    chosen = {row["checkpoint"]: best_variant(done, row["checkpoint"]) for row in rows if row["method"] in variants}
    return [
        {**row, "method": CHOSEN.name, "variant": row["method"], "total_s": total}
        for checkpoint, variant in chosen.items()
        for row in rows
        if (row["method"], row["checkpoint"]) == (variant, checkpoint)
    ]
