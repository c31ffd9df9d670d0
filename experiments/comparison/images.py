"""The training images that a finished comparison ended with: those of each augmentation that it learned."""

from collections.abc import Mapping

from metasynth.experiments.comparison.methods import variants_among
from metasynth.experiments.comparison.settings import ComparisonConfig
from metasynth.experiments.comparison.study import stage_name
from metasynth.experiments.real_images.cohorts import load_real_images
from metasynth.experiments.real_images.streams import Fitted

from metasynth.running.study import StudyContext
from metasynth.training.augmenter_file import augmenter_name, load_augmenter
from metasynth.training.sources import Augmented, LearnedImages


def learned_images(context: StudyContext) -> Mapping[str, LearnedImages]:
    """Images of all label maps for synthesis, as each variant of Learn2Synth has them, by the name of its stage.

    Raises
    ------
    DataError
        A file of what was learned is missing or damaged.
    """
    config: ComparisonConfig = context.config
    cohorts, found = load_real_images(context), {}
    for size in cohorts.sizes:
        for variant in variants_among(config.methods):
            stage = stage_name(variant, size)
            learned = load_augmenter(context.folder.path / augmenter_name(stage))
            source = Augmented(cohorts.generator, learned.augmenter)
            found[stage] = LearnedImages(cohorts.maps, Fitted(source, cohorts.cache.shape))
    return found
