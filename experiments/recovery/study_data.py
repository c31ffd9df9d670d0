"""The data that recovery studies work on: a cache, who is learned from and tested on, and the generator.

A recovery study (paper section 4.1) corrupts synthetic images in a known way, calls them real, and asks whether the
augmenter learns the corruption. Its values are settings (``RecoveryConfig.sigma`` in
`metasynth.experiments.recovery.study`); `metasynth.training.sources.Corrupted` puts it on the images.
"""

from pathlib import Path
from typing import Any, Literal

from metasynth.augment.corruption import Corruption
from metasynth.data.cache import Cache
from metasynth.data.dataset import SliceDataset
from metasynth.data.splits import Split, make_split
from metasynth.errors import DataError
from metasynth.running.prepared import PreparedData
from metasynth.running.study import StudyContext
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.config import CornucopiaConfig
from metasynth.synthesis.cornucopia import CornucopiaGenerator
from metasynth.synthesis.generator import SeededGenerator
from metasynth.synthesis.priors.structure_priors import StructurePriors
from metasynth.training.evaluation import make_test_set
from metasynth.training.kept_split import kept_split
from metasynth.training.network_check import check_segmenter, check_start
from metasynth.training.priors import check_priors, priors_in
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.sources import in_patches
from metasynth.training.stages import StudyData


def check_cache(path: Path, segmenter: SegmenterSettings, settings: Any = None) -> PreparedData:
    """Open a cache, check every value in it, and that the segmenter can take images like its label maps.

    Parameters
    ----------
    path : Path
        The cache.
    segmenter : SegmenterSettings
        What the segmenter is.
    settings : dataclass or None
        Those of the study, which may name files of priors.

    Raises
    ------
    DataError
        If the file is no valid cache, images of its shape cannot go through, the subjects are too few, or a file of
        priors or the model to start from cannot be used.
    UsageError
        If the segmenter's network cannot be made, or is not that of the model to start from, or patches cannot go
        through it.
    """
    with Cache(path) as cache:
        check_segmenter(cache, segmenter)
        try:
            split = make_split(cache.subjects, 0)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        if len(split.train) < 2:
            raise DataError(
                f"{path}: expected at least 2 training subjects (synthetic and real examples come from different "
                f"ones), got {len(split.train)} of {len(cache.subjects)} subjects"
            )
        others = check_priors(settings, path) | check_start(segmenter, cache)
        return PreparedData(Path(path), cache.info.digest, others)


GeneratorName = Literal["batched", "cornucopia"]
"""Which generator makes the images: ours for whole batches, or cornucopia itself, of which it is the same family."""


def load_study_data(
    context: StudyContext,
    synthesis: CornucopiaConfig,
    test_repeats: int,
    generator_name: GeneratorName = "batched",
    corruption: Corruption | None = None,
) -> StudyData:
    """Open the run's cache, divide its subjects (60/20/20, kept in split.json) and make the test images.

    ``corruption`` is what all test images have whatever their noise.
    """
    cache, split, whole = training_data(context, synthesis, generator_name)
    patches = context.config.segmenter.patches
    parts = in_patches(whole, patches, cache.target.tolist()) if isinstance(whole, BatchedGenerator) else whole
    held_out = SliceDataset(cache, split.test)
    return StudyData(
        train=SliceDataset(cache, split.train),
        test=make_test_set(held_out, whole, context.seed, test_repeats, corruption),
        generator=parts,
        ndim=len(cache.shape),
    )


def training_data(
    context: StudyContext, synthesis: CornucopiaConfig, generator_name: GeneratorName = "batched"
) -> tuple[Cache, Split, SeededGenerator]:
    """The run's cache, its division, and what makes its images."""
    cache = Cache(context.data, check_values=False)  # checked before the folder was made
    split = split_of_run(context, cache)
    priors = priors_in(context.others, cache).get("synthesis")
    return cache, split, _generator(generator_name, cache, synthesis, priors)


def _generator(
    name: GeneratorName, cache: Cache, synthesis: CornucopiaConfig, priors: StructurePriors | None
) -> BatchedGenerator | CornucopiaGenerator:
    # Slices of anisotropic voxels would need a blur per axis; the finest keeps all structure.
    config = synthesis.at_spacing(min(cache.info.spacing_mm))
    if name == "cornucopia":
        return CornucopiaGenerator(cache.n_generation, config, cache.info.shows_heads)
    return BatchedGenerator(cache.n_generation, config, priors=priors, head=cache.info.shows_heads)


def split_of_run(context: StudyContext, cache: Cache) -> Split:
    """Who is for what in a run, as it was kept or is now."""
    kept = kept_split(context)
    if kept is not None:
        return kept
    split = make_split(cache.subjects, context.seed)
    context.folder.keep_split(split.to_dict())
    return split
