"""Tables of a comparison of methods on real images, from its rows.

A row has ``method``, ``subjects`` (real ones it learned from), ``checkpoint``, ``validation`` (None where nothing was
chosen), ``steps``, ``wall_s``, ``total_s``, ``peak_mib``, and ``dice`` by test condition, each with ``mean``, ``sd``,
``per_class``, ``per_subject``, and where the images are no scans ``marks``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metasynth.report.statistics import Comparison, Interval, holm, interval, p_text, paired
from metasynth.report.tables import Table
from metasynth.running.records import METRICS, RESULTS
from metasynth.schema import COUNT, NUMBER, TEXT, entries, listing, mapping, maybe

Row = Mapping[str, Any]
DICE = entries(
    {
        "mean": maybe(NUMBER),
        "sd": maybe(NUMBER),
        "per_class": mapping(maybe(NUMBER), least=1),
        "per_subject": mapping(maybe(NUMBER)),
    },
    {"marks": listing(TEXT)},
)
TESTED = {
    "method": TEXT,
    "subjects": COUNT,
    "checkpoint": TEXT,
    "steps": COUNT,
    "wall_s": NUMBER,
    "total_s": NUMBER,
    "dice": mapping(DICE, least=1),
}
_ROW = entries(
    {**TESTED, "validation": maybe(NUMBER), "peak_mib": maybe(NUMBER)},
    {"learned": mapping(NUMBER), "variant": TEXT, "priors": TEXT, "learned_priors": TEXT},
)
PEOPLE = listing(TEXT)
CONTENTS = {
    METRICS: listing(entries({"stage": TEXT}), least=1),
    RESULTS: entries({"rows": listing(_ROW, least=1)}),
    "split.json": entries({"maps": PEOPLE, "train": PEOPLE, "val": PEOPLE}),
}
"""What is read of the files of a run; an ``Experiment.contents``."""

NAIVE, SHOWN_CHECKPOINTS = "naive", ("best", "only")


@dataclass(frozen=True)
class Naming:
    """What methods are called.

    Attributes
    ----------
    titles : mapping
        Method -> title.
    sizes : bool
        Whether the number of real subjects belongs to the name, as where there are several.
    """

    titles: Mapping[str, str]
    sizes: bool

    @classmethod
    def of(cls, rows: Sequence[Row], titles: Mapping[str, str]) -> "Naming":
        """Numbers of subjects are named where a method has rows of several."""
        seen = {(row["method"], row["subjects"]) for row in rows}
        return cls(titles, len(seen) > len({method for method, _ in seen}))

    def __call__(self, row: Row) -> str:
        """'Mixed SynthSeg (5)'; with the setting of a group before it."""
        title = self.titles.get(row["method"], row["method"])
        title = f"{title} ({row['subjects']})" if self.sizes and row["subjects"] else title
        return f"{row['group']}: {title}" if row.get("group") else title


def shown(rows: Sequence[Row]) -> list[Row]:
    """The rows that figures and comparisons are of: the best checkpoints."""
    return [row for row in rows if row["checkpoint"] in SHOWN_CHECKPOINTS]


def images_of(row: Row, condition: str) -> str:
    """What test images are called: their condition, and what says that they are no scans: 'FLASH, SIMULATED'."""
    return ", ".join((condition, *row["dice"].get(condition, {}).get("marks", ())))


def method_table(rows: Sequence[Row], naming: Naming) -> Table:
    """Mean and standard deviation of Dice by method, checkpoint and condition (Tables 5 to 7 and 9 of the paper)."""
    conditions = list(rows[0]["dice"])
    records = [
        {
            "method": naming(row),
            "subjects": row["subjects"],
            "checkpoint": row["checkpoint"],
            "validation": row["validation"],
            **{f"test {name}": _mean_sd(row["dice"][name]) for name in conditions},
        }
        for row in rows
    ]
    headings = {"method": "method", "subjects": "real subjects", "checkpoint": "checkpoint", "validation": "validation"}
    caption = (
        "Dice, mean of the foreground classes: mean ± standard deviation over test subjects, for the checkpoint that "
        "was best on the validation subjects and for the last."
    )
    return Table.from_records(
        caption, records, headings | {f"test {name}": images_of(rows[0], name) for name in conditions}
    )


def class_table(rows: Sequence[Row], naming: Naming) -> Table:
    """Dice per class of every method's best checkpoint, by condition."""
    chosen = shown(rows)
    records = [
        {"test": images_of(row, name), "method": naming(row), **dict(list(row["dice"][name]["per_class"].items())[1:])}
        for name in chosen[0]["dice"]
        for row in chosen
    ]
    classes = {name: name for record in records for name in record if name not in ("test", "method")}
    headings = {"test": "test images", "method": "method"} | classes
    return Table.from_records("Dice per class, mean over test subjects, of the best checkpoints.", records, headings)


def difference_table(rows: Sequence[Row], naming: Naming) -> Table:
    """Every method against naive SynthSeg, in pairs of the same test subject; no rows without naive.

    Of several runs, an interval over the mean differences of the runs stands beside that over subjects.
    """
    found = list(differences(shown(rows), naming))
    adjusted_t = holm([one.comparison.p_t for one in found])
    adjusted_w = holm([one.comparison.p_wilcoxon for one in found])
    records = [
        {
            "test": one.condition,
            "method": one.method,
            "difference": one.comparison.difference.mean,
            "interval": _text(one.comparison.difference),
            "n": one.comparison.difference.n,
            "t": p_text(p_t),
            "wilcoxon": p_text(p_wilcoxon),
            "over runs": None if one.over_runs is None else _text(one.over_runs),
            "runs": None if one.over_runs is None else one.over_runs.n,
        }
        for one, p_t, p_wilcoxon in zip(found, adjusted_t, adjusted_w, strict=True)
    ]
    headings = {
        "test": "test images",
        "method": "method",
        "difference": "difference to naive",
        "interval": "95 % interval",
        "n": "subjects",
        "t": "p, paired t (Holm)",
        "wilcoxon": "p, Wilcoxon (Holm)",
    }
    if any(one.over_runs for one in found):
        headings |= {"over runs": "95 % interval over runs", "runs": "runs"}
    caption = (
        "Difference of mean foreground Dice to naive SynthSeg, in pairs of test subjects, of the best checkpoints; p "
        "corrected for the number of tests in this table. Interval and p are over the subjects that these trained "
        "segmenters were tested on, not over trainings."
    )
    return Table.from_records(caption, records, headings)


@dataclass(frozen=True)
class Difference:
    """A method against naive SynthSeg under one condition, over subjects and, of several runs, over these."""

    condition: str
    method: str
    comparison: Comparison
    over_runs: Interval | None


def differences(rows: Sequence[Row], naming: Naming) -> Iterator[Difference]:
    """Comparisons to the naive row of the same group, where subjects were scored by both."""
    for condition in rows[0]["dice"] if rows else ():
        for row in rows:
            reference = [r for r in rows if r["method"] == NAIVE and r.get("group") == row.get("group")]
            if row["method"] == NAIVE or not reference:
                continue
            ours, theirs = (one["dice"][condition] for one in (row, reference[0]))
            pairs = _pairs(ours["per_subject"], theirs["per_subject"])
            runs = _pairs(ours.get("per_run", {}), theirs.get("per_run", {}))
            over_runs = interval([a - b for a, b in runs]) if len(runs) > 1 else None
            if pairs:
                yield Difference(images_of(row, condition), naming(row), paired(*zip(*pairs, strict=True)), over_runs)


def _pairs(ours: Mapping[str, float | None], theirs: Mapping[str, float | None]) -> list[tuple[float, float]]:
    both = ((value, theirs.get(name)) for name, value in ours.items())
    return [(a, b) for a, b in both if a is not None and b is not None]


def cost_table(rows: Sequence[Row], naming: Naming) -> Table:
    """Steps, time and memory of every method (supplement, section 13)."""
    records = [
        {
            "method": naming(row),
            "steps": row["steps"],
            "minutes": row["wall_s"] / 60,
            "total": row["total_s"] / 60,
            "peak": row["peak_mib"],
        }
        for row in shown(rows)
    ]
    headings = {
        "method": "method",
        "steps": "inner steps",
        "minutes": "minutes",
        "total": "minutes, with what it is made from",
        "peak": "peak memory, MiB",
    }
    caption = "What training cost, looks at the validation subjects included; memory without the makers of its data."
    return Table.from_records(caption, records, headings)


def learned_table(rows: Sequence[Row], naming: Naming) -> Table:
    """What each variant of Learn2Synth learned: mean over the last tenth of the outer steps."""
    learned = [row for row in shown(rows) if row.get("learned") and "variant" not in row]
    records = [{"method": naming(row), **row["learned"]} for row in learned]
    headings = {"method": "method"} | {name: name for record in records for name in record if name != "method"}
    caption = "Learned parameters: σ of the noise and exponents of the fields, coarsest first."
    return Table.from_records(caption, records, headings)


def published_table(published: Mapping[str, Any]) -> Table:
    """What the paper reports, from its own data and scale: a table of its own, not to be read against ours."""
    rows = tuple(tuple(row) for row in published["rows"])
    caption = f"The paper's own figures, of other data and another scale ({published['source']})."
    return Table(caption, tuple(published["columns"]), rows)


def _mean_sd(dice: Row) -> str | None:
    if dice["mean"] is None:
        return None
    return f"{dice['mean']:.3f}" + ("" if dice["sd"] is None else f" ± {dice['sd']:.3f}")


def _text(found: Interval) -> str | None:
    return None if found.half is None else f"[{found.mean - found.half:+.3f}, {found.mean + found.half:+.3f}]"
