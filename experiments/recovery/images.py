"""The training images that a finished recovery study ended with: those that its model O is trained with."""

from collections.abc import Callable, Mapping, Sequence

from metasynth.experiments.recovery.study import RecoveryCase, RecoveryConfig, bilevel_stage, learned_source
from metasynth.experiments.recovery.study_data import training_data

from metasynth.augment.corruption import Corruption
from metasynth.data.cache import Cache
from metasynth.data.dataset import SliceDataset
from metasynth.errors import RunError
from metasynth.files import first_line
from metasynth.running.checkpoint import load_checkpoint
from metasynth.running.integrity.checks import FINAL
from metasynth.running.study import StudyContext
from metasynth.training.courses import Course
from metasynth.training.sources import LearnedImages


def learned_images(
    context: StudyContext, cases_of: Callable[[StudyContext, Cache], Sequence[RecoveryCase]]
) -> Mapping[str, LearnedImages]:
    """Images with what each case learned, of the training subjects, by the name of its stage.

    Raises
    ------
    DataError
        The records of a stage lack what it learned.
    RunError
        The last checkpoint of a stage, from which an augmenter is taken, is missing, damaged or of another.
    """
    config: RecoveryConfig = context.config
    cache, split, generator = training_data(context, config.synthesis, config.generator)
    train, found = SliceDataset(cache, split.train), {}
    for case in cases_of(context, cache):
        stage = bilevel_stage(case.level.label)
        source = learned_source(generator, case, _learned(context, case, stage))
        found[stage] = LearnedImages(train, source)
    return found


def _learned(context: StudyContext, case: RecoveryCase, stage: str) -> Corruption | None:
    """What a stage learned as a corruption; None where the case has none, and its augmenter is put where it ended."""
    if case.known is not None:
        course = Course(case.augmenter.observed())
        course.take_up(context.folder, stage)
        return case.known(course.tails()[0])
    path = context.folder.checkpoints / stage.replace("/", "-") / FINAL
    state = load_checkpoint(path, sealed=context.folder.sealed)
    try:
        case.augmenter.load_state_dict(state["trainer"]["outer"])
    except (AttributeError, LookupError, TypeError, RuntimeError) as error:
        raise RunError(f"{path}: the checkpoint does not fit stage {stage} ({first_line(error)})") from error
    case.augmenter.eval()
    return None
