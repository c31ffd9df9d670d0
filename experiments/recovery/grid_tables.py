"""Tables of a recovery study over many runs.

Rows are those of `metasynth.experiments.recovery.rows`, each with its ``seed`` and the settings that were varied.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from metasynth.experiments.recovery.quantities import Quantity
from metasynth.experiments.recovery.rows import MODELS, Label, Row

from metasynth.report.statistics import Comparison, Interval, grouped, holm, interval, p_text, paired
from metasynth.report.tables import Table

PAIRS = (("L", "N"), ("O", "L"))


def recovery_table(learned: Sequence[Row], quantity: Quantity, label: Label, by: Sequence[str] = ()) -> Table:
    """Learned values of each preset over all runs, and a last row over all presets with a known truth.

    Parameters
    ----------
    learned : sequence of rows
        Those of model L.
    quantity : Quantity
        Which value.
    label : callable
        The label of a ``sigma_true``, by which a preset is known.
    by : sequence of str
        Settings that have rows of their own; runs that differ in anything else are taken together.
    """
    records = []
    for settings, rows in grouped(learned, lambda row: _settings(row, by)).items():
        presets = grouped(rows, lambda row: (label(row["sigma_true"]), _text(quantity, row)))
        for (preset, truth), of_preset in presets.items():
            values = [value for row in of_preset if (value := quantity.learned_in(row)) is not None]
            found = interval(values) if values else None
            mean = {"mean": found.mean, "half": found.half} if found else {}
            records.append({**_named(by, settings), "preset": preset, "truth": truth, "n": len(values), **mean})
            records[-1] |= _errors(quantity, of_preset)
        known = sum(quantity.error_in(row) is not None for row in rows)
        if known:
            total = {"preset": "all with a truth", "n": known, **_errors(quantity, rows)}
            records.append(_named(by, settings) | total)
    truth_heading = {"truth": f"true {quantity.name}"} if isinstance(quantity.item, int) else {}
    headings = {key: key for key in by} | {"preset": "preset σ"} | truth_heading | {"n": "runs"}
    headings |= {"mean": f"learned {quantity.name}", "half": "±"}
    headings |= {"error": "mean absolute error", "worst": "worst absolute error"} if quantity.truth else {}
    caption = f"Preset and learned {quantity.name} over runs. ± is half the width of a 95 % t-interval of the mean."
    return _table(caption, headings, records)


def dice_table_over_seeds(rows: Sequence[Row], label: Label, by: Sequence[str] = ()) -> Table:
    """Mean Dice ± half the width of its interval by training and test condition, the best of each column marked.

    Runs of one seed are averaged first: they share their test subjects, and N does not depend on their start.
    """
    conditions = list(dict.fromkeys(name for row in rows for name in row["dice"]))
    records = []
    for settings, alike in grouped(rows, lambda row: _settings(row, by)).items():
        trained = grouped(alike, lambda row: (label(row["sigma_true"]), row["model"]))
        found = {key: {name: _over_seeds(of_key, name) for name in conditions} for key, of_key in trained.items()}
        best = {name: _best(one[name] for one in found.values()) for name in conditions}
        for (preset, model), by_condition in found.items():
            record = {**_named(by, settings), "real": preset, "model": f"{model} ({MODELS[model]})"}
            record["n"] = max((one.n for one in by_condition.values() if one), default=0)
            records.append(record | {f"test {name}": _cell(one, best[name]) for name, one in by_condition.items()})
    headings = {key: key for key in by} | {"real": "real σ", "model": "segmenter", "n": "seeds"}
    headings |= {f"test {name}": f"test {name}" for name in conditions}
    caption = (
        "Mean Dice of the foreground classes ± half the width of its 95 % t-interval over seeds, by test noise; the "
        "best of a column is marked *."
    )
    return _table(caption, headings, records)


def comparison_table(rows: Sequence[Row], label: Label, by: Sequence[str] = ()) -> Table:
    """Differences between segmenters on the noise of their own real images, paired by seed and test subject.

    Runs of one seed are averaged first. Presets whose own noise was not tested have no row.
    """
    records, p_values = [], []
    for settings, alike in grouped(rows, lambda row: _settings(row, by)).items():
        for preset, of_preset in grouped(alike, lambda row: label(row["sigma_true"])).items():
            models = grouped(of_preset, lambda row: row["model"])
            scores = {model: _by_subject(of_model, preset) for model, of_model in models.items()}
            for one, other in PAIRS:
                a, b = scores.get(one, {}), scores.get(other, {})
                keys = [key for key in a if key in b]
                if not keys:
                    continue
                found = paired([a[key] for key in keys], [b[key] for key in keys])
                seeds = grouped(keys, lambda key: key[0])
                means = interval([fmean(a[key] - b[key] for key in of_seed) for of_seed in seeds.values()])
                case = {**_named(by, settings), "real": preset, "pair": f"{one} - {other}"}
                records.append(case | _compared(found, means))
                p_values.append(found.p_t)
    for record, p in zip(records, holm(p_values), strict=True):
        record["holm"] = p_text(p)
    headings = {key: key for key in by} | {"real": "real σ", "pair": "segmenters", "mean": "difference", "half": "±"}
    headings |= {"n": "pairs", "t": "p (t)", "wilcoxon": "p (Wilcoxon)"}
    headings |= {"holm": "p (t, Holm)"} if len(records) > 1 else {}
    headings |= {"seed half": "± over seeds", "seeds": "seeds"}
    caption = (
        "Differences in mean Dice on the own real noise, in pairs of seed and test subject, with 95 % t-intervals and "
        "two-sided p. Pairs of a seed share their segmenters; the interval over the means of the seeds allows for that."
    )
    return _table(caption, headings, records)


def _named(by: Sequence[str], texts: Sequence[Any]) -> dict[str, Any]:
    """Settings by name."""
    return dict(zip(by, texts, strict=True))


def _settings(row: Row, by: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(row[key]) for key in by)


def _table(caption: str, headings: Mapping[str, str], records: Sequence[Mapping[str, Any]]) -> Table:
    rows = tuple(tuple(record.get(key) for key in headings) for record in records)
    return Table(caption, tuple(headings.values()), rows)


def _text(quantity: Quantity, row: Row) -> Any:
    truth = quantity.truth_in(row)
    return truth if isinstance(quantity.item, int) else None


def _errors(quantity: Quantity, rows: Sequence[Row]) -> dict[str, Any]:
    errors = [error for row in rows if (error := quantity.error_in(row)) is not None]
    return {"error": fmean(errors), "worst": max(errors)} if errors else {}


def _over_seeds(rows: Sequence[Row], condition: str) -> Interval | None:
    means = [
        fmean(values)
        for of_seed in grouped(rows, lambda row: row["seed"]).values()
        if (values := [v for row in of_seed if (v := row["dice"].get(condition, {}).get("mean")) is not None])
    ]
    return interval(means) if means else None


def _best(intervals: Iterable[Interval | None]) -> float | None:
    return max((one.mean for one in intervals if one), default=None)


def _cell(found: Interval | None, best: float | None) -> str | None:
    if found is None:
        return None
    half = "" if found.half is None else f" ± {found.half:.3f}"
    return f"{found.mean:.3f}{half}{' *' if found.mean == best else ''}"


def _by_subject(rows: Sequence[Row], condition: str) -> dict[tuple[Any, str], float]:
    """(seed, subject) -> Dice under a condition, averaged over the runs of the seed."""
    values: dict[tuple[Any, str], list[float]] = {}
    for row in rows:
        for subject, value in row["dice"].get(condition, {}).get("per_subject", {}).items():
            if value is not None:
                values.setdefault((row["seed"], subject), []).append(value)
    return {key: fmean(of_key) for key, of_key in values.items()}


def _compared(found: Comparison, means: Interval) -> dict[str, Any]:
    difference = {"mean": found.difference.mean, "half": found.difference.half, "n": found.difference.n}
    tests = {"t": p_text(found.p_t), "wilcoxon": p_text(found.p_wilcoxon)}
    return difference | tests | {"seed half": means.half, "seeds": means.n}
