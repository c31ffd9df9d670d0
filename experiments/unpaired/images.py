"""The training images that a finished run without labelled scans ended with: those of each generator it learned."""

from collections.abc import Mapping

from metasynth.experiments.real_images.streams import Fitted
from metasynth.experiments.unpaired.methods import learned_among
from metasynth.experiments.unpaired.people import load_unpaired
from metasynth.experiments.unpaired.settings import UnpairedSettings
from metasynth.experiments.unpaired.streams import Generated

from metasynth.errors import RunError
from metasynth.files import first_line
from metasynth.running.checkpoint import load_checkpoint
from metasynth.running.integrity.checks import FINAL
from metasynth.running.study import StudyContext
from metasynth.training.sources import LearnedImages


def learned_images(context: StudyContext) -> Mapping[str, LearnedImages]:
    """Images of the label maps, as each learned generator shows them, by the name of its method.

    Raises
    ------
    RunError
        The last checkpoint of a generator is missing, damaged or of another.
    """
    settings: UnpairedSettings = context.config
    people, found = load_unpaired(context), {}
    cache = people.cohorts.cache
    for method in learned_among(settings.methods):
        path = context.folder.checkpoints / generator_stage(method.name).replace("/", "-") / FINAL
        state = load_checkpoint(path, sealed=context.folder.sealed)
        learned = settings.generator.build(method.name, people.maps.cache.n_generation, len(cache.shape), context.seed)
        try:
            learned.load_state_dict(state["trainer"]["mean"] or state["trainer"]["solver"]["outer"])
        except (AttributeError, LookupError, TypeError, RuntimeError) as error:
            raise RunError(f"{path}: the checkpoint does not fit method {method.name} ({first_line(error)})") from error
        source = Generated(people.cohorts.generator, learned.eval())
        found[method.name] = LearnedImages(people.maps, Fitted(source, cache.shape))
    return found


def generator_stage(method: str) -> str:
    """Name of the stage that learns a method's generator."""
    return f"{method}/generator"
