"""The augmenter of a recovery study, and what rows and the report say of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from metasynth.experiments.recovery.figures import sigma_figure, values_figures
from metasynth.experiments.recovery.rows import Label, Row, error_of
from metasynth.experiments.recovery.study import RecoveryCase, bilevel_stage
from metasynth.experiments.recovery.tables import sigma_table, values_table

from metasynth.augment.augmenter import Augmenter
from metasynth.augment.corruption import Corruption
from metasynth.augment.entry import AugmenterEntry, Start
from metasynth.augment.noise import NoiseLevel
from metasynth.augment.table import entry_of, known_entry
from metasynth.data.cache import Cache
from metasynth.report.html import ReportFigure
from metasynth.report.tables import Table
from metasynth.running.prepared import PreparedData
from metasynth.running.records import RunFolder
from metasynth.running.seeding import generator_for
from metasynth.training.courses import course_of
from metasynth.training.network_check import check_network
from metasynth.training.stages import BilevelResult


def start_of(cache: Cache, seed: int, **values: Any) -> Start:
    """A start for images like those of a cache, whose weights follow from the run's seed."""
    return Start(len(cache.shape), generator_for(seed, "augmenter"), structures=cache.n_generation, **values)


def check_augmenter(
    name: str, prepared: PreparedData, setting: str, patch: Sequence[int] = (), **values: Any
) -> dict[str, float]:
    """Make the augmenter once for images of a cache, or patches, before a run begins, and return what it observes.

    Raises
    ------
    DataError
        If images cannot be halved as often as its network does; ``setting`` is that of the network.
    UsageError
        If it refuses its start, or it or its line says something wrong of it.
    RunError
        If it cannot be made.
    """
    entry = entry_of(name)
    with Cache(prepared.path, check_values=False) as cache:  # checked before
        start = start_of(cache, 0, **values)
        if entry.network:
            check_network(cache, start.network, setting, patch)
    return entry.made(start).observed()


def case_of(name: str, start: Start, level: NoiseLevel, real: Corruption, truth: Mapping[str, Any]) -> RecoveryCase:
    """The case of one preset, with the augmenter of that name at its start."""
    entry = entry_of(name)
    augmenter: Augmenter[Any] = entry.made(start)
    known = entry.known

    def corruption(values: Mapping[str, float]) -> Corruption:
        assert known is not None
        return known(values, start)

    return RecoveryCase(
        level,
        real,
        augmenter,
        {**truth, "augmenter": name},
        lambda found: _found(entry, found, exponents="c_true" in truth),
        corruption if known else None,
    )


def _found(entry: AugmenterEntry, found: BilevelResult, *, exponents: bool) -> dict[str, Any]:
    """What rows say: sigma, and exponents where they have a truth, by those names; or else all that was observed."""
    if not entry.sigma:
        return {"learned": dict(found.mean), "learned_sd": dict(found.sd)}
    row: dict[str, Any] = {}
    for key, values in (("sigma_learned", found.mean), ("sigma_sd", found.sd)):
        one, *more = (values[name] for name in entry.sigma)
        row[key] = [one, *more] if more else one
    if entry.exponents and exponents:
        row["c_learned"] = [found.mean[name] for name in entry.exponents]
        row["c_sd"] = [found.sd[name] for name in entry.exponents]
    return row


def learned_values(
    folder: RunFolder, learned: Sequence[Row], label: Label, published: Mapping[str, float]
) -> tuple[Table, list[ReportFigure]]:
    """The table and the courses of what was learned: of sigma, or of all observed values of an augmenter without.

    Of a range of sigma the upper end is drawn. Where the augmenter is missing, what its line says to draw is not known:
    courses of sigma are left out, and all others are drawn.
    """
    records, first, config = folder.read_metrics(), learned[0], folder.manifest["config"]
    entry = known_entry(config["augmenter"])
    labels = [label(row["sigma_true"]) for row in learned]

    def courses(value: str) -> dict[str, tuple[Sequence[int], Sequence[float]]]:
        return {name: course_of(folder, records, bilevel_stage(name), value) for name in labels}

    if "sigma_learned" in first:
        names = entry.sigma[-1:] if entry else ()
        drawn = [sigma_figure(courses(name), learned, label, config["start"]) for name in names]
        return sigma_table(learned, label, published), drawn
    left_out = entry.undrawn if entry else ()
    values = [value for value in first["learned"] if value not in left_out]
    return values_table(learned, label), values_figures({value: courses(value) for value in values})


def told(name: str, **starts: float) -> str:
    """What the augmenter of that name did to the images; it may be one that this environment lacks."""
    entry = known_entry(name)
    return entry.told.format(**starts) if entry and entry.told else f"changed by the augmenter {name}"


def learned_text(row: Row) -> str:
    """What a row of model L learned, as a sentence has it."""
    if "sigma_learned" not in row:
        return "learned " + ", ".join(f"{name} {value:.4f}" for name, value in row["learned"].items())
    value, error = row["sigma_learned"], error_of(row)
    found = f"{value:.4f}" if isinstance(value, float) else f"U[{value[0]:.4f}, {value[1]:.4f}]"
    return f"learned {found}" + ("" if error is None else f", an error of {error:.4f}")
