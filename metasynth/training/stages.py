"""The trainings that studies are made of: an augmenter learned with its segmenter, and a plain segmenter.

All segmenters of a run start from the same weights and see the same label maps and noise-free images step by step, so
that what tells them apart is their augmentation alone.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from metasynth.augment.augmenter import Augmenter
from metasynth.bilevel.problem import BilevelProblem
from metasynth.bilevel.solver import BilevelSolver
from metasynth.segment.model_file import ModelDescription, model_path, save_model
from metasynth.training.loop import Pace, Stage, run_stage
from metasynth.training.recovery import Material, tail_of, trajectory_of
from metasynth.training.seeding import generator_for
from metasynth.training.settings import OuterSettings, SegmenterSettings
from metasynth.training.streams import Source, StepData, Synthetic
from metasynth.training.study import StudyContext
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
class Learned:
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


def learn(
    context: StudyContext,
    material: Material,
    name: str,
    augmenter: Augmenter,
    real: Source,
) -> Learned:
    """Learn2Synth (paper section 3.1): train a segmenter on augmented synthetic images, the augmenter on real ones.

    The segmenter is kept in the run's models.

    Parameters
    ----------
    context, material :
        The run and its data.
    name : str
        Of the stage.
    augmenter : Augmenter
        Learned in place; what it observes is recorded.
    real : callable
        Makes the real examples.
    """
    settings: TrainingSettings = context.config
    inner, outer = settings.segmenter, settings.outer
    segmenter = _segmenter(context, material)
    augmenter = augmenter.to(context.device)
    solver = BilevelSolver(
        BilevelProblem(*bilevel_losses(inner), autocast=inner.autocast_dtype),
        segmenter,
        inner.optimizer(segmenter),
        augmenter,
        outer.optimizer(augmenter),
        outer.hypergradient_strategy(),
        outer_step=outer.step_options(),
    )
    data = _data(context, material, Synthetic(material.generator, augmenter.draw), real)

    def note(record: dict[str, Any]) -> str:
        return ", ".join([f"{key} {value:.3f}" for key, value in augmenter.observed().items()] + [_loss(record)])

    stage = Stage(name, inner.steps, data, note)
    seconds = run_stage(stage, Bilevel(solver, inner, outer, augmenter.observed), settings.pace, context)
    _keep(context, material, name, segmenter)
    records = context.folder.read_metrics()
    tails = {key: tail_of(trajectory_of(records, name, key)[1]) for key in augmenter.observed()}
    return Learned(
        segmenter,
        mean={key: mean for key, (mean, _) in tails.items()},
        sd={key: sd for key, (_, sd) in tails.items()},
        seconds=seconds,
    )


def train_plain(context: StudyContext, material: Material, name: str, source: Source) -> tuple[nn.Module, float]:
    """A plain segmenter on the images of ``source``, kept in the run's models, and the seconds its training took."""
    settings: TrainingSettings = context.config
    segmenter = _segmenter(context, material)
    stage = Stage(name, settings.segmenter.steps, _data(context, material, source, None), _loss)
    seconds = run_stage(stage, Supervised(segmenter, settings.segmenter), settings.pace, context)
    _keep(context, material, name, segmenter)
    return segmenter, seconds


def _keep(context: StudyContext, material: Material, name: str, segmenter: nn.Module) -> None:
    cache = material.train.cache
    info = cache.info
    description = ModelDescription(
        class_names=info.class_names,
        mapping=info.mapping,
        spacing_mm=info.spacing_mm,
        axis=info.axis,
        orientation=info.orientation,
        shape=cache.shape,
        brain_only=True,  # generators leave the background at 0
        provenance={"experiment": context.folder.manifest["experiment"], "stage": name, "seed": context.seed},
    )
    save_model(model_path(context.folder.path, name), segmenter, description)


def _segmenter(context: StudyContext, material: Material) -> nn.Module:
    settings: SegmenterSettings = context.config.segmenter
    start = generator_for(context.seed, "segmenter")
    return settings.build(material.n_classes, material.ndim, start).to(context.device)


def _data(context: StudyContext, material: Material, inner: Source, outer: Source | None) -> StepData:
    settings: TrainingSettings = context.config
    return StepData(
        dataset=material.train,
        inner=inner,
        outer=outer,
        seed=context.seed,
        batch_size=settings.segmenter.batch_size,
        outer_batch_size=settings.outer.batch_size,
        is_due=None if outer is None else settings.outer.is_due,
        reference=settings.outer.reference,
    )


def _loss(record: dict[str, Any]) -> str:
    return f"loss {record['inner_loss']:.3f}"
