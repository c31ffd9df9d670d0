"""The caches of a comparison of methods on real images."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from metasynth.experiments.comparison.methods import variants_among
from metasynth.experiments.comparison.settings import ComparisonConfig
from metasynth.experiments.real_images.cohorts import check_caches, maps_of
from metasynth.experiments.real_images.division import split_of
from metasynth.experiments.real_images.own_maps import numbers_in

from metasynth.augment.table import entry_of
from metasynth.data.cache import Cache
from metasynth.errors import DataError, UsageError
from metasynth.running.prepared import PreparedData
from metasynth.training.augmenter_file import FROZEN, check_frozen
from metasynth.training.network_check import check_network


def check_comparison(
    config: ComparisonConfig, data: Path, labels: Path | None = None, tests: Mapping[str, Path] | None = None
) -> PreparedData:
    """`check_caches` for every method of a comparison; who is for what follows from the seed, see `check_division`.

    Raises
    ------
    DataError
        As there; if images cannot be halved as often as the network of an augmenter does; if a reference batch is to
        be synthesised from label maps of both caches and these have other generation labels; if what an earlier run
        learned cannot be read, or is for other images; see `_check_own` besides.
    UsageError
        If the segmenter's network cannot be made, or own label maps are asked for where there are no others.
    """
    if config.own_labels and labels is None:
        raise UsageError(
            "own_labels: is the share of label maps beside those of a cache of their own (--label-cache); without one "
            f"those of all training subjects serve; expected 0, got {config.own_labels}"
        )
    prepared = check_caches(config, data, labels, tests, seed=None)
    for name, outer in config.outer_problems.items():
        if labels is not None and outer.reference != "none":
            require_same_generation(data, labels, f"{name}.reference={outer.reference} synthesises from both", name)
    if labels is not None and config.own_labels:
        _check_own(config, data, labels)
    if any(entry_of(name).network for name in variants_among(config.methods)):
        with Cache(data, check_values=False) as cache:  # checked before
            check_network(cache, config.learned.network, "learned.network", config.segmenter.window)
    if config.learned.frozen:
        frozen = check_frozen(Path(config.learned.frozen), maps_of(prepared))
        return replace(prepared, others={**prepared.others, FROZEN: frozen})
    return prepared


def require_same_generation(data: Path, labels: Path, why: str, outer: str = "outer") -> None:
    """Refuse label maps from which other images are synthesised than from those of ``data``; both were checked before.

    Raises
    ------
    DataError
        Which names the first generation label that differs, and ``why`` the two are to be the same; ``outer`` is the
        group of settings that asks for it.
    """
    with Cache(data, check_values=False) as cache, Cache(labels, check_values=False) as other:
        pairs = enumerate(zip_longest(_generation_labels(cache), _generation_labels(other), fillvalue="absent"))
        found = next(((g, there, here) for g, (there, here) in pairs if there != here), None)
        if found is not None:
            g, there, here = found
            raise DataError(
                f"{labels}: expected the generation labels of {data}, as {why}; label {g} is {there} there, {here} "
                f"here: prepare both with the same --mapping and --generate, or set {outer}.reference=none"
            )


def _check_own(config: ComparisonConfig, data: Path, labels: Path) -> None:
    """DataError unless own label maps can serve beside others: of the same labels, and of two real people at least."""
    with Cache(data, check_values=False) as cache, Cache(labels, check_values=False) as maps:
        numbers_in(maps, cache)
        everyone = len(split_of(config, cache, 0).train)
        fewest = min(n or everyone for n in config.subjects.train)
        if fewest < 2:
            raise DataError(
                f"{data}: own_labels keeps those whose label maps serve apart from those of the outer batch, which "
                f"needs at least 2 training subjects, got subjects.train={fewest}"
            )


def _generation_labels(cache: Cache) -> list[str]:
    labels = zip(cache.generation_names, cache.generation_classes, strict=True)
    return [f"{name!r} of class {own!r}" for name, own in labels]
