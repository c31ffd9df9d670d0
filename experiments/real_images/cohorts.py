"""The caches and subjects of a comparison on real images: who is learned from, chosen by and tested."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from metasynth.experiments.real_images.division import (
    LABELS,
    TESTS,
    Division,
    condition_of,
    divide,
    is_cache,
    require_train,
    split_of,
)
from metasynth.experiments.real_images.settings import RealImageSettings

from metasynth.data.cache import Cache
from metasynth.data.dataset import SliceDataset
from metasynth.errors import DataError
from metasynth.running.prepared import PreparedData
from metasynth.running.study import StudyContext
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.synthesis.config import CornucopiaConfig
from metasynth.synthesis.priors.structure_priors import StructurePriors
from metasynth.text import by
from metasynth.training.kept_split import kept_split
from metasynth.training.network_check import SPACING_TOLERANCE, check_segmenter, check_start
from metasynth.training.priors import check_priors, priors_in
from metasynth.training.sources import Maker, in_patches


@dataclass(frozen=True)
class RealImages:
    """Subjects by what they are for; no test or validation subject is among those that are learned from.

    Attributes
    ----------
    train : SliceDataset
        All training subjects with real images; the sized methods learn from the first few.
    validation : SliceDataset
    tests : mapping
        Condition -> test subjects, those of the run's own cache first.
    maps : SliceDataset
        Whose label maps images are synthesised from.
    config : RealImageSettings
    priors : mapping
        Group of settings, 'synthesis' or 'baseline' -> the priors that it names, for the labels of the maps.
    """

    train: SliceDataset
    validation: SliceDataset
    tests: Mapping[str, SliceDataset]
    maps: SliceDataset
    config: RealImageSettings
    priors: Mapping[str, StructurePriors] = field(default_factory=dict)

    @property
    def cache(self) -> Cache:
        """The cache of the training images."""
        return self.train.cache

    @property
    def generator(self) -> Maker:
        """What makes the images that are augmented by what is learned."""
        return self.generator_of(self.config.synthesis, self.priors.get("synthesis"))

    @property
    def baseline(self) -> Maker:
        """What makes the images of the baselines."""
        return self.generator_of(self.config.baseline, self.priors.get("baseline"))

    @property
    def scanner(self) -> Maker:
        """The baselines' generator for images there are: real intensities are raised to no power."""
        config = replace(self.config.baseline.at_spacing(self._spacing), gamma=0.0, priors="")
        whole = BatchedGenerator(self.cache.n_generation, config)
        return in_patches(whole, self.config.segmenter.patches, self.cache.target.tolist())

    def generator_of(self, config: CornucopiaConfig, priors: StructurePriors | None) -> Maker:
        """What makes images of the label maps, or patches of them, as `whole`."""
        target = self.maps.cache.target.tolist()
        return in_patches(self.whole(config, priors), self.config.segmenter.patches, target)

    def whole(self, config: CornucopiaConfig, priors: StructurePriors | None) -> BatchedGenerator:
        """What makes images of the label maps with these steps (of voxels of 1 mm) and these priors."""
        cache = self.maps.cache
        return BatchedGenerator(
            cache.n_generation, config.at_spacing(self._spacing), priors=priors, head=cache.info.shows_heads
        )

    @property
    def _spacing(self) -> float:
        return min(self.cache.info.spacing_mm)

    @property
    def sizes(self) -> list[int]:
        """The numbers of real subjects to learn from, each once, as they are listed."""
        wanted = (n or len(self.train.subjects) for n in self.config.subjects.train)
        return list(dict.fromkeys(wanted))

    def real(self, size: int) -> SliceDataset:
        """The first ``size`` training subjects."""
        return SliceDataset(self.cache, self.train.subjects[:size])


def check_caches(
    config: RealImageSettings,
    data: Path,
    labels: Path | None = None,
    tests: Mapping[str, Path] | None = None,
    seed: int | None = 0,
) -> PreparedData:
    """Open all caches of a run, check every value in them, and that they go together.

    Parameters
    ----------
    config : RealImageSettings
        What the run is to do.
    data : Path
        Real images and labels.
    labels : Path or None
        Label maps for synthesis, if they come from another cache.
    tests : mapping or None
        Condition -> cache of further test images.
    seed : int or None
        The subjects are divided as in a run with this seed; None: how many there are is checked, and `check_division`
        does the rest.

    Raises
    ------
    DataError
        If a file is no valid cache, lacks images, has other classes, voxels or shapes than ``data``, there are too few
        subjects, or a file of priors or the model to start from cannot be used; the file and what was expected are
        named.
    UsageError
        If the segmenter's network cannot be made, or is not that of the model to start from.
    """
    others = {} if labels is None else {LABELS: labels}
    others |= {f"{TESTS}.{name}": path for name, path in (tests or {}).items()}
    with ExitStack() as stack:
        cache = stack.enter_context(Cache(data))
        opened = {name: stack.enter_context(Cache(path)) for name, path in others.items()}
        _check_images(cache, config)
        for name, other in opened.items():
            if name != LABELS:
                _check_images(other, config)
            _check_alike(cache, other, any_shape=name == LABELS and config.fit_labels)
        split = split_of(config, cache, seed or 0)
        if seed is None:
            require_train(config, cache, split)
        else:
            divide(config, cache, opened, split)
        prepared = {name: PreparedData(others[name], other.info.digest) for name, other in opened.items()}
        prepared |= check_priors(config, labels or data) | check_start(config.segmenter, cache)
        return PreparedData(data, cache.info.digest, prepared)


def check_division(config: RealImageSettings, prepared: PreparedData, seed: int) -> Division:
    """Divide the subjects of caches that were checked, as a run with this seed does.

    Raises
    ------
    DataError
        If too few are left of those of a cache.
    """
    with ExitStack() as stack:
        others = {name: other.path for name, other in prepared.others.items() if is_cache(name)}
        paths = {"": prepared.path, **others}
        opened = {name: stack.enter_context(Cache(path, check_values=False)) for name, path in paths.items()}
        cache = opened.pop("")
        return divide(config, cache, opened, split_of(config, cache, seed))


def maps_of(prepared: PreparedData) -> Path:
    """The cache whose label maps images are synthesised from."""
    return prepared.others.get(LABELS, prepared).path


def load_real_images(context: StudyContext) -> RealImages:
    """Open the caches of a run and divide their subjects; who is for what is kept in split.json."""
    cohorts, split = divided(context)
    context.folder.keep_split(split)
    return cohorts


def divided(context: StudyContext) -> tuple[RealImages, dict[str, Any]]:
    """Open the caches of a run and divide their subjects; with who is for what, to be kept in split.json."""
    config: RealImageSettings = context.config
    cache = Cache(context.data, check_values=False)  # checked before the folder was made
    others = {name: Cache(path, check_values=False) for name, path in context.others.items() if is_cache(name)}
    split = kept_split(context) or split_of(config, cache, context.seed)
    division = divide(config, cache, others, split)
    test_caches = {config.domain: cache, **{condition_of(name): other for name, other in others.items()}}
    train = SliceDataset(cache, split.train)
    maps = SliceDataset(others[LABELS], division.maps) if LABELS in others else train
    cohorts = RealImages(
        train=train,
        validation=SliceDataset(cache, split.val),
        tests={name: SliceDataset(test_caches[name], names) for name, names in division.tests.items()},
        maps=maps,
        config=config,
        priors=priors_in(context.others, maps.cache),
    )
    people = {"maps": cohorts.maps, **{f"test {name}": test for name, test in cohorts.tests.items()}}
    return cohorts, {**split.to_dict(), **{name: list(dataset.subjects) for name, dataset in people.items()}}


def _check_images(cache: Cache, config: RealImageSettings) -> None:
    if not cache.has_images:
        raise DataError(f"{cache.path}: holds labels only; a comparison on real images needs their images too")
    check_segmenter(cache, config.segmenter)


def _check_alike(cache: Cache, other: Cache, any_shape: bool) -> None:
    """DataError unless a segmenter for ``cache`` is one for ``other``."""
    mine, its = cache.info, other.info
    if its.class_names != mine.class_names:
        raise DataError(
            f"{other.path}: expected the classes of {cache.path} ({', '.join(mine.class_names)}), got "
            f"{', '.join(its.class_names)}; prepare both with one --mapping"
        )
    if its.shows != mine.shows:
        raise DataError(
            f"{other.path}: expected {mine.shows}s as in {cache.path}, got {its.shows}s; prepare both with prep labels "
            "--head and prep nifti --no-strip, or both without"
        )
    if sorted(zip(its.axes, its.views, strict=False)) != sorted(zip(mine.axes, mine.views, strict=False)):
        raise DataError(
            f"{other.path}: expected {mine.axis} slices of orientation {mine.orientation} as in {cache.path}, got "
            f"{its.axis} of {its.orientation}"
        )
    pairs = zip(its.spacing_mm, mine.spacing_mm, strict=True)
    if any(abs(a - b) > SPACING_TOLERANCE * b for a, b in pairs):
        raise DataError(
            f"{other.path}: expected voxels of {by(mine.spacing_mm)} mm as in {cache.path}, got "
            f"{by(its.spacing_mm)} mm; prepare both with one --spacing"
        )
    if other.shape != cache.shape and not any_shape:
        raise DataError(
            f"{other.path}: expected shape {by(cache.shape)} as in {cache.path}, got {by(other.shape)}; prepare both "
            "with one --size (label maps for synthesis can be cut and padded: --set fit_labels=true)"
        )
