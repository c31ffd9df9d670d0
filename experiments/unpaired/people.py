"""Whose scans and whose label maps are learned from, where nobody's are both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from metasynth.experiments.real_images.cohorts import RealImages, check_caches, check_division, divided
from metasynth.experiments.real_images.division import LABELS
from metasynth.experiments.unpaired.methods import learned_among
from metasynth.experiments.unpaired.settings import UnpairedSettings

from metasynth.augment.table import entry_of
from metasynth.data.cache import Cache
from metasynth.data.dataset import SliceDataset
from metasynth.errors import DataError
from metasynth.running.prepared import PreparedData
from metasynth.running.study import StudyContext
from metasynth.synthesis.batched import BatchedGenerator
from metasynth.training.network_check import check_network


@dataclass(frozen=True)
class UnpairedImages:
    """Subjects by what they are for.

    Attributes
    ----------
    cohorts : RealImages
        Who is tested, and the generators of synthetic images.
    maps, scans : SliceDataset
        Of different people, none of whom is tested.
    """

    cohorts: RealImages
    maps: SliceDataset
    scans: SliceDataset

    @property
    def undeformed(self) -> BatchedGenerator:
        """What makes synthetic images of label maps as they are."""
        generator = self.cohorts.whole(self.cohorts.config.synthesis, self.cohorts.priors.get("synthesis"))
        still = replace(generator.config, translations=0.0, rotation=0.0, shears=0.0, zooms=0.0, elastic=0.0)
        return BatchedGenerator(generator.n_classes, still, priors=generator.priors, head=generator.head)


def check_people(settings: UnpairedSettings, data: Path, labels: Path | None) -> PreparedData:
    """Open the caches of a run, check every value in them, that they go together and have subjects enough.

    Who is for what follows from the seed: see `check_seed`.

    Raises
    ------
    DataError
        As `metasynth.experiments.real_images.cohorts.check_caches`; if ``people.scans`` asks for more subjects than
        there are, or images cannot be halved as often as the discriminator or the generator's network does.
    UsageError, RunError
        If a learned generator cannot be made; see `metasynth.augment.entry.AugmenterEntry.made`.
    """
    prepared = check_caches(settings, data, labels, seed=None)
    with Cache(data, check_values=False) as cache:  # checked before
        n = len(cache.subjects)
        held_out = sum(settings.people.division().counts(n))
        _count(settings, n - held_out, data)
        halvings = len(settings.discriminator.widths) - 1
        learned = learned_among(settings.methods)
        if learned and any(size % 2**halvings for size in cache.shape):
            raise DataError(
                f"{data}: images of {' x '.join(map(str, cache.shape))} cannot be halved {halvings} times, as "
                f"discriminator.widths of {halvings + 1} numbers asks for"
            )
        if any(entry_of(method.augmenter).network for method in learned):
            check_network(cache, settings.generator.network, "generator.network")
        for method in learned:
            settings.generator.build(method.name, cache.n_classes, len(cache.shape), 0)
    return prepared


def check_seed(settings: UnpairedSettings, prepared: PreparedData, seed: int) -> None:
    """Divide the subjects as a run with this seed does; DataError if too few are left for something."""
    division = check_division(settings, prepared, seed)
    labels = prepared.others.get(LABELS, prepared)
    _maps(settings, division.train, division.maps, prepared.path, labels.path)


def load_unpaired(context: StudyContext) -> UnpairedImages:
    """Open the caches of a run and divide their subjects; who is for what is kept in split.json."""
    settings: UnpairedSettings = context.config
    cohorts, split = divided(context)
    train, own = cohorts.train.subjects, cohorts.maps
    count, left = _maps(settings, train, own.subjects, context.data, own.cache.path)
    scans, maps = SliceDataset(cohorts.cache, train[:count]), SliceDataset(own.cache, left)
    context.folder.keep_split({**split, "maps": _names(maps), "scans": _names(scans)})
    return UnpairedImages(cohorts, maps, scans)


def _maps(
    settings: UnpairedSettings, train: Sequence[str], maps: Sequence[str], data: Path, labels: Path
) -> tuple[int, list[str]]:
    """How many training subjects' scans are used, and whose label maps are; DataError if that leaves none."""
    count = _count(settings, len(train), data)
    left = [name for name in maps if name not in train[:count]]
    if not left:
        raise DataError(f"{labels}: has label maps only of people whose scans are used or tested")
    return count, left


def _count(settings: UnpairedSettings, training: int, path: Path) -> int:
    """How many training subjects' scans are used; DataError if that leaves no label maps, or there are not as many."""
    most = training if settings.labels else training - 1
    count = settings.people.scans or (training if settings.labels else training // 2)
    if count > most:
        kept = "" if settings.labels else ", of which at least 1 is kept for its label maps"
        raise DataError(f"{path}: people.scans asks for {count} subjects; there are {training} training subjects{kept}")
    return count


def _names(dataset: SliceDataset) -> Sequence[str]:
    return list(dataset.subjects)
