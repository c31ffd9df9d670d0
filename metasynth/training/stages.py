"""The trainings that studies are made of: an augmenter learned with its segmenter, and a plain segmenter.

All segmenters of a run start from the same weights and see the same label maps and noise-free images step by step, so
that what tells them apart is their augmentation alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import nn

from metasynth.augment.augmenter import Augmenter
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.processes.processes import Processes
from metasynth.bilevel.solver import BilevelSolver
from metasynth.bilevel.update.inner_update import InnerUpdate
from metasynth.data.cache import Cache
from metasynth.data.dataset import SliceDataset
from metasynth.running.ranks.ranks import Ranks
from metasynth.running.seeding import generator_for
from metasynth.running.study import StudyContext
from metasynth.segment.model_description import ModelDescription
from metasynth.segment.model_file import load_model, model_path, save_model
from metasynth.synthesis.generator import SeededGenerator
from metasynth.training.courses import Course
from metasynth.training.evaluation import TestSet
from metasynth.training.loop import Pace, Stage, run_stage
from metasynth.training.network_check import START
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.settings import OuterSettings
from metasynth.training.sources import Source, Synthetic
from metasynth.training.streams import StepData
from metasynth.training.trainers import Bilevel, Supervised, bilevel_losses


class TrainingSettings(Protocol):
    """The part of a study's configuration that its trainings read."""

    @property
    def segmenter(self) -> SegmenterSettings:
        """The inner problem."""

    @property
    def outer(self) -> OuterSettings:
        """The outer problem."""

    @property
    def pace(self) -> Pace:
        """Checkpoints and workers."""


@dataclass(frozen=True)
class StudyData:
    """A cache divided into subjects to learn from and to test on, with a generator of images.

    Attributes
    ----------
    train : SliceDataset
    test : TestSet
    generator : SeededGenerator
        Makes the images of a training, or patches of them.
    ndim : int
        Number of spatial axes.
    """

    train: SliceDataset
    test: TestSet
    generator: SeededGenerator
    ndim: int


@dataclass(frozen=True)
class BilevelResult:
    """What Learn2Synth gave.

    Attributes
    ----------
    segmenter : torch.nn.Module
    mean, sd : dict
        Of each observed outer parameter over the last tenth of the outer steps.
    seconds : float
    """

    segmenter: nn.Module
    mean: dict[str, float]
    sd: dict[str, float]
    seconds: float


def train_bilevel(
    context: StudyContext,
    data: StudyData,
    name: str,
    augmenter: Augmenter,
    real: Source,
) -> BilevelResult:
    """Learn2Synth (paper section 3.1): train a segmenter on augmented synthetic images, the augmenter on real ones.

    The segmenter is kept in the run's models.

    Parameters
    ----------
    context, data :
        The run and its data.
    name : str
        Of the stage.
    augmenter : Augmenter
        Learned in place; what it observes is recorded.
    real : callable
        Makes the real examples.
    """
    settings: TrainingSettings = context.config
    segmenter = segmenter_for(context, data.train.cache)
    trainer = bilevel_trainer(context, segmenter, augmenter)
    fed = _step_data(context, data, Synthetic(data.generator, augmenter.draw, augmenter.takes), real)
    course = Course(augmenter.observed())
    stage = Stage(name, settings.segmenter.steps, fed, note_of(augmenter), trainer.check, course)
    seconds = run_stage(stage, trainer, settings.pace, context)
    keep_segmenter(context, data.train.cache, name, segmenter)
    mean, sd = course.tails()
    return BilevelResult(segmenter, mean, sd, seconds)


def train_plain(context: StudyContext, data: StudyData, name: str, source: Source) -> tuple[nn.Module, float]:
    """A plain segmenter on the images of ``source``, kept in the run's models, and the seconds its training took."""
    settings: TrainingSettings = context.config
    segmenter = segmenter_for(context, data.train.cache)
    stage = Stage(name, settings.segmenter.steps, _step_data(context, data, source, None))
    trainer = plain_trainer(context, segmenter, settings.segmenter)
    seconds = run_stage(stage, trainer, settings.pace, context)
    keep_segmenter(context, data.train.cache, name, segmenter)
    return segmenter, seconds


def segmenter_for(context: StudyContext, cache: Cache) -> nn.Module:
    """The run's segmenter for images like those of a cache, before any training: always with the same weights.

    They are those of the model that the settings start from, if they name one, or else drawn.
    """
    settings: SegmenterSettings = context.config.segmenter
    generator, shape = generator_for(context.seed, "segmenter"), settings.window or cache.shape
    segmenter = settings.build(cache.n_classes, len(shape), generator, shape, cache.info.spacing_mm)
    if START in context.others:
        segmenter.load_state_dict(load_model(context.others[START]).network.state_dict())
    return segmenter.to(context.device)


def plain_trainer(context: StudyContext, segmenter: nn.Module, settings: SegmenterSettings) -> Supervised:
    """What trains a segmenter on finished images, over the processes of the run."""
    return Supervised(segmenter, settings, processes_of(context.ranks))


def bilevel_trainer(
    context: StudyContext, segmenter: nn.Module, augmenter: Augmenter, outer: OuterSettings | None = None
) -> Bilevel:
    """What trains both: the segmenter as the inner problem, the augmenter, moved to the run's device, as the outer.

    ``outer`` stands for the ``outer`` of the run's settings.
    """
    settings: TrainingSettings = context.config
    inner, outer = settings.segmenter, outer or settings.outer
    solver = bilevel_solver(segmenter, augmenter.to(context.device), inner, outer, processes_of(context.ranks))
    return Bilevel(solver, inner, outer, augmenter.observed)


def bilevel_solver(
    segmenter: nn.Module,
    augmenter: Augmenter,
    inner: SegmenterSettings,
    outer: OuterSettings,
    processes: Processes | None = None,
) -> BilevelSolver:
    """The solver that settings of both levels stand for; ValueError if they do not go with these networks."""
    losses = bilevel_losses(inner, outer.of_real(inner), processes)
    return BilevelSolver(
        BilevelProblem(*losses, autocast=inner.autocast_dtype),
        segmenter,
        InnerUpdate(inner.optimizer(segmenter), processes or Processes()),
        augmenter,
        outer.optimizer(augmenter),
        outer.hypergradient_strategy(),
        outer_step=outer.step_options(),
    )


def processes_of(ranks: Ranks) -> Processes:
    """What averages over the processes that carry a run out."""
    return Processes() if ranks.count == 1 else Processes.current()


def note_of(augmenter: Augmenter) -> Callable[[dict[str, Any]], str]:
    """The note of a stage that learns an augmenter: what is observed of it, and the loss."""

    def note(record: dict[str, Any]) -> str:
        observed = [f"{key} {value:.3f}" for key, value in augmenter.observed().items()]
        return ", ".join([*observed, f"loss {record['inner_loss']:.3f}"])

    return note


def keep_segmenter(context: StudyContext, cache: Cache, name: str, segmenter: nn.Module) -> None:
    """Write a segmenter among the run's models, described as one for images like those of ``cache``."""
    info = cache.info
    provenance = {"experiment": context.folder.manifest["experiment"], "stage": name, "seed": context.seed}
    if START in context.others:
        provenance["start"] = context.others[START].name
    description = ModelDescription(
        class_names=info.class_names,
        mapping=info.mapping,
        spacing_mm=info.spacing_mm,
        axis=info.axis,
        orientation=info.orientation,
        shape=cache.shape,
        brain_only=not info.shows_heads,
        scaled_by=info.shows,
        brain_share=_brain_share(cache) if info.shows_heads and info.has_generation else 0.0,
        patch_size=context.config.segmenter.window,
        provenance=provenance,
    )
    save_model(model_path(context.folder.path, name), segmenter, description)


def _brain_share(cache: Cache) -> float:
    """What the classes but background take of what is not air, the median over subjects."""
    shares = []
    for subject in range(len(cache.subjects)):
        structures = cache.read_structures(np.flatnonzero(cache.subject_index == subject))
        brain, head = int(np.count_nonzero(cache.target[structures])), int(np.count_nonzero(structures))
        shares.append(brain / max(1, head))
    return float(np.median(shares))


def _step_data(context: StudyContext, data: StudyData, inner: Source, outer: Source | None) -> StepData:
    settings: TrainingSettings = context.config
    return StepData(
        dataset=data.train,
        inner=inner,
        outer=outer,
        seed=context.seed,
        batch_size=settings.segmenter.batch_size,
        outer_batch_size=settings.outer.batch_size,
        is_due=None if outer is None else settings.outer.is_due,
        window_end=settings.outer.window_end,
        reference=settings.outer.reference,
    )
